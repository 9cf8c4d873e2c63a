"""Choose the heads that ACT changes: those with which a score rises when only they are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from omnisink.decoder.anatomy import read_anatomy
from omnisink.methods.act import ACT
from omnisink.methods.given import model_of
from omnisink.methods.ranges import layer_range


def choose_heads(score: Callable[[ACT | None], float], model: Any, method: ACT | None = None) -> ACT:
    """Try ACT on one head after the other, and keep the heads with which the score is higher than without.

    This is the choice that the paper makes on a calibration set. It asks for a score once for every head of the layers
    ``start:stop``, and once for the model without a method, so that it takes that many runs of the set.

    Parameters
    ----------
    score : callable
        From a method, or None for the model without one, to a number such as the accuracy on the calibration set.
    model : nn.Module, Loaded or Pipeline
        The model whose heads are tried.
    method : ACT, optional
        Settings, whose `heads` are replaced; None is ``ACT()``.

    Returns
    -------
    ACT
        The settings with the chosen heads; with none where no head raises the score.
    """
    anatomy = read_anatomy(model_of(model, "choose_heads()"))
    method = ACT() if method is None else method
    config: Any = anatomy.text_model.config
    count = int(config.num_attention_heads)
    layers = [x for x in layer_range(method.start, method.stop, len(anatomy.layers)) if x in anatomy.attention]
    without = score(None)
    heads = [(layer, head) for layer in layers for head in range(count)]
    return replace(method, heads=tuple(one for one in heads if score(replace(method, heads=(one,))) > without))
