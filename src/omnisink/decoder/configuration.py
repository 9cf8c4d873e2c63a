"""Find the configuration of the language model in that of a model; without torch, as adapters are listed without."""

from __future__ import annotations

from typing import Any

#: What other code calls the configuration of its language model; transformers itself looks for ``text_config``.
_NAMES = ("llm_config", "language_config", "language_model_config", "llm_cfg")


def text_config(config: Any) -> Any:
    """Return the configuration of the language model in a model's configuration.

    Parameters
    ----------
    config : PreTrainedConfig
        Of a language model, or of a model that holds one.

    Returns
    -------
    PreTrainedConfig
        What transformers finds, or what other code calls ``llm_config`` and the like; `config` where neither is there.
    """
    found = config.get_text_config(decoder=True)
    if depth(found) is None:
        return next((known for name in _NAMES if depth(known := getattr(config, name, None)) is not None), found)
    return found


def depth(config: Any) -> int | None:
    """Return the number of decoder layers in a configuration; None where it does not say."""
    return getattr(config, "num_hidden_layers", None)
