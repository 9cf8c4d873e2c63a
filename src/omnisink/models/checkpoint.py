"""Write an embedded model as a folder that other programs load: safetensors, configuration, tokenizer.

    python -m omnisink.models.checkpoint smolomni FOLDER

Serving engines read such folders; the embedded models are kept in forms that only omnisink reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.models import embedded, smolomni


def write_checkpoint(name: str, folder: str | Path) -> Path:
    """Write an embedded model in float32, with the names of weights and files that transformers saves.

    SmolOmni is written as the whole of a Qwen2.5-Omni, of which the thinker is there and the talker is not, because
    that is the form in which Qwen2.5-Omni's checkpoints come.

    Parameters
    ----------
    name : str
        ``"smollm2-135m"`` or ``"smolomni"``.
    folder : str or Path
        Where to; made if it is not there. A folder that holds a whole checkpoint already is left as it is.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OmnisinkError
        If the name is another, or the weights are not on this machine.
    """
    from omnisink.models.loading import load_model

    if name not in (embedded.NAME, smolomni.NAME):
        raise OmnisinkError(f"{name} is not embedded; those that are: {embedded.NAME}, {smolomni.NAME}")
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return folder
    loaded = load_model(name, dtype="float32")
    folder.mkdir(parents=True, exist_ok=True)
    (loaded.processor or loaded.tokenizer).save_pretrained(folder)
    if name == smolomni.NAME:
        _write_thinker(loaded.model, folder)
    else:
        loaded.model.save_pretrained(folder)
    return folder


def _write_thinker(model: Any, folder: Path) -> None:
    """Save a thinker under the names that its weights have in a checkpoint of the whole model."""
    from safetensors.torch import save_file
    from transformers import Qwen2_5OmniConfig

    # The weights first: a configuration stands for a whole checkpoint.
    weights = {f"thinker.{_name_on_disk(name)}": w.contiguous() for name, w in model.state_dict().items()}
    tied = "thinker.lm_head.weight"
    save_file({name: w for name, w in weights.items() if name != tied}, folder / "model.safetensors", {"format": "pt"})
    model.generation_config.save_pretrained(folder)
    config = Qwen2_5OmniConfig(
        thinker_config=model.config.to_dict(),
        enable_audio_output=False,
        architectures=["Qwen2_5OmniForConditionalGeneration"],
        tie_word_embeddings=True,
    )
    config.save_pretrained(folder)


def _name_on_disk(name: str) -> str:
    """Turn the name of a weight in transformers 5 into the one in Qwen2.5-Omni's checkpoints."""
    return name.replace("model.language_model.", "model.", 1).replace("model.visual.", "visual.", 1).replace(
        "model.audio_tower.", "audio_tower.", 1
    )


def main() -> None:
    """Write the checkpoint that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[embedded.NAME, smolomni.NAME])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    print(write_checkpoint(given.name, given.folder))


if __name__ == "__main__":
    main()
