"""BEATs, the part of VideoLLaMA 2.1-AV that hears (Chen et al., arXiv 2212.09058).

Patches of a spectrogram, a convolution that says where each of them is, and a post-norm transformer whose attention
has a bias by relative position, which the queries gate. WavLM's attention has the same bias and weights, but gates it
by what enters the layer. The released class divides scores by 32 and multiplies them by 32 again, so that float16
holds them; the backends here compute the softmax in float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from omnisink.errors import OmnisinkError
from omnisink.models.ports.fbank import PATCH

#: Mean and standard deviation of spectrograms in training, from `BEATs.preprocess`.
_MEAN, _DEVIATION = 15.41663, 6.55582
#: From this distance on, positions share a bucket. The weights do not say it; the release has this value only.
_FARTHEST = 800
#: Patterns of the released names, each with the name here.
_NAMES = {
    r"^model\.audio_tower\.": "audio_tower.",
    r"pos_conv\.0\.weight_g$": "pos_conv.gain",
    r"pos_conv\.0\.weight_v$": "pos_conv.direction",
    r"pos_conv\.0\.bias$": "pos_conv.bias",
    r"self_attn\.grep_a$": "self_attn.gru_rel_pos_const",
    r"self_attn\.grep_linear\.": "self_attn.gru_rel_pos_linear.",
}
#: The biases by relative position, which all layers share: a checkpoint has them once, or with every layer.
_BIASES = re.compile(r"encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.weight")
#: What is saved and not used: the classes of sounds.
_UNUSED = "predictor."


def read_beats(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, int], dict[str, str]]:
    """Read what a BEATs model is built and loaded with from the shapes of its weights.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        By released name, as ``encoder.layer_norm.weight``.

    Returns
    -------
    tuple of dict
        The arguments of `BEATs`, and patterns of released names with the names here, as `key_mapping` takes them.

    Raises
    ------
    OmnisinkError
        If it is of another form than in the release.
    """
    biases = sorted(name for name in shapes if _BIASES.fullmatch(name))
    try:
        embed, _, *patch = shapes["patch_embedding.weight"]
        width, per_group, kernel = shapes["encoder.pos_conv.0.weight_v"]
        buckets, heads = shapes[biases[0] if biases else "relative_attention_bias"]
        inner = shapes["encoder.layers.0.fc1.weight"][0]
    except (KeyError, ValueError) as error:
        raise OmnisinkError(f"its audio tower is not the released BEATs: {error} is missing") from error
    if patch != [PATCH, PATCH]:
        raise OmnisinkError(f"its BEATs has patches of {patch}; the released are {PATCH} x {PATCH}")
    sizes = {
        "embed": embed,
        "width": width,
        "inner": inner,
        "layers": len({found[0] for name in shapes if (found := re.match(r"encoder\.layers\.\d+\.", name))}),
        "heads": heads,
        "kernel": kernel,
        "groups": width // per_group,
        "buckets": buckets,
    }
    names = {**_NAMES, re.escape(biases[0]): "encoder.layers.0.self_attn.rel_attn_embed.weight"}
    with torch.device("meta"):
        known = BEATs(**sizes).state_dict()
    for name in shapes.keys() - biases:
        own = renamed(f"model.audio_tower.{name}", names).removeprefix("audio_tower.")
        if own not in known and not name.startswith(_UNUSED):
            raise OmnisinkError(f"its audio tower has {name}, which the released BEATs has not")
    return sizes, names


def renamed(name: str, names: Mapping[str, str]) -> str:
    """Return a name after all patterns, as transformers applies them."""
    for pattern, replacement in names.items():
        name = re.sub(pattern, replacement, name, count=1)
    return name


class BEATs(nn.Module):
    """The encoder, without what classifies sounds.

    Parameters
    ----------
    embed, width, inner : int
        Width of patches, of layers, and inside a layer's MLP.
    layers, heads : int
        How many there are.
    kernel, groups : int
        Of the convolution.
    buckets : int
        Of relative positions.
    """

    def __init__(
        self, embed: int, width: int, inner: int, layers: int, heads: int, kernel: int, groups: int, buckets: int
    ) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(1, embed, PATCH, stride=PATCH, bias=False)
        self.layer_norm = nn.LayerNorm(embed)
        self.post_extract_proj = nn.Linear(embed, width) if embed != width else nn.Identity()
        self.encoder = nn.Module()
        self.encoder.pos_conv = PositionConvolution(width, kernel, groups)
        self.encoder.layer_norm = nn.LayerNorm(width)
        self.encoder.layers = nn.ModuleList(
            _Layer(width, inner, heads, buckets, depth=layers, first=i == 0) for i in range(layers)
        )

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Turn spectrograms (B, T, 128) into features (B, T // 16 * 8, width), one step in time after another."""
        weight = self.patch_embedding.weight
        scaled = ((spectrogram.float() - _MEAN) / (2 * _DEVIATION)).to(weight.dtype)
        patches = self.patch_embedding(scaled.unsqueeze(1)).flatten(2).transpose(1, 2)
        hidden = self.post_extract_proj(self.layer_norm(patches))
        encoder: Any = self.encoder
        hidden = encoder.layer_norm(hidden + encoder.pos_conv(hidden))
        bias = encoder.layers[0].self_attn.compute_bias(hidden.shape[1], hidden.shape[1])
        for layer in encoder.layers:
            hidden = layer(hidden, bias)
        return hidden


class PositionConvolution(nn.Module):
    """A grouped convolution over all patches, with the release's own normalization of weights."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.gain = nn.Parameter(torch.ones(1, 1, kernel))
        self.direction = nn.Parameter(torch.randn(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what is to be added to (B, N, width)."""
        direction = self.direction.float()
        unit = direction * (direction.pow(2).sum((0, 1), keepdim=True) + 1e-6).rsqrt()
        weight, kernel = self.gain * unit.to(self.gain.dtype), direction.shape[-1]
        made = F.conv1d(hidden.transpose(1, 2), weight, self.bias, padding=kernel // 2, groups=self.groups)
        # An even kernel gives one position too many.
        return F.gelu(made[..., : hidden.shape[1]]).transpose(1, 2)


class _Attention(WavLMAttention):
    """WavLM's attention, with the bias gated by the queries."""

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        """Attend from (B, N, width) to itself with a bias (heads, N, N)."""
        query, key, value = (
            project(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        gates = self.gru_rel_pos_linear(query).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        gate = gates[..., :1] * (gates[..., 1:] * self.gru_rel_pos_const - 1.0) + 2.0
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=gate * bias)
        made: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return made


class _Layer(nn.Module):
    """A post-norm layer with DeepNorm: what goes past a part is scaled up."""

    def __init__(self, width: int, inner: int, heads: int, buckets: int, *, depth: int, first: bool) -> None:
        super().__init__()
        self.scale = (2 * depth) ** 0.25
        self.self_attn = _Attention(
            width, heads, num_buckets=buckets, max_distance=_FARTHEST, has_relative_position_bias=first
        )
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        hidden = self.self_attn_layer_norm(self.scale * hidden + self.self_attn(hidden, bias))
        made: Tensor = self.final_layer_norm(self.scale * hidden + self.fc2(F.gelu(self.fc1(hidden))))
        return made
