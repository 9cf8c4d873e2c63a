"""Methods that change attention weights, prompts with image and audio tokens for them, and what restates each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from omnisink.methods.act import ACT
from omnisink.methods.asd import ASD
from omnisink.methods.base import Method
from omnisink.methods.criteria import Positions
from omnisink.methods.pai import PAI
from omnisink.methods.var import VAR
from omnisink.methods.visflow import VisFlow
from tests.methods.reference_weights import PlainAct, PlainAsd, PlainPai, PlainVar, PlainVisFlow, PlainWeights
from tests.reference_outro import prompt

IMAGE, SOUND = 3, 4
#: float32 through six layers against float64, as for OutRo itself.
TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9)
BACKENDS = ("sdpa", "eager", "flex_attention")
SINKS = (0, 4, 9, 12)
HEADS = ((1, 0), (2, 3), (4, 1), (4, 2))
#: Lower bounds that the short prompts here pass in some heads and rows, but not in all.
LOOSE = {"least": 0.15, "rho": 0.5}
OVER = {"text_over": 0.2, "system_over": 0.1, "deviations": 0.5}


def spanned(length=17, images=(3, 4, 5, 6), sounds=(8, 9, 10), seed=0):
    """A prompt of text with image and audio tokens in it."""
    ids = prompt(length, (0,), seed=seed)
    ids[0, list(images)] = IMAGE
    ids[0, list(sounds)] = SOUND
    return ids


def on(method, model, inputs):
    """Put a method on a model of text, whose prompts have images and sounds at the ids `IMAGE` and `SOUND`."""
    ids = inputs["input_ids"]
    real = inputs.get("attention_mask", torch.ones_like(ids)).bool()
    spans = {"image": (ids == IMAGE) & real, "video": torch.zeros_like(real), "audio": (ids == SOUND) & real}
    return method(model, spans=spans)


def tiny_windowed(window=7):
    """Build a decoder in which every layer but the first and the fourth reaches back over a few keys only."""
    kinds = ["full_attention", *["sliding_attention"] * 2] * 2
    config = Qwen3Config(
        vocab_size=96, hidden_size=48, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, sliding_window=window, layer_types=kinds, use_sliding_window=True,
        pad_token_id=0, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    return model


def places(ids):
    """Where the images and the sounds of a prompt are, for the restatements."""
    return {
        "images": tuple((ids[0] == IMAGE).nonzero().flatten().tolist()),
        "audio": tuple((ids[0] == SOUND).nonzero().flatten().tolist()),
    }


def plain_var(model, ids, **settings):
    return PlainVar(model, **places(ids), sinks_at=SINKS, **settings)


def text_after(ids):
    found = places(ids)
    return tuple(t for t in range(min(found["images"]), ids.shape[1]) if t not in found["images"] + found["audio"])


@dataclass
class Case:
    """A method, and what restates it for a prompt."""

    method: Method
    plain: Callable[[Any, torch.Tensor], PlainWeights]


CASES = {
    "var": Case(VAR(Positions(SINKS), **LOOSE), lambda m, ids: plain_var(m, ids, **LOOSE)),
    "var: release": Case(
        VAR(Positions(SINKS), p=0.4, rho=0.5, least=0.15, stop=None),
        lambda m, ids: plain_var(m, ids, p=0.4, rho=0.5, least=0.15, layers=(2, 3, 4, 5)),
    ),
    "var: donors": Case(
        VAR(Positions(SINKS), donors="text", donated=0.3, start=0, stop=16, **LOOSE),
        lambda m, ids: plain_var(
            m, ids, layers=range(6), donors=set(text_after(ids)) - set(SINKS), donated=0.3, **LOOSE
        ),
    ),
    "pai": Case(PAI(), lambda m, ids: PlainPai(m, **places(ids))),
    "pai: strong": Case(PAI(alpha=1.5, start=0), lambda m, ids: PlainPai(m, **places(ids), alpha=1.5, first=0)),
    "asd": Case(
        ASD(Positions(SINKS), start=3),
        lambda m, ids: PlainAsd(m, **places(ids), sinks_by_layer=dict.fromkeys(range(3), SINKS)),
    ),
    "asd: strong": Case(
        ASD(Positions((3, 4, 5, 8, 9, 10)), start=1, strength=3.0, share=0.75),
        lambda m, ids: PlainAsd(
            m, **places(ids), start=1, strength=3.0, share=0.75, sinks_by_layer={0: (3, 4, 5, 8, 9, 10)}
        ),
    ),
    "act": Case(ACT(), lambda m, ids: PlainAct(m)),
    "act: heads": Case(
        ACT(heads=HEADS, threshold=0.08, beta=0.1), lambda m, ids: PlainAct(m, heads=HEADS, threshold=0.08, beta=0.1)
    ),
    "act: relative": Case(ACT(alpha=1.5), lambda m, ids: PlainAct(m, threshold=1.5 / ids.shape[1])),
    "visflow": Case(VisFlow(), lambda m, ids: PlainVisFlow(m, **places(ids))),
    "visflow: heads": Case(
        VisFlow(tokens=False, last_text=3, **OVER),
        lambda m, ids: PlainVisFlow(m, **places(ids), tokens=False, last_text=3, **OVER),
    ),
    "visflow: both": Case(
        VisFlow(salient=3.0, **OVER), lambda m, ids: PlainVisFlow(m, **places(ids), salient=3.0, **OVER)
    ),
}
#: Those that act on prompts with an image only.
IMAGE_METHODS = [name for name in CASES if not name.startswith("act")]


def prompts():
    """Three prompts of different length, with images and sounds in different places."""
    return [spanned(), spanned(12, (2, 3, 4), (5, 8, 9), seed=3), spanned(15, (1, 4, 6, 7), (3, 9), seed=5)]


def in_turn(names, others, shift=0):
    return [(name, others[(k + shift) % len(others)]) for k, name in enumerate(names)]
