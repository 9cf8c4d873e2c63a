"""Notice answers that mean nothing: logits that are not finite, with or without a method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.maths.finite import cause_of_nonfinite
from omnisink.maths.host import is_eager_cpu
from omnisink.models.writer import output_layer


@contextmanager
def finite_logits(model: Any) -> Iterator[None]:
    """Raise where a token was chosen from logits that are not finite.

    On the CPU that is at once; elsewhere at the end of the block, so that nothing waits. Graphs that were compiled
    before the block are not looked at.

    Parameters
    ----------
    model : PreTrainedModel
        With an output layer; without one nothing is done.

    Raises
    ------
    OmnisinkError
        In the block or at its end. It names the weights if they are the cause.
    """
    head = output_layer(model)
    if head is None:
        yield
        return
    bad: Tensor | None = None

    def look(module: Any, args: Any, logits: Any) -> None:
        nonlocal bad
        if torch.compiler.is_compiling():
            return
        # The last token of every sequence is never padding. A maximum propagates NaN; all -inf is not a choice either.
        now = ~logits.detach()[:, -1].amax(dim=-1).isfinite().all()
        if is_eager_cpu(now):
            if bool(now):
                raise _error(model)
            return
        bad = now if bad is None else bad | now

    hook = head.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()
    if bad is not None and bool(bad):
        raise _error(model)


def _error(model: Any) -> OmnisinkError:
    return OmnisinkError(
        f"the logits are not finite, so the answer means nothing. {cause_of_nonfinite(model.named_parameters())}"
    )
