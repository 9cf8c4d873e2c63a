"""The colours of every picture: of the pages and of figures with Matplotlib.

Colours stay apart for the colour-blind (blue, orange, green and purple differ in lightness too), and have a contrast
of at least 3 : 1 to the page.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Order of the modalities in every legend; anything else is "other".
MODALITIES = ("text", "image", "video", "audio", "other")


@dataclass(frozen=True)
class Look:
    """Colours for one kind of page."""

    paper: str
    ink: str
    soft: str
    grid: str
    modalities: tuple[str, ...]  # in the order of MODALITIES
    series: tuple[str, ...]
    ramp: tuple[str, ...]
    heat: tuple[str, ...]  # from little to much, for a field of cells

    def modality(self, name: str) -> str:
        """Return the colour of a modality."""
        return self.modalities[MODALITIES.index(name if name in MODALITIES else "other")]


LIGHT = Look(
    paper="#ffffff",
    ink="#16202a",
    soft="#4c5864",
    grid="#e3e8ec",
    modalities=("#5a6672", "#8a4f9e", "#1f6fb0", "#c2500a", "#7a7a52"),
    series=("#1f6fb0", "#c2500a", "#0b7d62", "#8a4f9e", "#5a6672"),
    ramp=("#c98a00", "#c8503c", "#8d2a7a", "#2f2a7d"),
    heat=("#f6f8fa", "#b9d3e4", "#5b97bd", "#1f5f8b", "#0b2f4c"),
)
DARK = Look(
    paper="#14181d",
    ink="#e8edf2",
    soft="#a9b4bf",
    grid="#2b333c",
    modalities=("#a9b4c0", "#c79be0", "#5cb3f0", "#f5a25d", "#c5c590"),
    series=("#5cb3f0", "#f5a25d", "#4fcba6", "#c79be0", "#a9b4c0"),
    ramp=("#ffd166", "#f58b6b", "#c77dd1", "#8f9bff"),
    heat=("#1a222c", "#1d3f5c", "#2a76a6", "#6fb8de", "#e2f4ff"),
)
