"""VAR: give the attention that sinks draw to the image tokens that are none, in heads that look at the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.maths.host import is_eager_cpu
from omnisink.maths.sets import difference, give
from omnisink.methods.criteria import SinkDimension
from omnisink.methods.image_tokens import IMAGES, ImageTokens, note_absent
from omnisink.methods.presets import Preset
from omnisink.methods.ranges import check_layer_range, check_range, check_some_layer, layer_range
from omnisink.methods.sets import blocks_of
from omnisink.methods.sink_method import SinkMethod
from omnisink.methods.space import FloatRange, Range

#: The sets of a layer, in order: sinks among the image tokens, other sinks, image tokens that receive, and donors.
_VISUAL, _OTHER, _RECEIVERS, _DONORS = range(4)
#: With a layer, the key under which a cache keeps them, (B, 4, S).
_SETS = "sets"


@dataclass(frozen=True)
class VAR(SinkMethod):
    """Visual attention redistribution: attention to sinks goes to the image tokens that are no sinks.

    Rows are those of text after the last image token, and of generated tokens. A head takes part in a row where it
    looks at the image (`least`) and there mostly at tokens that are no sinks (`rho`). Its attention to every sink of
    the layer, image token or not, is then multiplied by ``1 - p``, and what this frees goes to the image tokens that
    are no sinks, in proportion to what each of them has: ``o' = o - p O_sinks + p (m_sinks / m_rest) O_rest``. A layer
    without a sink among the image tokens of a sequence leaves it as it is.

    `p` and `rho` are the paper's. Those of its release are one minus these: its settings ``p: 0.6, rho: 0.5`` move
    40 % of the attention. The preset `release` has them, and acts on the last layer too, as the release does.

    Parameters
    ----------
    criterion : Criterion
        What makes a token a sink. The paper's is `SinkDimension` with a threshold of 20 and the model's own channels;
        presets have them for the models where they are published. The default, massive activation, needs no channels.
    layers : tuple of int, optional
        Layers to act on; None is ``start:stop``.
    p : float
        Share of the attention to sinks that is moved.
    rho : float
        Least share of a head's attention to the image that must go to tokens that are no sinks. The paper has 0.8 for
        general questions, 0.5 against hallucination and 0.9 for questions about vision.
    least : float
        Least attention to the image that makes a head take part.
    start, stop : int, int or None
        Layers as a slice of the model's: the release begins with layer 2, the paper leaves the last one out.
    modalities : tuple of str
        What counts as an image.
    donors : {"none", "text"}
        Further tokens that give attention: the text after the first image token. Derived by omnisink from GasEraser,
        which moves attention away from misleading text of later turns.
    donated : float
        Share of the attention to donors that is moved.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range.
    """

    p: float = 0.6
    rho: float = 0.8
    least: float = 0.2
    start: int = 2
    stop: int | None = -1
    modalities: tuple[str, ...] = IMAGES
    donors: Literal["none", "text"] = "none"
    donated: float = 0.6

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"),)
    watches_steps: ClassVar[bool] = False
    keeps_sinks: ClassVar[bool] = False
    source: ClassVar[str] = "Kang et al., ICLR 2025 (openreview 7uDI7w5RQA)"
    licence: ClassVar[str] = "Apache-2.0"
    derived: ClassVar[str] = (
        "massive activation as the default criterion; rows after the last of several images; the presets smolomni and "
        "gaseraser"
    )
    tested: ClassVar[str] = "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams"
    cost: ClassVar[str] = "one more attention for the rows after the image in a prefill, for one row in a decode step"
    needs: ClassVar[str] = "the model's sink channels, for the paper's criterion"
    search_space: ClassVar[Mapping[str, Range]] = {"p": FloatRange(0.1, 1.0), "rho": FloatRange(0.3, 0.95)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "hallucination": Preset("The paper's setting against hallucination.", {"rho": 0.5}),
        "vision-centric": Preset("The paper's setting for questions about vision.", {"rho": 0.9}),
        "release": Preset(
            "The settings of the release, which moves less and edits the last layer too.",
            {"p": 0.4, "rho": 0.5, "stop": None},
        ),
        "llava-1.5-7b": Preset("Sinks by the channels of LLaVA-1.5-7B.", {"criterion": SinkDimension((1415, 2533))}),
        "llava-1.5-13b": Preset("Sinks by the channels of LLaVA-1.5-13B.", {"criterion": SinkDimension((2100, 4743))}),
        "qwen2-vl-7b": Preset(
            "Sinks by the channels that notes on the paper give for Qwen2-VL-7B; not verified.",
            {"criterion": SinkDimension((458, 2570))},
        ),
        "smolomni": Preset(
            "Sinks by the two largest channels of SmolOmni, and a threshold that omnisink chose for its width.",
            {"criterion": SinkDimension((247, 507), 14.0)},
        ),
        "gaseraser": Preset(
            "Text after the image gives attention too, in the first 16 layers: GasEraser (arXiv 2504.09456) as far as "
            "its abstract tells, with thresholds of VAR's own.",
            {"donors": "text", "start": 0, "stop": 16},
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("p", "rho", "least", "donated"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_layer_range(self.start, self.stop)
        object.__setattr__(self, "modalities", tuple(self.modalities))
        if self.donors not in ("none", "text"):
            raise ValueError(f"donors must be 'none' or 'text', got {self.donors!r}")

    def check(self, anatomy: Anatomy) -> None:
        """Refuse layers that the model does not have."""
        super().check(anatomy)
        if self.layers is None:
            check_some_layer(self.start, self.stop, len(anatomy.layers), "VAR")

    def chosen(self, layer: int, depth: int) -> bool:
        """Whether the method acts on a layer."""
        return layer in (layer_range(self.start, self.stop, depth) if self.layers is None else self.layers)

    @property
    def _is_idle(self) -> bool:
        return self.p == 0 and (self.donors == "none" or self.donated == 0)

    def begin(self, context: Context) -> None:
        """Find the image tokens, and the rows to act on."""
        context.scratch["images"] = images = ImageTokens.of(context, self.modalities)
        depth = len(context.anatomy.layers)
        note_absent(images.image, [layer for layer in range(depth) if self.chosen(layer, depth)], context)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Move attention in the heads that look at the image."""
        if self._is_idle:
            return output
        images: ImageTokens = context.scratch["images"]
        if context.now.is_prefill:
            self._divide(call.layer, images, context)
        sets = context.now.state.tensors.get((_SETS, call.layer))
        if sets is None:
            return output
        rows = (images.rows & sets[:, _VISUAL].any(dim=1, keepdim=True)).to(output.device)[:, None]
        left = [1.0 - self.p, 1.0 - self.p, 1.0, 1.0 - self.donated][: sets.shape[1]]
        factors = torch.stack([torch.full((), share, device=output.device) for share in left])
        new = output.clone()
        for part, shares in blocks_of(call, context, sets, slice(images.first, None)):
            rest = shares.mass[..., _RECEIVERS]
            image = shares.mass[..., _VISUAL] + rest
            takes_part = (image >= self.least) & (rest >= self.rho * image) & rows[..., part]
            moved = output[:, part].float() + difference(shares, give(shares, factors, _RECEIVERS)).transpose(1, 2)
            chosen = takes_part.transpose(1, 2)[..., None]
            new[:, part] = torch.where(chosen, moved.to(output.dtype), output[:, part])
        return new

    def _divide(self, layer: int, images: ImageTokens, context: Context) -> None:
        """Keep the sets of a layer, if a sequence has a sink among its image tokens."""
        sinks = context.record.sinks.get(layer)
        if sinks is None:
            return
        sinks, image = sinks.to(images.image.device), images.image
        sets = [sinks & image, sinks & ~image, image & ~sinks]
        if is_eager_cpu(image) and not bool(sets[_VISUAL].any()):
            context.record.skipped.setdefault(layer, "no image token is a sink")
            return
        if self.donors != "none":
            sets.append(images.after & ~sinks)
        context.now.state.tensors[_SETS, layer] = torch.stack(sets, dim=1)
