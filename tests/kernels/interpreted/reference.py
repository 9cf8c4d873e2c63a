"""The functions of `omnisink.maths` without the kernels, where the kernels are otherwise chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from omnisink.maths import choice


@contextmanager
def reference() -> Iterator[None]:
    with patch.object(choice, "_CHOICE", ""):
        yield
