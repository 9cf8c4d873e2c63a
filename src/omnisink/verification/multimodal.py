"""Parts that the tiny multimodal models share: placeholders, towers, prompts with media in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omnisink.verification.family import transformers_class

#: Placeholder tokens, below the ids that prompts are made of.
IMAGE, VIDEO, VISION_START, VISION_END, AUDIO, AUDIO_START, AUDIO_END = 10, 11, 12, 13, 14, 8, 9

#: A small vision or audio tower under transformers' usual names.
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def build_with(
    config: str,
    model: str,
    *,
    text: dict[str, Any] | None,
    vision: dict[str, Any] | None = None,
    audio: dict[str, Any] | None = None,
    scale: float = 1.0,
    **settings: Any,
) -> Callable[..., Any]:
    """Return a builder of a multimodal model from classes of transformers.

    Parameters
    ----------
    config, model : str
        Names of the classes.
    text, vision, audio : dict or None
        Settings of the parts; the text part also gets the tiny settings that all share. None where the model has no
        such part.
    scale : float
        Factor by which the model multiplies its text embeddings.
    **settings
        Further settings of the composite configuration.

    Returns
    -------
    callable
        ``build(attn_implementation="sdpa", plant=True)``. The backend is the text decoder's; towers keep "sdpa".
    """

    def build(attn_implementation: str = "sdpa", plant: bool = True) -> Any:
        from omnisink.verification.tiny import TEXT_SETTINGS, make

        # Where the text decoder has no configuration of its own, its settings are the whole model's.
        parts = dict(TEXT_SETTINGS) if text is None else {"text_config": {**TEXT_SETTINGS, **text}}
        parts |= {} if vision is None else {"vision_config": vision}
        parts |= {} if audio is None else {"audio_config": audio}

        def assemble() -> Any:
            built = transformers_class(model)(
                transformers_class(config)(**{**parts, "tie_word_embeddings": False, **settings})
            )
            if attn_implementation != "sdpa":
                built.set_attn_implementation({"" if text is None else "text_config": attn_implementation})
            return built

        return make(assemble, plant=plant, scale=scale)

    return build


def text_prompts(model: Any, lengths: tuple[int, ...] = (16, 11), padding_side: str = "left") -> dict[str, Any]:
    """Make text prompts with planted sinks; see `omnisink.verification.tiny.text_inputs`."""
    from omnisink.verification.tiny import text_inputs

    return text_inputs(model, lengths, padding_side)


def with_media(model: Any, media: list[int], length: int = 12) -> dict[str, Any]:
    """Make one prompt: the sink token, words, the media's placeholders, words, a second sink token, words."""
    import torch

    from omnisink.verification.tiny import SINK_TOKEN, words

    before, after = words(3, seed=1), words(length, seed=2)
    after[length // 2] = SINK_TOKEN
    ids = torch.tensor([[SINK_TOKEN, *before, *media, *after]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def with_types(prompt: dict[str, Any], name: str = "mm_token_type_ids") -> dict[str, Any]:
    """Add what processors say of every token: text 0, image 1, video 2.

    Without it the Qwen-VL models count positions along one axis, and Gemma 3 masks an image's tokens causally.
    """
    ids = prompt["input_ids"]
    return {**prompt, name: (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}


def noise(*shape: int) -> Any:
    """Make reproducible noise of a shape, float32."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


def patches(values: str, grid: str, thw: tuple[int, int, int], patch: int) -> dict[str, Any]:
    """Make flattened patches and their grid of time, height and width, as Qwen's processors do."""
    import torch

    time, height, width = thw
    return {values: noise(time * height * width, patch), grid: torch.tensor([thw])}
