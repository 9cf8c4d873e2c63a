"""The tests of `interpreted` need a process of their own: Triton reads whether to interpret when it is imported."""

from __future__ import annotations

from omnisink.maths import choice

collect_ignore = [] if choice.INTERPRETS else ["interpreted"]
