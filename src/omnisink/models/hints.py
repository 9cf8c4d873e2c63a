"""What to do where a library could not load a model, by what its error says."""

from __future__ import annotations

_LOADER = "give the type a loader with the entry point omnisink.models (docs/write-an-adapter.md)"

#: A part of what transformers says, and the sentence that solves it.
_HINTS = (
    (
        "does not recognize this architecture",
        f"If a package of its own knows the type, import that package before load_model is called, or {_LOADER}",
    ),
    (
        "Unrecognized configuration class",
        "Its config.json names no class for the model: put AutoModel or AutoModelForCausalLM into its auto_map, as "
        f'"modeling.TheirModel", or {_LOADER}',
    ),
    (
        "cannot import name",
        "Code that comes with it was written for another release of transformers: use that release in an environment "
        f"of its own, or {_LOADER}",
    ),
    (
        "does not support an attention implementation through",
        "Leave attn_implementation, or --attn, out: the parts of such a model choose for themselves",
    ),
    (
        "Couldn't instantiate the backend tokenizer",
        "No tokenizer that can be read lies in the folder: put the files of the model's tokenizer there",
    ),
)


def hint_for(error: Exception) -> str:
    """Return the sentence that solves an error of another library, after a full stop; empty where none is known."""
    return next((f". {hint}" for said, hint in _HINTS if said in str(error)), "")
