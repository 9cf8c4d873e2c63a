"""SinkTrack: let the first token, which everyone attends to, hold what the context says.

For the layers l = n, 2n, ... of a prefill, and the row t = 0 of the first real token:

1. E are features of the context. Of media: as they entered the decoder, then as they left the last layer of these. Of
   text: all of the prompt, as it enters layer l.
2. ``K = W_k E`` and ``V = W_v E`` with the layer's own projections: no norm, no positions.
3. The head outputs of row 0 become ``softmax(q_0 K^T / sqrt(D)) V`` over all of E, later tokens included.

Token 0's own key and value stay as they are, and no other row of the layer changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.maths.decomposition import attention_from
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.base import Method
from omnisink.methods.presets import Preset
from omnisink.methods.space import IntRange
from omnisink.methods.spans import require_modality


@dataclass(frozen=True)
class SinkTrack(Method):
    """Write features of the context into the first token, layer by layer (Liu, Chen, Wang; arXiv 2604.10027).

    The new keys have no positions, so that the query of the first token must stand at position 0. `generate` numbers
    tokens so; a forward pass of prompts that are padded on the left needs `position_ids`.

    A prefill only; generated tokens are as the prompt makes them. The release takes row 0 for the first token; here it
    is the first real one of each sequence. The release knows pictures; video and sound are treated as they are, which
    is this project's, and so is leaving the norm out that some families apply to keys.

    Parameters
    ----------
    every : int
        n: the layers are those that it divides, but layer 0. The release has 4 for Llama 3.1, 5 for Qwen2.5 and
        MiniCPM, 4 or 6 for Gemma 3; see the presets.
    last_layer : int, optional
        The last layer that may be changed; the release has 25 for Qwen2.5, Qwen2.5-VL and Gemma 3. None is the last.
    features : {"auto", "media", "text"}
        The context: the media of a prompt, all of it, or (auto) media where a prompt has some and all of it elsewhere.
    modalities : tuple of str
        What counts as media.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    every: int = 4
    last_layer: int | None = None
    features: Literal["auto", "media", "text"] = "auto"
    modalities: tuple[str, ...] = ("image", "video", "audio")

    watches_steps: ClassVar[bool] = False
    needs_spans: ClassVar[bool] = True
    source: ClassVar[str] = "Liu, Chen, Wang (arXiv 2604.10027, ICLR 2026)"
    licence: ClassVar[str] = "the release has none"
    derived: ClassVar[str] = "the first real token under padding, video and audio, families with a norm on keys"
    cost: ClassVar[str] = (
        "two projections and one row of attention at every n-th layer of a prefill; nothing in a step"
    )
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches; padding on both sides; beams"
    search_space: ClassVar = {"every": IntRange(2, 8)}
    presets: ClassVar = {
        "llama3.1": Preset("As the release has it for Llama 3.1.", {"every": 4}),
        "qwen2.5": Preset("As the release has it for Qwen2.5 and Qwen2.5-VL.", {"every": 5, "last_layer": 25}),
        "minicpm": Preset("As the release has it for MiniCPM.", {"every": 5}),
        "gemma3": Preset("As the release has it for Gemma 3.", {"every": 4, "last_layer": 25}),
        "gemma3-sixth": Preset("As the release has it for other sizes of Gemma 3.", {"every": 6, "last_layer": 25}),
    }

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if self.features not in ("auto", "media", "text"):
            raise ValueError(f"features must be one of auto, media, text, got {self.features!r}")
        if unknown := set(self.modalities) - {"image", "video", "audio"}:
            raise ValueError(f"modalities must be some of image, video, audio, got {sorted(unknown)}")

    def acts_at(self, layer: int) -> bool:
        """Whether the first token is changed at a layer."""
        return layer > 0 and layer % self.every == 0 and (self.last_layer is None or layer <= self.last_layer)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse layers whose keys and values are not projections of the residual stream."""
        wanted = [layer for layer in range(len(anatomy.layers)) if self.acts_at(layer)]
        reached = [layer for layer in wanted if layer in anatomy.attention]
        if wanted and not reached:
            raise OmnisinkError(f"SinkTrack: the model has no attention that can be reached at layers {wanted}")
        for layer in reached:
            module: Any = anatomy.attention[layer].module
            plain = all(getattr(module, name, None) is not None for name in ("k_proj", "v_proj"))
            if not plain and getattr(module, "qkv_proj", None) is None:
                raise UnsupportedModelError(
                    f"SinkTrack is not defined on {type(anatomy.model).__name__}: {type(module).__name__} of layer "
                    f"{layer} has no projection of the residual stream to keys and values, named k_proj and v_proj or "
                    "qkv_proj"
                )

    def step(self, context: Context) -> Mapping[int, Callable[[Tensor], Tensor]]:
        """Change nothing in generated tokens."""
        return {}

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        """Keep the features of media as they leave the layers of the method, and those of text as they enter one."""
        if not context.now.is_prefill:
            return
        if layer == 0 or self.acts_at(layer - 1):
            context.scratch["media"] = hidden
        context.scratch["text"] = hidden if self.acts_at(layer) else None

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Replace the row of the first token in a prefill."""
        if not context.now.is_prefill or not self.acts_at(call.layer):
            return output
        if call.learned_sink is not None:
            raise OmnisinkError("SinkTrack does not know what learned sink logits should become")
        features, marked = self._context_of(context, output.device)
        if is_eager_cpu(marked):  # Project no more than there is.
            used = marked.any(dim=0).nonzero().flatten()
            if not len(used):
                return output
            features, marked = (t[:, used[0] : used[-1] + 1] for t in (features, marked))
        key, value = self.keys_and_values(call, features, context)
        token_mask = context.now.token_mask_on(output.device)
        first = marked.new_zeros(len(output), dtype=torch.long) if token_mask is None else token_mask.int().argmax(1)
        index = first[:, None, None, None]
        query = torch.take_along_dim(call.query, index, dim=2)  # (B, H, 1, D)
        weights = attention_from(query, key, torch.zeros_like(first), marked)  # (B, H, E)
        groups = weights.unflatten(1, (key.shape[1], -1))  # (B, K, H / K, E)
        row = torch.matmul(groups, value.float()).flatten(1, 2)[:, None].to(output.dtype)  # (B, 1, H, D')
        at_first = torch.arange(output.shape[1], device=output.device)[None] == first[:, None]
        # A sequence without features keeps its row.
        return torch.where((at_first & marked.any(dim=1, keepdim=True))[:, :, None, None], row, output)

    def _context_of(self, context: Context, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the features (B, S, d) and which tokens they are of, (B, S) bool."""
        text, media = context.scratch["text"].to(device), context.scratch["media"].to(device)
        every = context.now.token_mask_on(device)
        every = torch.ones(text.shape[:2], dtype=torch.bool, device=device) if every is None else every
        if self.features == "media":
            return media, require_modality(context, *self.modalities).to(device) & every
        known = [context.spans[name].to(device) for name in self.modalities if name in context.spans]
        if self.features == "text" or not known:
            return text, every
        seen = torch.stack(known).any(dim=0) & every
        has = seen.any(dim=1, keepdim=True)
        return torch.where(has[:, :, None], media, text), torch.where(has, seen, every)

    def keys_and_values(self, call: AttentionCall, features: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return keys (B, K, E, D) and values (B, K, E, D') of features (B, E, d)."""
        module: Any = context.anatomy.attention[call.layer].module
        (heads, width), depth = call.key.shape[1::2], call.value.shape[3]
        if getattr(module, "k_proj", None) is not None:
            key, value = module.k_proj(features), module.v_proj(features)
        else:
            both = heads * (width + depth)  # Queries come first.
            key, value = module.qkv_proj(features)[..., -both:].split([heads * width, heads * depth], dim=-1)
        return tuple(t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (key, value))
