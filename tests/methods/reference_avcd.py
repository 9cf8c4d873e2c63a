"""AVCD restated with attention maps in float64, for tiny omni models; and prompts with video and sound."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from omnisink.verification.families import FAMILIES
from tests.verification.family_cells import reader, tiny

NAME = "qwen2_5_omni_thinker"
NAMES = ("language", "video", "audio")
MAPS = "maps_of_avcd"
#: What the reference does at each layer, and what it has seen there.
_NOTHING = {"mask": None, "gone": None, "threshold": -1.0, "row": -1, "spared": 1}
_STATE = {**_NOTHING, "maps": []}


def _attend(module, query, key, value, attention_mask, scaling, **kwargs):
    groups = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    maps = (query @ key.mT * scaling + attention_mask).softmax(dim=-1)
    _STATE["maps"].append(maps)
    gone, row = None, _STATE["row"]
    if _STATE["gone"] is not None and module.layer_idx < module.config.num_hidden_layers - _STATE["spared"]:
        last = maps[:, :, row].clone()
        last[..., row + 1 if row >= 0 else maps.shape[-1] :] = 0
        gone = _STATE["gone"][:, None] & (last > _STATE["threshold"])
    if gone is not None and _STATE["mask"] == "columns":
        maps = maps.masked_fill(gone[:, :, None], 0.0)
        maps = (maps / maps.sum(dim=-1, keepdim=True)).nan_to_num(0.0)
    output = maps @ value
    if gone is not None and _STATE["mask"] == "rows":
        output = output.masked_fill(gone[..., None], 0.0)
    return output.transpose(1, 2), None


AttentionInterface.register(MAPS, _attend)
AttentionMaskInterface.register(MAPS, eager_mask)


def model_and_inputs(backend="sdpa"):
    model = reader(tiny(NAME, backend))
    return model, FAMILIES[NAME].multimodal_inputs(model)


def in_maps(model):
    """A copy in float64 whose decoder attends with maps."""
    copy = deepcopy(model).double()
    for module in (copy, copy.model.language_model if hasattr(copy.model, "language_model") else copy.model):
        config = getattr(module.config, "text_config", module.config)
        config._attn_implementation = MAPS
    return copy


def run(reference, inputs, **state):
    """Logits of the last token, and the maps of the layers; `spared` says how many of the last mask nothing."""
    _STATE.update(**{**_NOTHING, "maps": [], **state})
    wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    with torch.inference_mode():
        logits = reference(**wide, use_cache=False).logits[:, -1]
    return logits, _STATE["maps"]


def spans_of(model, ids):
    config = model.config
    video = (ids == config.video_token_id) | (ids == config.image_token_id)
    audio = ids == config.audio_token_id
    language = ~(video | audio) & ((video | audio).cumsum(dim=1) > 0)
    return dict(zip(NAMES, (language, video, audio), strict=True))


def restated(reference, inputs, method, row=-1):
    """Logits that AVCD uses for the next token of one prompt; `row` says whose attention decides the masks.

    Everything up to that row may be masked, and is counted for the threshold and for what dominates.
    """
    ids = inputs["input_ids"]
    z, maps = run(reference, inputs)
    if -(z.softmax(-1) * z.log_softmax(-1)).sum() < method.entropy:
        return z
    stop = row + 1 if row >= 0 else ids.shape[1]
    mean = torch.stack([one[0, :, row, :stop] for one in maps[:-1]]).mean(dim=0)
    threshold = mean.quantile(method.quantile, dim=-1).mean()
    spans = {name: mask[:, :stop] for name, mask in spans_of(reference, ids).items()}
    first = method.dominant
    if first == "most attended":
        mass = {n: float(mean[:, spans[n][0]].sum()) / (int(spans[n].sum()) if method.per_token else 1) for n in NAMES}
        first = max(mass, key=mass.get)
    second, third = (pad(spans[n], (0, ids.shape[1] - stop)) for n in NAMES if n != first)
    one, two, both = (
        run(reference, inputs, mask=method.mask, gone=gone, threshold=threshold, row=row)[0]
        for gone in (second, third, second | third)
    )
    # Each modality's contrast beside the other one and without it, averaged; their sum, twice.
    a = method.alpha
    of_second = ((1 + a) * z - a * one + (1 + a) * two - a * both) / 2
    of_third = ((1 + a) * z - a * two + (1 + a) * one - a * both) / 2
    made = 2 * (of_second + of_third)
    chances = z.softmax(dim=-1)
    return made.masked_fill(chances < method.beta * chances.max(), -torch.inf)


def answer(reference, inputs, method, steps, suppressed):
    """Greedy tokens, with everything read anew for every one of them."""
    ids, length = inputs["input_ids"], inputs["input_ids"].shape[1]
    for _ in range(steps):
        grown = {**inputs, "input_ids": ids}
        if "attention_mask" in inputs:
            grown["attention_mask"] = torch.ones_like(ids)
        row = -1 if method.remask == "step" else length - 1
        logits = restated(reference, grown, method, row)
        logits[:, suppressed] = -torch.inf
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return ids[:, length:].tolist()
