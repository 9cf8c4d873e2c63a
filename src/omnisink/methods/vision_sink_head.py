"""EAH: give all heads of a shallow layer the attention of the head that has the most sinks among the image tokens.

In the prefill, at one layer, with attention weights A (S, S) of every head:

1. An image token j receives ``r_j = sum over i > j of A[i, j]``, divided by how many image tokens there are from j on.
2. A head's count is that of image tokens with ``r_j > threshold``; the head with the most is the vision sink head.
3. All heads of the layer attend with its weights, each reading its own values; generated tokens too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import keys_in_use, visible_to
from omnisink.errors import OmnisinkError
from omnisink.maths.decomposition import attend, weights_of
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.base import Method
from omnisink.methods.presets import Preset
from omnisink.methods.space import FloatRange, IntRange
from omnisink.methods.spans import require_modality

#: Key under which a cache keeps the vision sink head of each sequence, -1 where there is none.
_HEAD = "head"
#: Rows of weights held at a time.
_ROWS = 128


@dataclass(frozen=True)
class VisionSinkHead(Method):
    """Share the attention of the vision sink head with all heads of a shallow layer (EAH; arXiv 2411.09968).

    README and environment of the release differ in layer and threshold, and its code does nothing where the head is
    head 0; these are presets. A prompt in which no image token passes the threshold is left as it is. With grouped
    queries the other heads read their own values, and generated tokens use the head that the prompt chose; video
    tokens count as image tokens. These three are this project's.

    Parameters
    ----------
    layer : int
        The layer that is changed: 1 as in the README, 0 as in the environment's default.
    threshold : float
        What an image token must receive: 0.002 as in the README, 0.0008 as in the environment's default.
    skip_head_zero : bool
        Do nothing where the vision sink head is head 0, as the release does by mistake.
    modalities : tuple of str
        What counts as image tokens.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    layer: int = 1
    threshold: float = 0.002
    skip_head_zero: bool = False
    modalities: tuple[str, ...] = ("image", "video")

    watches_steps: ClassVar[bool] = False
    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"),)
    source: ClassVar[str] = "Shallow Focus, Deep Fixes (arXiv 2411.09968, EMNLP 2025)"
    licence: ClassVar[str] = "MIT"
    derived: ClassVar[str] = "grouped queries, padding, video, the head of generated tokens"
    cost: ClassVar[str] = "the weights of one layer twice in a prefill, and one row of one head in a step"
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches; padding on both sides; beams"
    search_space: ClassVar = {"layer": IntRange(0, 3), "threshold": FloatRange(0.0002, 0.02)}
    presets: ClassVar = {
        "readme": Preset("Layer and threshold of the release's README.", {"layer": 1, "threshold": 0.002}),
        "env": Preset("Layer and threshold of the release's environment.", {"layer": 0, "threshold": 0.0008}),
        "release": Preset(
            "As the release runs by default: its environment's values, and nothing where the head is head 0.",
            {"layer": 0, "threshold": 0.0008, "skip_head_zero": True},
        ),
    }

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}")
        if not self.modalities or set(self.modalities) - {"image", "video", "audio"}:
            raise ValueError(f"modalities must be some of image, video, audio, got {list(self.modalities)}")

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a layer whose attention cannot be reached."""
        if self.layer not in anatomy.attention:
            raise OmnisinkError(f"layer {self.layer} has no attention that can be reached")

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Read the values of every head with the weights of one."""
        now = context.now
        if call.layer != self.layer:
            return output
        if call.learned_sink is not None:
            raise OmnisinkError("VisionSinkHead does not know what learned sink logits should become")
        if now.is_prefill:
            now.state.tensors[_HEAD] = self._find(call, context)
        head = now.state.tensors[_HEAD].to(output.device)
        if is_eager_cpu(head) and bool((head < 0).all()):
            return output
        keys, kv_heads = keys_in_use(call, now), call.key.shape[1]
        chosen = head.clamp(min=0)[:, None, None, None]
        query = torch.take_along_dim(call.query, chosen, dim=1)
        key = torch.take_along_dim(call.key[:, :, :keys], chosen // (call.query.shape[1] // kv_heads), dim=1)
        values = call.value[:, :, :keys].transpose(1, 2).flatten(2)[:, None]  # (B, 1, T, K D')
        rows = visible_to(call, now, slice(0, now.length))
        read = attend(query, key, values, rows, scaling=call.scaling, softcap=call.softcap)[:, 0]  # (B, S, K D')
        shared = read.unflatten(-1, (kv_heads, -1)).repeat_interleave(output.shape[2] // kv_heads, dim=2)
        return torch.where((head >= 0)[:, None, None, None], shared.to(output.dtype), output)

    def _find(self, call: AttentionCall, context: Context) -> Tensor:
        """Return the vision sink head of each sequence, (B,) int64; -1 where there is none."""
        image = require_modality(context, *self.modalities).to(call.query.device)
        length, heads = context.now.length, call.query.shape[1]
        if is_eager_cpu(image) and not bool(image.any()):
            return image.new_full((len(image),), -1, dtype=torch.long)
        received = call.query.new_zeros(len(image), heads, length, dtype=torch.float32)
        for start in range(0, length, _ROWS):
            rows = slice(start, min(start + _ROWS, length))
            mask = visible_to(call, context.now, rows)
            query = call.query[:, :, rows]
            weights = weights_of(query, call.prompt_keys, mask, scaling=call.scaling, softcap=call.softcap)
            received[..., : weights.shape[-1]] += weights.sum(dim=2)
            received[..., rows] -= weights.diagonal(start, dim1=2, dim2=3)
        left = image.flip(1).cumsum(dim=1).flip(1)  # Image tokens from each on.
        passing = (received / left.clamp(min=1)[:, None] > self.threshold) & image[:, None]
        count = passing.sum(dim=2)
        # The first of several heads with the same count.
        head = (count * heads - torch.arange(heads, device=count.device)).argmax(dim=1)
        none = (count.amax(dim=1) == 0) | ((head == 0) & self.skip_head_zero)
        return head.masked_fill(none, -1)
