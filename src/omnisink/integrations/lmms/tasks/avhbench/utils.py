"""The questions of AVHBench, by task and protocol; the folder is what OMNISINK_DATA_AVHBENCH says."""

from typing import Any

from omnisink.integrations.lmms.questions import load


def video_driven(_: Any) -> Any:
    """Return the questions on sound that the picture suggests, as OutRo's release asks them."""
    return load("avhbench", "outro", {"task": "Video-driven Audio Hallucination"})


def audio_driven(_: Any) -> Any:
    """Return the questions on what is seen that the sound suggests, as OutRo's release asks them."""
    return load("avhbench", "outro", {"task": "Audio-driven Video Hallucination"})


def matching(_: Any) -> Any:
    """Return the questions whether sound and picture match, as OutRo's release asks them."""
    return load("avhbench", "outro", {"task": "AV Matching"})


def strict(_: Any) -> Any:
    """Return all questions under our strict protocol."""
    return load("avhbench", "strict")
