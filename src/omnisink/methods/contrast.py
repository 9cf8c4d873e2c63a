"""Contrastive decoding: the model beside itself with worse inputs, and the difference of the two made larger.

A method of this kind names its branches, each a second pass with inputs and methods of its own
(`omnisink.decoder.twins`). From the logits ``z`` of the model and ``z'`` of the branch it chooses by
``(1 + alpha) z - alpha z'``, among the tokens that the model itself finds plausible: those at least `beta` times as
probable as its best one. The cut comes before temperature and top-p, which `generate` applies to what is returned
here.

Yin, Si and Wang (arXiv 2504.10020) show that much of what such methods gain on yes/no questions comes from the cut,
and from a push toward one of the answers. So compare with `omnisink.methods.plausible.PlausibleTokens`, which cuts and
does not contrast, and look at the share of "yes".
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from omnisink.decoder.branches import FIRST
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.twins import Change, Twins
from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.space import FloatRange, Range
from omnisink.methods.trace import Trace

#: By the id of a text model, the method whose branches run beside it.
_BRANCHING: dict[int, str] = {}
#: What a method overrides to look at a layer, or to change it.
_OF_LAYERS = ("residual_stream", "attention_input", "attend", "head_output")


@dataclass(frozen=True)
class Branch:
    """A second pass beside the model's own.

    Attributes
    ----------
    change : callable
        From the arguments of the model's prefill, by name, to those that differ in this branch.
    methods : tuple of Method
        Methods that act in this branch only.
    watch : callable, optional
        Called when the block begins; what it returns is called at its end.
    layers : int
        Number of layers, from the first, at which nothing is done in this branch, for one whose inputs do not differ.
        Its prompt takes them over from the model's own pass.
    """

    change: Change
    methods: tuple[Method, ...] = ()
    watch: Callable[[], Callable[[], None]] | None = None
    layers: int = 0


@dataclass(frozen=True)
class Contrast(Method):
    """What every contrastive method does; a class of its own says which branches there are.

    Parameters
    ----------
    alpha : float
        Weight of the contrast; at 0 only the cut is left.
    beta : float
        Share of the best token's probability that a token needs to be chosen, from 0 to 1; 0 keeps all.

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite, or `beta` is not between 0 and 1.
    """

    alpha: float = 1.0
    beta: float = 0.1

    watches_steps: ClassVar[bool] = False
    #: Not `beta`: a sharper cut makes answers surer whether they are right or not.
    search_space: ClassVar[Mapping[str, Range]] = {"alpha": FloatRange(0.1, 3.0)}

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha must be at least 0, got {self.alpha}")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be between 0 and 1, got {self.beta}")

    @abstractmethod
    def branches(self, context: Context) -> Sequence[Branch]:
        """Return the branches, or raise an `UnsupportedModelError` where the model has none.

        A branch's `change` is called when the model's own prefill is over, and may look at `context.spans` then.
        """

    def combine(self, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Combine logits (B, n, V) of the model and of each branch into those that are used, of the same shape."""
        (other,) = twins
        return keep_plausible(first, contrast(first, other, self.alpha), self.beta)

    def combine_pass(self, context: Context, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Combine as `combine` does, for a method whose weights depend on the pass `context.now`, which is over."""
        return self.combine(first, twins)

    def twins(self, context: Context, branches: Sequence[Branch]) -> Twins:
        """Return what runs the branches; by default, passes that go on from caches of their own."""
        combine = partial(self.combine_pass, context)
        layers = max((one.layers for one in branches), default=0)
        return Twins(context.anatomy, [one.change for one in branches], combine, owner=self, layers=layers)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Change nothing: this method acts on logits."""
        return output

    def can_skip_layer(self, layer: int, context: Context) -> bool:
        """Skip all, unless the class looks at layers: what it acts on are logits."""
        return all(getattr(type(self), name) is getattr(Contrast, name) for name in _OF_LAYERS)

    def step(self, context: Context) -> dict[int, Callable[[Tensor], Tensor]]:
        """Ask for nothing in a decode step."""
        return {}

    @contextmanager
    def _attached(self, model: Any, spans: Any = None, branch: int | None = None) -> Iterator[Trace]:
        with super()._attached(model, spans, FIRST if branch is None else branch) as trace:
            yield trace

    @contextmanager
    def beside(self, context: Context) -> Iterator[None]:
        """Run the branches."""
        branches = self.branches(context)
        with ExitStack() as stack:
            if branches:
                stack.callback(_take(id(context.anatomy.text_model), type(self).__name__))
            for number, one in enumerate(branches, start=1):
                for method in one.methods:
                    spans = None if context.prompt_spans is None else context.prompt_spans.given
                    stack.enter_context(method._attached(context.anatomy.model, spans, number))
                if one.watch is not None:
                    stack.callback(one.watch())
            stack.callback(self.twins(context, branches).attach())
            yield


def _take(model: int, name: str) -> Callable[[], None]:
    """Note whose branches run beside a model, and return what ends it; a second method is refused."""
    if (other := _BRANCHING.get(model)) is not None:
        raise OmnisinkError(
            f"{name} and {other} both run further passes of this model, and the methods of one would act in the "
            "passes of the other: attach one of them at a time"
        )
    _BRANCHING[model] = name
    return lambda: _BRANCHING.__delitem__(model)


def unchanged(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Change no input: the branch differs by its methods only."""
    return {}


def contrast(first: Tensor, other: Tensor, alpha: float) -> Tensor:
    """Return ``(1 + alpha) first - alpha other`` of logits (B, n, V), in float32 where they are shorter."""
    return first.float() if alpha == 0 else (1 + alpha) * first.float() - alpha * other.float()


def keep_plausible(first: Tensor, logits: Tensor, beta: float) -> Tensor:
    """Return `logits` without the tokens that are less than `beta` times as probable in `first` as its best one.

    Both are (B, n, V); what is left out is ``-inf``. The result has the dtype of `first`.
    """
    logits = logits.to(first.dtype)
    if beta == 0:
        return logits
    best = first.amax(dim=-1, keepdim=True)
    return logits.masked_fill(first < best + math.log(beta), -math.inf)
