"""The entry point that vLLM calls in every process it starts. It must cost nothing and may be called again."""

from __future__ import annotations

import functools
from typing import Any


def register() -> None:
    """Let vLLM's configuration know the setting ``additional_config={"outro": {...}}``.

    A configuration without the setting is left exactly as vLLM makes it: nothing else of this package is imported.
    With the setting it is checked, and what would make the method wrong is refused or switched off, before vLLM reads
    it; see `omnisink.serving.startup`. Everything else hangs on what the configuration names, as the class of its
    workers.
    """
    from vllm.config import VllmConfig

    original = VllmConfig.__post_init__
    if getattr(original, "knows_outro", False):
        return

    @functools.wraps(original)
    def __post_init__(self: Any, *args: Any, **kwargs: Any) -> None:
        extra = self.additional_config
        if isinstance(extra, dict) and extra:
            from omnisink.serving.configuration import refuse_others

            refuse_others(extra)
        if not (isinstance(extra, dict) and extra.get("outro") not in (None, False)):
            original(self, *args, **kwargs)
            return
        from omnisink.serving.startup import finish, prepare

        prepare(self)
        original(self, *args, **kwargs)
        finish(self)

    __post_init__.knows_outro = True  # type: ignore[attr-defined]
    VllmConfig.__post_init__ = __post_init__
