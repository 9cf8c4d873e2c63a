"""Visual contrastive decoding: the model beside itself with noise in its pictures or its sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.context import Context
from omnisink.decoder.encoded_media import ENCODED, EncodedMedia
from omnisink.errors import UnsupportedModelError
from omnisink.maths.noise import STEPS, noisy
from omnisink.methods.contrast import Branch, Contrast
from omnisink.methods.presets import Preset
from omnisink.methods.space import FloatRange, IntRange, Range

#: Inputs that hold what is seen or heard, each with the input that says how many rows belong to one piece.
_INPUTS: dict[str, dict[str, str | None]] = {
    "vision": {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw", "image_pixel_values": None},
    "audio": {"input_features": None, "audio_input_features": None},
}


@dataclass(frozen=True)
class VCD(Contrast):
    """Visual contrastive decoding (Leng et al., arXiv 2311.16922): contrast with the answer from noisy pictures.

    The noise is added to the prefill's pixels as the processor made them, once for each picture or video, and every
    picture gets the noise of `seed`, whatever stands beside it in a batch. A prompt without pictures is contrasted
    with itself, which changes no order of tokens.

    The release patches sampling only, so that greedy decoding runs there without the method; here both are contrasted.

    Parameters
    ----------
    alpha, beta : float
        See `Contrast`. 1 and 0.1 as the command lines of the release have them; called without them, its sampler takes
        0.5 and 0.1.
    noise_step : int
        How many of 1,000 diffusion steps the noise is of, from 0 to 999.
    modalities : tuple of str
        ``"vision"``, ``"audio"``, or both. Noise on mel spectrograms is our reading of what AVCD (arXiv 2505.20862)
        calls VCD*; the paper of VCD has pictures only.
    seed : int
        Of the noise.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    noise_step: int = 500
    modalities: tuple[str, ...] = ("vision",)
    seed: int = 0

    needs_spans: ClassVar[bool] = True
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "video"),)
    source: ClassVar[str] = "Leng et al. (arXiv 2311.16922)"
    licence: ClassVar[str] = "Apache-2.0"
    derived: ClassVar[str] = "noise on mel spectrograms; the contrast under greedy decoding too"
    needs: ClassVar[str] = "a second pass for every token; pictures, videos or sound in the prompt"
    cost: ClassVar[str] = "as much as the model again, its towers included"
    tested: ClassVar[str] = "every family that sees or hears; dynamic and static caches; beams"
    search_space: ClassVar[Mapping[str, Range]] = {
        "alpha": FloatRange(0.1, 3.0),
        "noise_step": IntRange(100, 900),
    }
    presets: ClassVar[Mapping[str, Preset]] = {
        "sampler": Preset("The weights that the release's sampler takes by itself.", {"alpha": 0.5}),
        "audio-video": Preset("Noise in pictures and in sound.", {"modalities": ("vision", "audio")}),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.noise_step < STEPS:
            raise ValueError(f"noise_step must be from 0 to {STEPS - 1}, got {self.noise_step}")
        if not self.modalities or set(self.modalities) - set(_INPUTS):
            raise ValueError(f"modalities must be some of {', '.join(_INPUTS)}, got {self.modalities!r}")

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the one branch; a model that reads text only is refused."""
        model = context.anatomy.model
        if not any(hasattr(model.config, name) for name in ("vision_config", "audio_config", "thinker_config")):
            raise UnsupportedModelError(
                f"{type(model).__name__} reads text only, or takes media as one vector: {type(self).__name__} needs "
                "pictures or sound"
            )
        change = partial(with_noise, names=self._names(), step=self.noise_step, seed=self.seed)
        encoded = EncodedMedia(context.anatomy, change)
        return [Branch(partial(_noisy, change, encoded), watch=encoded.watch)]

    def _names(self) -> dict[str, str | None]:
        return {name: grid for kind in self.modalities for name, grid in _INPUTS[kind].items()}


def _noisy(
    change: Callable[[Mapping[str, Any]], Mapping[str, Tensor]], encoded: EncodedMedia, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what differs in the prefill, where `generate` may have encoded the pictures already."""
    changed: dict[str, Any] = dict(change(inputs))
    if inputs.get(ENCODED) and (kept := encoded.of_this_thread()) is not None:
        changed[ENCODED] = kept
    return changed


def with_noise(
    inputs: Mapping[str, Any], *, names: Mapping[str, str | None], step: int, seed: int
) -> dict[str, Tensor]:
    """Return the inputs of these names with noise; `names` says for each which input counts the rows of one piece."""
    changed = {}
    for name, grid in names.items():
        signal = inputs.get(name)
        if isinstance(signal, Tensor) and signal.numel():
            changed[name] = torch.cat([noisy(one, step, seed) for one in _pieces(signal, inputs.get(grid or ""))])
    return changed


def _pieces(signal: Tensor, grid: Any) -> Iterator[Tensor]:
    """Divide what is seen or heard into pictures, videos or sounds, so that each gets the same noise in any batch."""
    if isinstance(grid, Tensor) and signal.dim() == 2:  # Patches of all pictures in one row (Qwen-VL).
        yield from signal.split(grid.prod(dim=-1).tolist())
    else:
        yield from signal.split(1)
