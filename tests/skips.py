"""Every combination that the tests leave out, with the reason. Nothing is skipped anywhere else."""

from __future__ import annotations

#: (family, backend, what) -> why, with "*" for all. What is "static", "left", "right", "generate" or "multimodal".
SKIPS: dict[tuple[str, str, str], str] = {
    ("*", "flex_attention", "static"): "generate() of transformers 5.23 cannot hand a block mask to a static cache",
}


def why_skipped(family: str, backend: str, what: str) -> str | None:
    """Return the reason for leaving a combination out, or None."""
    keys = [(family, backend, what), (family, "*", what), ("*", backend, what)]
    return next((SKIPS[key] for key in keys if key in SKIPS), None)
