"""Write an embedded model as a folder that other programs load: safetensors, configuration, tokenizer.

    python -m omnisink.models.checkpoint smolomni FOLDER

Serving engines read such folders; the embedded models are kept in forms that only omnisink reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnisink.errors import OmnisinkError
from omnisink.models import embedded, smolomni

_TALKER_IDS = (
    "tts_text_start_token_id",
    "tts_text_end_token_id",
    "tts_text_pad_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "audio_start_token_id",
    "audio_end_token_id",
)


def write_checkpoint(name: str, folder: str | Path) -> Path:
    """Write an embedded model in float32, with the names of weights and files that transformers saves.

    SmolOmni is written as the whole of a Qwen2.5-Omni, of which the thinker is there and the talker is not, because
    that is the form in which Qwen2.5-Omni's checkpoints come.

    Parameters
    ----------
    name : str
        ``"smollm2-135m"`` or ``"smolomni"``.
    folder : str or Path
        Folder to write; made if it does not exist. A folder that already holds a whole checkpoint is not changed.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OmnisinkError
        If the name is another, or the weights are not on this machine.
    """
    if name not in (embedded.NAME, smolomni.NAME):
        raise OmnisinkError(f"{name} is not embedded; those that are: {embedded.NAME}, {smolomni.NAME}")
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if name == smolomni.NAME:
        _write_smolomni(folder)
    else:
        from omnisink.models.loading import load_model

        loaded = load_model(name, dtype="float32")
        loaded.tokenizer.save_pretrained(folder)
        loaded.model.save_pretrained(folder)
    return folder


def _write_smolomni(folder: Path) -> None:
    """Write SmolOmni without loading it, so that any transformers that knows Qwen2.5-Omni can."""
    from safetensors.torch import save_file
    from transformers import GenerationConfig, Qwen2_5OmniConfig

    config, state, processor = smolomni.load_parts()
    processor.save_pretrained(folder)
    # The output embeddings are written though they are those of the input: readers of this form do not tie them.
    state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"].clone()
    weights = {f"thinker.{_name_on_disk(name)}": weight.contiguous() for name, weight in state.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    text = config.text_config
    GenerationConfig(eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id).save_pretrained(folder)
    thinker = config.to_dict()
    thinker["tie_word_embeddings"] = thinker["text_config"]["tie_word_embeddings"] = False
    # The configuration last: it stands for a whole checkpoint.
    whole = Qwen2_5OmniConfig(
        thinker_config=thinker,
        # Of the talker, which is not there, only the ids that are checked against its vocabulary.
        talker_config=dict.fromkeys(_TALKER_IDS, 0),
        enable_audio_output=False,
        architectures=["Qwen2_5OmniForConditionalGeneration"],
        tie_word_embeddings=False,
    )
    with _quiet():
        whole.save_pretrained(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings back: saving what differs from the defaults, transformers makes a default talker and doubts it."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _name_on_disk(name: str) -> str:
    """Turn the name of a weight in transformers 5 into the one in Qwen2.5-Omni's checkpoints."""
    return (
        name.replace("model.language_model.", "model.", 1)
        .replace("model.visual.", "visual.", 1)
        .replace("model.audio_tower.", "audio_tower.", 1)
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
