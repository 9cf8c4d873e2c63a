"""Write checkpoints that come with code of their own, tiny and random."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from omnisink.verification.ports.checkpoints import TEXT, decoder_of, tokenizer
from omnisink.verification.ports.row import PortedModel

_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_with_code(folder: Path, name: str, classes: str, settings: dict[str, Any]) -> Path:
    """Save a model of this package as a checkpoint that brings its code with it.

    Parameters
    ----------
    folder : Path
        Where to.
    name : str
        A file of this package, without its suffix.
    classes : str
        What its classes begin with, before ``Config`` and ``Model``.
    settings : dict
        Of the configuration.

    Returns
    -------
    Path
        The folder.
    """
    module = import_module(f"omnisink.verification.outside.{name}")
    model = getattr(module, f"{classes}Model")(getattr(module, f"{classes}Config")(**settings))
    model.save_pretrained(folder)
    made = tokenizer({})
    made.chat_template = _CHAT
    made.save_pretrained(folder)
    shutil.copy(str(module.__file__), folder / f"{name}.py")
    file = folder / "config.json"
    auto = {"AutoConfig": f"{name}.{classes}Config", "AutoModel": f"{name}.{classes}Model"}
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "auto_map": auto}), encoding="utf-8")
    return folder


def internvl_like(folder: Path) -> Path:
    """Save the InternVL-like model."""
    return save_with_code(folder, "internvl_like", "InternVLLike", {"llm_config": _decoder()})


def minicpm_like(folder: Path) -> Path:
    """Save the MiniCPM-o-like model."""
    talker = {**_decoder(), "hidden_size": 16, "num_hidden_layers": 2}
    return save_with_code(folder, "minicpm_like", "MiniCPMLike", {**_decoder(), "tts_config": talker})


def _decoder() -> dict[str, Any]:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return {**TEXT, "vocab_size": len(tokenizer({})), "tie_word_embeddings": False, **ids}


ROWS = (
    PortedModel(
        "internvl_like",
        "built as InternVL and InternVideo 2.5 are, with their own code",
        "internvl_like",
        ("text",),
        "FOLDER",
        internvl_like,
        lambda folder: decoder_of(folder, "Qwen2ForCausalLM", "language_model.", "llm_config"),
        lacks="media, which need an adapter; language models past the attention interface, such as InternLM2",
        # What is asked of the whole model does not reach its language model, which takes transformers' choice.
        backends=("sdpa",),
        remote_code=True,
    ),
    PortedModel(
        "minicpm_like",
        "built as MiniCPM-o is, with its own code",
        "minicpm_like",
        ("text",),
        "FOLDER",
        minicpm_like,
        lambda folder: decoder_of(folder, "Qwen2ForCausalLM", "llm."),
        lacks="media, which need an adapter; a talker of the same configuration",
        remote_code=True,
    ),
)
