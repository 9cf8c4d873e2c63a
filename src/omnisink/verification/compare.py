"""What every verification compares: outputs before, inside and after the block of a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

#: ``with attach(model) as trace``, as the methods of omnisink are.
Attach = Callable[[Any], AbstractContextManager[Any]]

#: Tokens that are generated after each prompt.
NEW_TOKENS = 3
#: Rounding of float32 through a few layers, relative to the size of what is compared.
_TOLERANCE = 2e-5


def compare(
    run: Callable[[], list[Tensor]], attach: Attach, model: Any, what: str, problems: list[str]
) -> tuple[list[Tensor], Any]:
    """Run before, inside and after the block, and note where the method did nothing, or left something behind.

    Parameters
    ----------
    run : callable
        Returns the logits of a prefill and of the tokens after it, (B, V) each.
    attach : callable
        The method: ``with attach(model) as trace``.
    model : PreTrainedModel
        The model that `run` runs.
    what : str
        What `run` is, for the problems.
    problems : list of str
        Added to.

    Returns
    -------
    tuple of list of Tensor, OutRoTrace
        The logits inside the block, and its trace.
    """
    before = run()
    with attach(model) as trace:
        inside = run()
    after = run()
    if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        problems.append(f"{what}: outputs after the block differ from those before it")
    if not sum(trace.rotated_tokens.values()):
        problems.append(f"{what}: no token was rotated")
    if same(inside[:1], before[:1]):
        problems.append(f"{what}: the method changed nothing")
    return inside, trace


def same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether logits are equal but for the rounding of float32."""
    if len(found) != len(expected) or any(a.shape != b.shape for a, b in zip(found, expected, strict=True)):
        return False
    pairs = zip(found, expected, strict=True)
    return all(float((a - b).abs().max()) <= _TOLERANCE * max(1.0, float(b.abs().max())) for a, b in pairs)


def problem_of(error: Exception) -> str:
    """Return what was raised in a line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


@contextmanager
def repeatable() -> Iterator[None]:
    """Let cuDNN convolve in the same way each time: outputs before and after the block are compared to the bit."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
