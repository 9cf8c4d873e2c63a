"""Write the released checkpoints of ImageBind-LLM as one folder in safetensors, which `load_model` takes.

    python -m omnisink.models.ports.convert_imagebind llama/7B 7B.pth imagebind_w3D.pth FOLDER

The releases are pickles. PyTorch reads tensors from them without running code (``weights_only=True``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.models.hub import first_line
from omnisink.models.ports.imagebind_weights import is_unused, read_sizes

#: Attention heads of imagebind_huge.
HEADS = {"vision": 16, "audio": 12}
#: What a LLaMA of Meta does not say of itself.
LLAMA = {"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
#: Files of the tokenizer, beside the weights of LLaMA or a folder above them.
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def convert(llama: str | Path, tuned: str | Path, imagebind: str | Path, folder: str | Path) -> Path:
    """Write one folder of three checkpoints.

    Parameters
    ----------
    llama : str or Path
        The folder of a LLaMA as Meta gives it out: one ``.pth`` file and ``params.json``, with the tokenizer there or
        a folder above.
    tuned : str or Path
        The checkpoint of ImageBind-LLM, ``7B.pth``.
    imagebind : str or Path
        That of ImageBind, ``imagebind_w3D.pth`` or ``imagebind_huge.pth``.
    folder : str or Path
        The folder to write.

    Returns
    -------
    Path
        The folder: the released names of weights, without the modalities that are not ported, ``config.json`` and the
        tokenizer.

    Raises
    ------
    OmnisinkError
        If a file is missing, holds more than tensors, or is not the checkpoint that it stands for.
    """
    from huggingface_hub import save_torch_state_dict

    llama, folder = Path(llama), Path(folder)
    shards = sorted(llama.glob("*.pth"))
    if len(shards) != 1 or not (llama / "params.json").is_file():
        raise OmnisinkError(f"{llama} has {len(shards)} .pth files: LLaMA 7B has one, with a params.json beside it")
    params = json.loads((llama / "params.json").read_text(encoding="utf-8"))
    weights = {f"llama.{name}": weight for name, weight in _read(shards[0]).items()}
    weights |= {f"image_bind.{name}": weight for name, weight in _read(Path(imagebind)).items()}
    weights |= _read(Path(tuned))  # The norms of LLaMA are tuned, and come again.
    weights = {name: weight for name, weight in weights.items() if not is_unused(name)}
    try:
        sizes = read_sizes(weights, HEADS)
        heads, eps = params["n_heads"], params["norm_eps"]
    except KeyError as missing:
        raise OmnisinkError(
            f"{missing} is in none of these checkpoints: give LLaMA's folder, then the file of ImageBind-LLM, then "
            "that of ImageBind"
        ) from None
    dtype = weights["llama.tok_embeddings.weight"].dtype
    config = {
        "model_type": "imagebind_llm",
        "dtype": str(dtype).removeprefix("torch."),
        "num_attention_heads": heads,
        "rms_norm_eps": eps,
        **LLAMA,
        **sizes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(weights, folder)
    for name in _TOKENIZER:
        found = next((place / name for place in (llama, llama.parent) if (place / name).is_file()), None)
        if found is not None:
            shutil.copyfile(found, folder / name)
    # The configuration last: it stands for a whole checkpoint.
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def _read(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickled checkpoint without running any code of it."""
    if not file.is_file():
        raise OmnisinkError(f"there is no file {file}")
    try:
        held: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except UnpicklingError as error:
        raise OmnisinkError(
            f"{file} holds more than tensors, or is damaged. Reading the rest could run code"
        ) from error
    except (EOFError, RuntimeError) as error:
        raise OmnisinkError(f"{file} is not a checkpoint of PyTorch: {first_line(error)}") from error
    held = held.get("model", held) if isinstance(held, dict) else {}
    return {name: weight for name, weight in held.items() if isinstance(weight, Tensor)}


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama", type=Path, help="folder with LLaMA's .pth file and params.json")
    parser.add_argument("tuned", type=Path, help="ImageBind-LLM's checkpoint, 7B.pth")
    parser.add_argument("imagebind", type=Path, help="ImageBind's checkpoint, imagebind_w3D.pth or imagebind_huge.pth")
    parser.add_argument("folder", type=Path, help="folder to write")
    given = parser.parse_args()
    try:
        print(convert(given.llama, given.tuned, given.imagebind, given.folder))
    except OmnisinkError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
