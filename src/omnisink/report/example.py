"""The example of a study as arrays, its tokens gathered where there are more than can be seen or sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.plotting.palette import MODALITIES
from omnisink.report.cleaning import PICTURE, shown_token

Matrix = NDArray[np.float64]

#: Cells of the sink map that a page can hold and a browser can draw while somebody waits.
MAX_CELLS = 40_000
#: More columns than this would be thinner than a pixel of the narrowest drawing, and a sink among them not seen.
MAX_COLUMNS = 640
#: Characters of pictures in one page.
MAX_PICTURES = 1_500_000


@dataclass(frozen=True)
class Bin:
    """Neighbouring tokens drawn as one column; most often a single token.

    Attributes
    ----------
    begin, end : int
        Positions, `end` exclusive.
    token : str
        The token, or the one of the bin that stands out, for reading.
    kind : str
        Modality and time, for reading.
    modality : str
        One of `MODALITIES`: that of most of its tokens.
    frame : int or None
        Index into the frames that are kept.
    """

    begin: int
    end: int
    token: str
    kind: str
    modality: str
    frame: int | None


@dataclass(frozen=True)
class Example:
    """One item looked at closely; matrices are (L, S), float64, NaN where a number is missing."""

    tokens: Sequence[Mapping[str, Any]]
    frames: Sequence[Mapping[str, Any]]
    frames_given: int
    kept_frame: Mapping[int, int]
    waveform: Mapping[str, Sequence[float | None]] | None
    magnitude: Matrix
    received: Matrix
    sink_query: Matrix
    last_query: Matrix
    marked: Mapping[str, Sequence[tuple[int, int]]]

    @property
    def layers(self) -> int:
        """Number of layers that were examined."""
        return self.magnitude.shape[0]

    @property
    def timed(self) -> list[int]:
        """Positions of the tokens that stand for a time of the clip."""
        return [i for i, token in enumerate(self.tokens) if token.get("begins") is not None]

    @classmethod
    def of(cls, example: Mapping[str, Any]) -> Example:
        """Read the example of cleaned study results."""
        tokens = [dict(token, modality=_modality(token.get("modality"))) for token in example.get("tokens") or []]
        shape = (int(example.get("layers") or len(example.get("magnitude") or [])), len(tokens))
        frames = example.get("frames") or []
        kept = _kept_frames(frames)
        marked = {
            name: sorted({(int(la), int(p)) for la, p in cells if 0 <= la < shape[0] and 0 <= p < shape[1]})
            for name, cells in (example.get("marked") or {}).items()
        }
        return cls(
            tokens=tokens,
            frames=[{"frame": new, "time": frames[old].get("time"), "image": frames[old]["image"]}
                    for new, old in enumerate(kept)],
            frames_given=len(frames),
            kept_frame={old: _nearest(old, kept) for old in range(len(frames))} if kept else {},
            waveform=example.get("waveform") or None,
            magnitude=_matrix(example.get("magnitude"), shape),
            received=_matrix(example.get("received"), shape),
            sink_query=_matrix(example.get("sink_query"), shape),
            last_query=_matrix(example.get("last_query"), shape),
            marked=marked,
        )  # fmt: skip

    def bins(self) -> list[Bin]:
        """Gather neighbouring tokens until the columns fit."""
        columns = min(MAX_COLUMNS, max(1, MAX_CELLS // max(1, self.layers)))
        size = -(-len(self.tokens) // columns) or 1
        with np.errstate(all="ignore"):
            standing = np.nan_to_num(self.magnitude).max(axis=0, initial=0.0)
        return [self._bin(b, min(b + size, len(self.tokens)), standing) for b in range(0, len(self.tokens), size)]

    def _bin(self, begin: int, end: int, standing: Matrix) -> Bin:
        inside = self.tokens[begin:end]
        chosen = begin + int(standing[begin:end].argmax())
        token = self.tokens[chosen]
        place = f" at {chosen}, largest of {begin} to {end - 1}" if end - begin > 1 else f" at {begin}"
        frame = self.kept_frame.get(token["frame"]) if token.get("frame") is not None else None
        return Bin(
            begin,
            end,
            shown_token(str(token.get("text", ""))) + place,
            token["modality"] + _time(token),
            Counter(t["modality"] for t in inside).most_common(1)[0][0],
            frame,
        )

    def column(self, position: int) -> Bin:
        """Return one token as a column of its own."""
        return self._bin(position, position + 1, np.zeros(len(self.tokens)))

    def name(self, position: int) -> str:
        """Name a token in a sentence."""
        token = self.tokens[position]
        return f"{shown_token(str(token.get('text', '')), 24)} at position {position} ({token['modality']})"


def rounded(values: Matrix) -> list[float | None]:
    """Return numbers with four significant digits, None for NaN: as much as a chart can show."""
    return [None if v != v else float(f"{v:.4g}") for v in values.tolist()]


def _time(token: Mapping[str, Any]) -> str:
    begins, ends = token.get("begins"), token.get("ends")
    if begins is None:
        return ""
    return f", {begins:.2f} s" if ends is None else f", {begins:.2f} to {ends:.2f} s"


def _modality(name: Any) -> str:
    return name if name in MODALITIES else "other"


def _matrix(rows: Any, shape: tuple[int, int]) -> Matrix:
    """Read rows of numbers; a missing row, a missing number and whatever was not given are NaN."""
    matrix = np.full(shape, np.nan)
    for layer, row in enumerate((rows or [])[: shape[0]]):
        if row is not None:
            found = np.asarray(row, dtype=np.float64)[: shape[1]]
            matrix[layer, : len(found)] = found
    return matrix


def _kept_frames(frames: Sequence[Mapping[str, Any]]) -> list[int]:
    """Choose frames, evenly, whose pictures fit in the page together."""
    whole = [i for i, frame in enumerate(frames) if PICTURE.fullmatch(str(frame.get("image") or ""))]
    step = 1
    while whole and sum(len(frames[i]["image"]) for i in whole[::step]) > MAX_PICTURES:
        if step >= len(whole):
            return []
        step += 1
    return whole[::step]


def _nearest(index: int, kept: Sequence[int]) -> int:
    return min(range(len(kept)), key=lambda i: abs(kept[i] - index))
