"""Several methods on one model at once, as one: ``outro+avcd``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.composed_trace import ComposedTrace
from omnisink.methods.contrast import Contrast
from omnisink.methods.trace import Trace


@dataclass(frozen=True)
class Composed(Method):
    """Several methods, attached in the order in which they stand here.

    >>> with Composed((OutRo(), AVCD()))(model) as trace:
    ...     model.generate(**inputs)

    is ``with OutRo()(model), AVCD()(model):`` with one trace. Each method keeps its own state. Beside a contrastive
    method, every other acts in each branch, with a state for each.

    Parameters
    ----------
    methods : sequence of Method
        Two or more. A composition among them stands for its methods.

    Raises
    ------
    OmnisinkError
        If there are fewer than two, two are of one class, two are contrastive, or two answer the attention of a layer
        in place of the model in the same passes.
    """

    methods: tuple[Method, ...]

    #: Each method decides by itself whether it looks at them.
    needs_spans: ClassVar[bool] = True
    unsearchable: ClassVar[str] = (
        "is several methods, and settings are searched for one at a time: tune each by itself, then name them "
        "together, as --methods outro+vcd --profile FILE"
    )

    def __post_init__(self) -> None:
        given: Any = self.methods
        if not isinstance(given, Sequence) or not all(isinstance(one, Method) for one in given):
            raise OmnisinkError("Composed(...) takes a list of methods, as Composed([OutRo(), AVCD()])")
        flat = tuple(part for one in given for part in parts_of(one))
        object.__setattr__(self, "methods", flat)
        if len(flat) < 2:
            raise OmnisinkError("a composition takes two methods or more")
        names = [type(one).__name__ for one in flat]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise OmnisinkError(f"{self} names {twice} twice: a model carries one method of a class at a time")
        contrastive = [type(one).__name__ for one in flat if isinstance(one, Contrast)]
        if len(contrastive) > 1:
            raise OmnisinkError(
                f"{self} cannot be composed: {' and '.join(contrastive)} all choose the next token from logits, and "
                "one such method at a time can. Run them one after the other"
            )
        passes = [one.attends_in() for one in flat]
        both = next((place for place in ("prompt", "steps") if sum(place in one for one in passes) > 1), None)
        if both:
            answering = [type(one).__name__ for one in flat if both in one.attends_in()]
            raise OmnisinkError(
                f"{self} cannot be composed: {' and '.join(answering)} all answer the attention of a layer in place "
                "of the model, and one of them would be without effect. Run them one after the other"
            )

    def __str__(self) -> str:
        """Name the classes, in their order."""
        return "+".join(type(one).__name__ for one in self.methods)

    def criterion_settings(self) -> dict[str, Any]:
        """Return those of the first method that looks for sinks, whose sinks the trace shows."""
        return next(filter(None, (one.criterion_settings() for one in self.methods)), {})

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model that the settings of any of the methods do not fit."""
        for one in self.methods:
            one.check(anatomy)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Change nothing: each method is attached by itself."""
        return output

    @contextmanager
    def _attached(self, model: Any, spans: Any = None, branch: int | None = None) -> Iterator[Trace]:
        with ExitStack() as stack:
            yield ComposedTrace([stack.enter_context(one._attached(model, spans, branch)) for one in self.methods])


def parts_of(method: Method) -> tuple[Method, ...]:
    """Return the methods of a composition, or the one method."""
    return method.methods if isinstance(method, Composed) else (method,)
