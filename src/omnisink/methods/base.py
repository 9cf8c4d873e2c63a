"""The one contract of a method: settings in a frozen dataclass, and a context manager on a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from omnisink.decoder.anatomy import Anatomy, read_anatomy
from omnisink.decoder.attachment import Attachment
from omnisink.decoder.interface import AttentionCall
from omnisink.decoder.passes import Pass
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.finiteness import Finiteness
from omnisink.methods.presets import Preset
from omnisink.methods.space import Range, SearchSpace
from omnisink.methods.trace import Record, Trace

if TYPE_CHECKING:
    from typing_extensions import Self

    from omnisink.methods.profile import Profile


@dataclass(frozen=True)
class Method(ABC):
    """Something done to head outputs while a model runs.

    A method is a frozen dataclass whose fields are its settings, and one override, `head_output`. Inside

    >>> with method(model) as trace:
    ...     model.generate(**inputs)

    every attention layer of the model's text decoder passes its head outputs through it. Different methods on one
    model act in the order in which they were attached; two of one class are refused.

    Attributes
    ----------
    watches_steps : bool
        Whether `residual_stream` is called in passes that add one token to each sequence. A class that looks at
        prompts alone says False, and no hook costs time there.
    presets : mapping of str to Preset
        Changes of settings that a user may name, as in ``outro:rotate``.
    source : str
        The paper that the method comes from, for `omnisink methods`.
    needs : str
        What it needs besides a model: extra passes, calibration, a list of tokens.
    tested : str
        What the tests run it with: attention backends, caches, padding, compilation.
    search_space : mapping or SearchSpace, optional
        Where `omnisink tune` looks for settings, by name; None derives it from the fields (`omnisink.methods.space`).
    """

    watches_steps: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Preset]] = {}
    source: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    tested: ClassVar[str] = ""
    search_space: ClassVar[Mapping[str, Range] | SearchSpace | None] = None

    @classmethod
    def from_profile(cls, path: str | Path, model: nn.Module | None = None) -> Self:
        """Load the settings that `omnisink tune` found for a model.

        The file is checked against every model that the method is put on: where it was tuned for another, there is a
        `ProfileWarning`. A copy with changed settings, as of `dataclasses.replace`, is not checked any more.

        Parameters
        ----------
        path : str or Path
            The profile.
        model : nn.Module, optional
            The model it is meant for, to be warned at once.

        Returns
        -------
        Method
            The settings.

        Raises
        ------
        OmnisinkError
            If the file is no profile of this method, or a setting is of the wrong type or out of range.
        """
        from omnisink.methods.profile import make_method, read_profile

        profile = read_profile(path)
        made: Self = make_method(profile, cls)
        # Not a field: where settings come from is none of them, and takes no part in records and comparisons.
        object.__setattr__(made, "_profile", profile)
        if model is not None:
            profile.warn(model, stacklevel=2)
        return made

    @property
    def profile(self) -> Profile | None:
        """The profile that the settings were loaded from, where they were."""
        return self.__dict__.get("_profile")

    @abstractmethod
    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Return the head outputs to use.

        Parameters
        ----------
        call : AttentionCall
            The layer's queries, keys, values and options.
        output : Tensor
            The attention's own head outputs before the output projection, (B, S, H, D').
        context : Context
            The pass that is running, the state of its sequences, and the record to write to.

        Returns
        -------
        Tensor
            (B, S, H, D'); `output` itself where nothing changes. It may be changed in place when no gradient is asked
            for.
        """

    def begin(self, context: Context) -> None:
        """Prepare for the pass `context.now`, before its first layer. By default, do nothing."""

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        """Look at the residual stream (B, S, d) entering a layer. By default, do nothing."""

    def idle(self, layer: int, context: Context) -> bool:
        """Whether a layer may be answered from an earlier run, now that its residual stream has been looked at.

        That is so where the method would neither change the layer's attention nor look at it in this prefill. By
        default, never. It is asked only where runs share layers (`omnisink.decoder.replay`), and may wait for the
        accelerator.
        """
        return False

    def attention_input(self, call: AttentionCall, context: Context) -> AttentionCall:
        """Return the queries, keys and values to attend with; a changed call is a new one. By default, the same."""
        return call

    def step(self, context: Context) -> Mapping[int, Callable[[Tensor], Tensor]] | None:
        """Return what head outputs (B, 1, H, D') go through in a pass that adds one token to each sequence, by layer.

        A layer that is missing keeps its own. This is asked where no gradient is wanted and `watches_steps` is False,
        and saves the host calls of `attention_input` and `head_output` at every layer. By default None: they are made.
        """
        return None

    def criterion_settings(self) -> dict[str, Any]:
        """Name and settings of what marks sinks, for records; empty where the method looks for none."""
        return {}

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model that the settings do not fit. By default, accept it."""

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Trace]:
        """Attach the method to `model` for the length of a block.

        Parameters
        ----------
        model : nn.Module
            A transformers model with one text decoder.

        Yields
        ------
        Trace
            What the method finds and does; readable in the block and after it.

        Raises
        ------
        UnsupportedModelError
            If the method would be silently wrong on this model.
        OmnisinkError
            If the model carries a method of this class already; in the block or at its end, if the residual stream was
            not finite; at the end of the block, if something that only the accelerator knew while it ran makes the
            result wrong.
        """
        anatomy = read_anatomy(getattr(model, "_orig_mod", model))
        self.check(anatomy)
        if self.profile is not None:
            self.profile.warn(anatomy, stacklevel=3)  # Of this, the context manager's, and the user's `with`.
        context = Context(self, anatomy)
        attachment = Attachment(anatomy, context, owner=self, name=type(self).__name__)
        attachment.attach()
        try:
            yield context.trace
        except BaseException:
            with suppress(OmnisinkError):  # What went wrong in the block matters more.
                attachment.detach()
            raise
        attachment.detach()
        context.trace.raise_deferred()


class Context:
    """One method on one model: hands the decoder's events to the method with what belongs to them.

    Attributes
    ----------
    anatomy : Anatomy
        The model's decoder.
    trace : Trace
        What the user reads.
    now : Pass
        The pass that is running; `now.state.tensors` are the method's own, kept with the cache.
    record : Record
        What the running pass's prefill is reported in.
    scratch : dict
        The method's own, emptied at the start of every pass.
    """

    def __init__(self, method: Method, anatomy: Anatomy) -> None:
        self._method = method
        self.anatomy = anatomy
        self.trace = Trace(method.criterion_settings(), anatomy.model)
        self.now: Pass
        self.record: Record
        self.scratch: dict[str, Any] = {}
        self._partial: set[int] = set()
        self._idle: set[int] = set()
        self._backends = self._backends_now()

    def begin(self, now: Pass) -> None:
        """Start a pass; a prefill gets a new record."""
        self.now = now
        self.scratch = {}
        self._partial = set()
        self._idle = set()
        if now.is_prefill:
            now.state.record = Record(
                now.batch,
                now.length,
                now.token_mask,
                skipped=dict(self.anatomy.unreachable),
                finite=Finiteness(now.token_mask),
            )
            now.state.record.deferred_checks.extend(now.deferred_checks)
            self.trace.begin(now.state.record)
        self.record = now.state.record
        self._method.begin(self)

    def watches_steps(self) -> bool:
        """Ask the method whether it looks at the residual stream of generated tokens."""
        return self._method.watches_steps

    def step(self, now: Pass) -> Mapping[int, Callable[[Tensor], Tensor]] | None:
        """Ask the method what a pass that adds one token to each sequence does to head outputs."""
        return self._method.step(self)

    def residual_stream(self, layer: int, hidden: Tensor, now: Pass) -> None:
        """Hand a layer's residual stream to the method, where it is that of the whole pass.

        Layers that share keys and values (Gemma 4) are run on the last tokens alone when only their logits are asked
        for. There is no prompt to see in them, so they are left alone, and reported in a prefill.
        """
        if hidden.shape[1] != now.length:
            self._partial.add(layer)
            if now.is_prefill:
                self.record.skipped[layer] = f"the model runs it on {hidden.shape[1]} of {now.length} tokens alone"
            return
        self._method.residual_stream(layer, hidden, self)

    def idle(self, layer: int, now: Pass) -> bool:
        """Ask the method whether a layer may be left out."""
        if layer in self._partial or self._method.idle(layer, self):
            self._idle.add(layer)
        return layer in self._idle

    def attention_input(self, call: AttentionCall, now: Pass) -> AttentionCall:
        """Hand a layer's queries, keys and values to the method."""
        return call if call.layer in self._partial else self._method.attention_input(call, self)

    def head_output(self, call: AttentionCall, output: Tensor, now: Pass) -> Tensor:
        """Hand a layer's head outputs to the method."""
        return output if call.layer in self._partial else self._method.head_output(call, output, self)

    def last_hidden_state(self, hidden: Tensor, now: Pass) -> None:
        """See whether what left the decoder is finite; on the CPU it is told at once.

        Raises
        ------
        OmnisinkError
            If it is not, and the host may look.
        """
        bad = self.record.finite.add_output(hidden, now.token_mask_on(hidden.device), is_prefill=now.is_prefill)
        if is_eager_cpu(bad) and bool(bad):
            self.trace.check_finite()

    def end(self, now: Pass, reached: set[int]) -> None:
        """Check that the layers thought reachable were reached, but for those that need not run.

        Raises
        ------
        UnsupportedModelError
            If none was.
        """
        if not now.is_prefill:
            return
        missed = self.anatomy.attention.keys() - reached - self._idle
        if not missed:
            return
        if not reached:
            raise UnsupportedModelError(
                f"no attention layer of {type(self.anatomy.model).__name__} was reached: {self._why_not_reached()}"
            )
        for layer in missed:
            self.record.skipped[layer] = "its attention did not run through the attention interface in this pass"

    def _why_not_reached(self) -> str:
        now = self._backends_now()
        if now != self._backends:
            before, after = (" and ".join(sorted(names)) for names in (self._backends, now))
            return (
                f"its attention implementation was changed inside the block, from {before} to {after}. "
                "Change it before the block"
            )
        if now == {"eager"}:
            return (
                "with attn_implementation='eager' its code calls a function of its own, past transformers' attention "
                "interface. Load the model with attn_implementation='sdpa'"
            )
        return "its attention does not go through transformers' attention interface"

    def _backends_now(self) -> set[str]:
        return {site.backend for site in self.anatomy.attention.values()}
