"""The forward pass of ImageBind-LLM as the release has it, on its names of weights; nothing is merged."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def embed(w: Weights, modality: str, clips: Tensor) -> Tensor:
    """Compute ImageBind's embedding of some clips, with the scale of sound."""
    before, trunk, after = (f"image_bind.modality_{part}.{modality}." for part in ("preprocessors", "trunks", "heads"))

    def norm(x: Tensor, name: str, eps: float = 1e-6) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    if modality == "vision":
        x = F.conv3d(clips.double(), w[before + "rgbt_stem.proj.1.weight"], stride=(2, 14, 14)).flatten(2).mT
    else:
        x = F.conv2d(clips.double(), w[before + "rgbt_stem.proj.weight"], stride=10).flatten(2).mT
        x = norm(x, before + "rgbt_stem.norm_layer", 1e-5)
    x = torch.cat([w[before + "cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + w[before + "pos_embedding_helper.pos_embed"]
    heads = 16 if modality == "vision" else 12
    x = norm(x, trunk + "pre_transformer_layer.0") if modality == "vision" else x
    for block in (f"{trunk}blocks.{i}." for i in range(2)):
        y = norm(x, block + "norm_1")
        q, k, v = F.linear(y, w[block + "attn.in_proj_weight"], w[block + "attn.in_proj_bias"]).chunk(3, dim=-1)
        if modality == "audio":
            own = {n: w[f"{block}attn.bias_{n}"].expand(len(x), -1, -1) for n in "kv"}
            k, v = torch.cat([k, own["k"]], dim=1), torch.cat([v, own["v"]], dim=1)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        seen = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
        x = x + F.linear(
            seen.transpose(1, 2).flatten(2), w[block + "attn.out_proj.weight"], w[block + "attn.out_proj.bias"]
        )
        y = F.gelu(F.linear(norm(x, block + "norm_2"), w[block + "mlp.fc1.weight"], w[block + "mlp.fc1.bias"]))
        x = x + F.linear(y, w[block + "mlp.fc2.weight"], w[block + "mlp.fc2.bias"])
    x = F.linear(norm(x, after + "0")[:, 0], w[after + "2.weight"])
    return F.normalize((F.normalize(x, dim=-1) * (20.0 if modality == "audio" else 1.0)).mean(dim=0), dim=-1)


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt() * weight


def media_vector(w: Weights, embeddings: list[Tensor]) -> Tensor:
    """Compute the release's `forward_visual`."""
    x = sum(e * (1 / (len(embeddings) + 1e-6)) for e in embeddings)
    x = F.linear(x, w["image_bind_proj.weight"], w["image_bind_proj.bias"])
    for n in (1, 2, 3):
        y = rms(x, w[f"image_bind_norm_{n}.weight"], 1e-6)
        y = F.silu(F.linear(y, w[f"image_bind_f1_{n}.weight"])) * F.linear(y, w[f"image_bind_f3_{n}.weight"])
        x = x + F.linear(y, w[f"image_bind_f2_{n}.weight"])
    return x


def rotate(x: Tensor) -> Tensor:
    """Turn neighbouring pairs, as Meta's code does with complex numbers; (S, heads, width)."""
    turns = 10_000.0 ** (-torch.arange(0, x.shape[-1], 2).double() / x.shape[-1])
    angles = torch.outer(torch.arange(len(x)).double(), turns)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(2)


def run_llama(w: Weights, ids: list[int], vector: Tensor, heads: int = 4) -> Tensor:
    """Compute the release's `forward_inference` at every token: (S, V)."""

    def linear(x: Tensor, layer: str, name: str) -> Tensor:
        room, part = name.split(".")
        out = F.linear(x, w[f"{layer}{name}.weight"], w.get(f"{layer}{name}.bias"))
        if (down := w.get(f"{layer}{room}.lora_{part}_l1.weight")) is not None:
            out = out + F.linear(F.linear(x, down), w[f"{layer}{room}.lora_{part}_l2.weight"])
        return out

    x, first = w["llama.tok_embeddings.weight"][ids], 3 - len(w["prefix_query.weight"])
    for index in range(3):
        layer = f"llama.layers.{index}."
        y = rms(x, w[layer + "attention_norm.weight"], 1e-5)
        q, k, v = (linear(y, layer, f"attention.w{part}").unflatten(-1, (heads, -1)) for part in "qkv")
        q, k, v = (t.transpose(0, 1) for t in (rotate(q), rotate(k), v))
        scores = q @ k.mT / q.shape[-1] ** 0.5 + torch.full((len(ids),) * 2, float("-inf")).double().triu(1)
        out = scores.softmax(dim=-1) @ v
        if index >= first:
            value = F.linear(vector + w["prefix_query.weight"][index - first], w[layer + "attention.wv.weight"])
            out = out + w[layer + "attention.gate"][0].tanh() * value.unflatten(-1, (heads, -1))[:, None]
        x = x + linear(out.transpose(0, 1).flatten(1), layer, "attention.wo")
        y = rms(x, w[layer + "ffn_norm.weight"], 1e-5)
        gated = F.silu(linear(y, layer, "feed_forward.w1")) * linear(y, layer, "feed_forward.w3")
        x = x + linear(gated, layer, "feed_forward.w2")
    return F.linear(rms(x, w["llama.norm.weight"], 1e-5), w["llama.output.weight"])
