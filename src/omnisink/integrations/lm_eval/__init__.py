"""omnisink inside lm-evaluation-harness: the model ``omnisink``, any language model under one method.

The harness finds only models that it ships or that were registered before it starts. So the command is
``python -m omnisink.integrations.lm_eval``, which takes all options of ``lm_eval``; in Python, call `register` first.
"""

from __future__ import annotations

from omnisink.errors import OmnisinkError
from omnisink.extras import install

#: The name of our model, for ``--model``.
NAME = "omnisink"


def register() -> None:
    """Make ``--model omnisink`` known to the harness in this process; a second call does nothing.

    Raises
    ------
    OmnisinkError
        If lm-evaluation-harness is not installed.
    """
    try:
        import lm_eval.models  # noqa: F401  # Registers the harness's own models, which it does not do twice.
        from lm_eval.api.registry import model_registry
    except ImportError as error:
        raise OmnisinkError(
            f"lm-evaluation-harness cannot be imported ({error}): {install('lmeval')}, version 0.4.13 or newer"
        ) from None
    if NAME not in model_registry:
        model_registry.register(NAME, target="omnisink.integrations.lm_eval.model:OmnisinkLM")
