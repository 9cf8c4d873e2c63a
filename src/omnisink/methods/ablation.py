"""What a sink is without its value, without its key's large channels, and what the model is without a head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError, shown
from omnisink.maths.geometry import top_channels
from omnisink.methods.base import Method
from omnisink.methods.prompt_sinks import over_keys
from omnisink.methods.sink_method import SinkMethod


@dataclass(frozen=True)
class ReplaceSinkValue(SinkMethod):
    """Replace the value vectors of sinks, by zero unless others are given, and leave the attention to them as it is.

    Without a value the sink still takes its share of every softmax, but brings nothing: the shared bias is gone. With
    the mean over other prompts, the bias is there and what it says of this prompt is not.

    Parameters
    ----------
    criterion, layers
        See `SinkMethod`.
    values : mapping of int to Tensor, optional
        For every layer to act on, (K, D') or (K, 1, D'), the value that takes the place of each sink's own; a layer
        that is missing is left alone. None is zero, at all layers.
    """

    values: Mapping[int, Tensor] | None = field(default=None, compare=False, repr=False)

    cost: ClassVar[str] = "a copy of a layer's values in every pass"
    measured: ClassVar[str] = (
        "By zero: +0.46 nats (0.41 to 0.52) on SmolLM2-135M, −0.005 (−0.058 to +0.052) on SmolOmni. By the mean of "
        "other texts: nothing changes"
    )

    def check(self, anatomy: Anatomy) -> None:
        """Refuse values for layers without attention that can be reached."""
        super().check(anatomy)
        _refuse_missing(self.values or (), anatomy)

    def attention_input(self, call: AttentionCall, context: Context) -> AttentionCall:
        """Replace the values of the sinks, in every pass."""
        sinks = self.prompt_sinks(call, context)
        if sinks is None or (self.values is not None and call.layer not in self.values):
            return call
        new = torch.zeros((), dtype=call.value.dtype, device=call.value.device)
        if self.values is not None:
            given = self.values[call.layer].to(call.value)
            heads, width = call.value.shape[1::2]
            if given.shape not in ((heads, width), (heads, 1, width)):
                raise OmnisinkError(
                    f"the value given for layer {call.layer} has the shape {tuple(given.shape)}, but the layer's "
                    f"values have {heads} heads of width {width}"
                )
            new = given.reshape(1, heads, 1, width)
        mark = over_keys(sinks, call.value.shape[2])[:, None, :, None]
        return replace(call, value=torch.where(mark, new, call.value))

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Return the head outputs that the replaced values gave."""
        return output


@dataclass(frozen=True)
class ZeroSinkKey(SinkMethod):
    """Zero-K: set the largest channels of the sinks' keys to zero, head by head.

    If few channels make a key a sink's key, attention to it collapses with them. The keys are those after position
    encoding, as the attention uses them.

    Parameters
    ----------
    criterion, layers
        See `SinkMethod`.
    channels : int
        How many channels n of each sink's key, the largest in absolute value; the key's width zeroes all of it.

    Raises
    ------
    ValueError
        If `channels` is not positive.
    """

    channels: int = 1

    source: ClassVar[str] = "Yoo, Jang, Chung (arXiv 2603.14337), its analysis"
    licence: ClassVar[str] = "no licence file"
    cost: ClassVar[str] = "a copy of a layer's keys in every pass"
    measured: ClassVar[str] = (
        "One channel: +0.21 nats on SmolLM2-135M, no effect that holds on SmolOmni. Attention to the sink falls from "
        "55% to 32%, where the paper reports a collapse on larger models"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, got {self.channels}")

    def attention_input(self, call: AttentionCall, context: Context) -> AttentionCall:
        """Zero the channels, in every pass."""
        sinks = self.prompt_sinks(call, context)
        if sinks is None:
            return call
        mark = over_keys(sinks, call.key.shape[2])[:, None, :, None]
        return replace(call, key=call.key.masked_fill(mark & top_channels(call.key, self.channels), 0.0))

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Return the head outputs that the changed keys gave."""
        return output


@dataclass(frozen=True)
class ZeroHeads(Method):
    """Set the outputs of some heads to zero, for every token of every pass.

    Parameters
    ----------
    heads : tuple of (int, int)
        Layer and query head.
    """

    heads: tuple[tuple[int, int], ...]

    needs: ClassVar[str] = "a list of heads"
    example: ClassVar[Mapping[str, Any]] = {"heads": ((0, 0),)}
    cost: ClassVar[str] = "next to nothing"
    measured: ClassVar[str] = (
        "Rank correlation of a head's attention to the sink with the harm of zeroing it: −0.33 (−0.52 to −0.14) on "
        "SmolLM2-135M, −0.04 (−0.28 to +0.21) on SmolOmni"
    )
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches; padding on both sides"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "heads", tuple((index(layer), index(head)) for layer, head in self.heads))
        except (TypeError, ValueError):
            raise ValueError(
                f"heads must be pairs of a layer and a head, as ((12, 0), (12, 3)), got {shown(self.heads)}"
            ) from None

    def check(self, anatomy: Anatomy) -> None:
        """Refuse layers without attention that can be reached."""
        _refuse_missing({layer for layer, _ in self.heads}, anatomy)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Zero the heads of this layer."""
        chosen = [head for layer, head in self.heads if layer == call.layer]
        if not chosen:
            return output
        if outside := [head for head in chosen if not 0 <= head < output.shape[2]]:
            raise OmnisinkError(f"layer {call.layer} has heads 0 to {output.shape[2] - 1}, not {outside}")
        mark = torch.zeros(output.shape[2], dtype=torch.bool, device=output.device)
        mark[chosen] = True
        return output.masked_fill(mark[:, None], 0.0)


def _refuse_missing(layers: Iterable[int], anatomy: Anatomy) -> None:
    if missing := sorted(set(layers) - anatomy.attention.keys()):
        raise OmnisinkError(f"the model has no attention that can be reached at layers {missing}")
