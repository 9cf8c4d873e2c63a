"""What is easily written in place of `with method(...)(model) as trace:`, and what is said to it."""

from __future__ import annotations

import re
from contextlib import _GeneratorContextManager
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

from omnisink.errors import OmnisinkError
from omnisink.methods.given import holds_model

#: In the type of a field: it may well hold a model.
_TAKES_MODEL = re.compile(r"Module|Model|Pipeline|Loaded|Any\b|object\b")


class SettingsFirst:
    """A class of settings that is put on a model by a call; a model among the settings, or no call, is a slip."""

    @classmethod
    def refuse_model(cls, given: tuple[Any, ...], settings: dict[str, Any]) -> None:
        """Refuse a model where the first setting is meant, unless that is a setting which may be one."""
        own: dict[str, str] = {f.name: str(f.type) for f in fields(cls) if f.init} if is_dataclass(cls) else {}
        first = next(iter(own.values()), "")
        misplaced = (given and holds_model(given[0]) and not _TAKES_MODEL.search(first)) or (
            "model" in settings and "model" not in own and holds_model(settings["model"])
        )
        if misplaced:
            raise OmnisinkError(
                f"{cls.__name__}(...) takes settings, and the model comes after them: "
                f"with {cls.__name__}(...)(model) as trace:"
            )

    @classmethod
    def refuse_inputs(cls) -> NoReturn:
        """Say where inputs of the model go."""
        raise OmnisinkError(
            f"{cls.__name__}(...)(...) takes the model only; its inputs go to the model, inside the block: "
            f"with {cls.__name__}(...)(model) as trace: model.generate(**inputs)"
        )

    def __enter__(self) -> NoReturn:
        """Say that there is no model yet.

        Raises
        ------
        OmnisinkError
            Always: a block begins with ``method(model)``.
        """
        name = type(self).__name__
        raise OmnisinkError(f"{name}(...) has no model yet; write with {name}(...)(model) as trace:")

    def __exit__(self, *_: object) -> None:
        """Do nothing; the block never begins."""


class Block(_GeneratorContextManager[Any, None, None]):
    """What ``method(model)`` returns: a block that `with` begins. It is neither the trace nor the model."""

    def __getattr__(self, name: str) -> NoReturn:
        """Say where the trace is, to those who look for its attributes, or the model's, here."""
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self!r} has no attribute {name!r}: write with {self._written} as trace:, and read the trace"
        )

    def __call__(self, *given: Any, **inputs: Any) -> Any:
        """Put the method around every call of a function, as a decorator does; inputs of a model are refused."""
        if inputs or len(given) != 1 or not callable(given[0]):
            raise OmnisinkError(
                f"{self!r} takes no inputs: write with {self._written} as trace:, and give them to the model inside it"
            )
        return super().__call__(given[0])

    @property
    def _written(self) -> str:
        method, *_ = vars(self).get("args", (self,))  # Gone once the block has begun.
        return "method(model)" if method is self else f"{type(method).__name__}(...)(model)"

    def __repr__(self) -> str:
        """Say that it is a block."""
        return f"<{self._written}: a block for `with`>"
