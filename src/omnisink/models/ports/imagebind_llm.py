"""ImageBind-LLM: transformers' Llama, ImageBind, and a gated value of what is seen and heard.

Media do not become tokens. ImageBind makes one vector of them, and each of the last layers adds a value of that
vector, times a learned gate, to its heads at every token. The value is the same for all tokens, and no part of the
softmax. It is added after the attention function, and a method such as OutRo acts on the attention's own outputs.
No released weights were run with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from omnisink.errors import OmnisinkError
from omnisink.models.ports.imagebind import ImageBind
from omnisink.models.ports.imagebind_weights import BLOCKS, to_llama

#: The prompt of the release, `llama.format_prompt`; it has no place for a system message, which goes before it.
TEMPLATE = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{{ messages[-1].content }}\n\n### Response:"
)


class ImageBindLlamaConfig(LlamaConfig):  # type: ignore[misc]
    """Llama's configuration under a name of its own, which a model that is saved keeps."""

    model_type = "imagebind_llm"


class GatedAttention(LlamaAttention):  # type: ignore[misc]
    """Llama's attention, to whose heads a gated value is added before the output projection."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        width, rank = config.hidden_size, config.lora_rank
        self.gate = nn.Parameter(torch.zeros(config.num_attention_heads))
        self.prefix = nn.Parameter(torch.zeros(width))
        # The release has no LoRA on the value of media, so what was merged into `v_proj` is taken off again.
        self.lora_v = (
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)) if rank else None
        )

    def forward(self, *args: Any, media_embeds: Tensor | None = None, **options: Any) -> Any:
        """Run Llama's attention, and add the value of media (B, W) to what it returns."""
        output, *rest = super().forward(*args, **options)
        return (output if media_embeds is None else output + self.media_output(media_embeds), *rest)

    def media_output(self, media_embeds: Tensor) -> Tensor:
        """Return what media (B, W) add to the attention's output, (B, 1, W)."""
        entered = media_embeds + self.prefix
        value = self.v_proj(entered)
        if self.lora_v is not None:
            value = value - self.lora_v(entered)
        gated = value.unflatten(-1, (len(self.gate), -1)) * self.gate.tanh().unsqueeze(-1)
        # The layers are called, so that offloaded and quantized ones do too; the difference is without the bias.
        with_it, without = self.o_proj(torch.stack([gated.flatten(-2), torch.zeros_like(value)]))
        return (with_it - without).unsqueeze(1)  # type: ignore[no-any-return]


class Connector(nn.Module):
    """From ImageBind's space to the width of the decoder: a projection, and three MLPs as Llama's, with residuals."""

    def __init__(self, seen: int, width: int, inner: int) -> None:
        super().__init__()
        sizes = LlamaConfig(hidden_size=width, intermediate_size=inner)
        self.proj = nn.Linear(seen, width)
        self.norms = nn.ModuleList(LlamaRMSNorm(width, eps=1e-6) for _ in range(BLOCKS))
        self.mlps = nn.ModuleList(LlamaMLP(sizes) for _ in range(BLOCKS))

    def forward(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (..., E) into vectors (..., W)."""
        made: Tensor = self.proj(embedding)
        for norm, mlp in zip(self.norms, self.mlps, strict=True):
            made = made + mlp(norm(made))
        return made


class ImageBindLlama(LlamaForCausalLM):  # type: ignore[misc]
    """Llama with gated attention in its last layers, ImageBind, and the connector."""

    config_class = ImageBindLlamaConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for index in range(config.num_hidden_layers - config.visual_layers, config.num_hidden_layers):
            self.model.layers[index].self_attn = GatedAttention(config, index)
        self.imagebind = ImageBind(config.imagebind)
        self.connector = Connector(config.imagebind["embedding"], config.hidden_size, config.connector_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        media_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run the decoder on text, with media beside it.

        Parameters
        ----------
        input_ids : Tensor
            (B, S) int64.
        attention_mask : Tensor
            (B, S), 0 at padding.
        media_embeds : Tensor
            (B, W), results of `embed_media`, in every pass of a sequence, as `generate` gives them. None adds nothing.
        **options
            Of Llama's own forward pass.
        """
        if media_embeds is not None:
            options["media_embeds"] = media_embeds
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **options)

    def embed_media(self, media: Sequence[tuple[Literal["vision", "audio"], Tensor]]) -> Tensor:
        """Turn the media of one question into one vector: the mean of their embeddings, through the connector.

        Parameters
        ----------
        media : sequence of (str, Tensor)
            Clips of each, as `Encoder.forward` takes them; at least one.

        Returns
        -------
        Tensor
            (W,).
        """
        # Weights of 1 each, which the release divides by their sum and a little.
        weight = 1 / (len(media) + 1e-6)
        each = [getattr(self.imagebind, kind)(clips.to(self.device, self.dtype)) * weight for kind, clips in media]
        vector: Tensor = self.connector(torch.stack(each).sum(dim=0))
        return vector


def load_imagebind_llm(
    name: str, folder: Path, options: dict[str, Any], download: bool
) -> tuple[Any, dict[str, Any], Any, None]:
    """Load what `omnisink.models.ports.convert_imagebind` wrote: the released weights under their own names.

    Parameters
    ----------
    name : str
        The checkpoint, for messages.
    folder : Path
        With ``config.json``, safetensors and LLaMA's tokenizer.
    options : dict
        For `from_pretrained`.
    download : bool
        Unused: nothing is fetched.

    Returns
    -------
    tuple of PreTrainedModel, dict, tokenizer, None
        The model, transformers' loading report, and the tokenizer with the release's prompt as its chat template.

    Raises
    ------
    OmnisinkError
        If the tokenizer cannot be read, or there are weights that the port has no place for.
    """
    from safetensors.torch import load_file

    tokenizer = _read_tokenizer(name, folder)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # Llama has one switch for the biases of all four projections of attention.
    config: Any = ImageBindLlamaConfig.from_dict(written | {"attention_bias": True, "mlp_bias": True})
    released = {
        key: weight for file in sorted(folder.glob("*.safetensors")) for key, weight in load_file(file).items()
    }
    dtype = options["dtype"]
    if dtype == "auto":
        words = released.get("llama.tok_embeddings.weight")
        dtype = torch.float32 if words is None else words.dtype
    model, report = ImageBindLlama.from_pretrained(
        None,
        config=config,
        state_dict=to_llama(released, config, dtype),
        output_loading_info=True,
        **{**options, "dtype": dtype},
    )
    if strange := sorted(report["unexpected_keys"]):
        raise OmnisinkError(
            f"{name} has {len(strange)} weights that ImageBind-LLM has no place for here, the first being "
            f"{strange[0]}. Checkpoints of its first release (legacy_bridge) are not ported"
        )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, report, tokenizer, None


def _read_tokenizer(name: str, folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
        raise OmnisinkError(
            f"{name} has no tokenizer.json, and the package sentencepiece, which reads a tokenizer.model, is not "
            "installed. Install it, or put LLaMA's tokenizer.json into the folder"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, config=LlamaConfig(), local_files_only=True)
    tokenizer.chat_template = TEMPLATE
    return tokenizer
