"""The one contract of a method: settings in a frozen dataclass, and a context manager on a model."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, _GeneratorContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from omnisink.decoder.anatomy import Anatomy, read_anatomy
from omnisink.decoder.attachment import Attachment
from omnisink.decoder.branches import current_branch
from omnisink.decoder.context import Context
from omnisink.decoder.intervention import Intervention
from omnisink.decoder.spans import PromptSpans
from omnisink.errors import OmnisinkError
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.block_records import Record
from omnisink.methods.finiteness import Finiteness
from omnisink.methods.given import model_of
from omnisink.methods.listing import Listed
from omnisink.methods.profiled import Profiled
from omnisink.methods.slips import Block, SettingsFirst
from omnisink.methods.trace import Trace

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Method(SettingsFirst, Listed, Profiled, Intervention):
    """Something done to head outputs while a model runs.

    A method is a frozen dataclass whose fields are its settings, and one override, `head_output`. Inside

    >>> with method(model) as trace:
    ...     model.generate(**inputs)

    every attention layer of the model's text decoder passes its head outputs through it. Different methods on one
    model act in the order in which they were attached; two of one class are refused.

    Attributes
    ----------
    record_type, trace_type : type
        Classes of what the method writes its report to, and of what its user reads.

    What it may override to act on a pass stands in `omnisink.decoder.intervention.Intervention`, and what it may say
    of itself to commands in `omnisink.methods.listing.Listed`.
    """

    record_type: ClassVar[type[Record]] = Record
    trace_type: ClassVar[type[Trace]] = Trace

    def __new__(cls, *given: Any, **settings: Any) -> Self:
        """Refuse a model among the settings."""
        if given or "model" in settings:
            cls.refuse_model(given, settings)
        return super().__new__(cls)

    def criterion_settings(self) -> dict[str, Any]:
        """Name and settings of what marks sinks, for records; empty where the method looks for none."""
        return {}

    def start_record(self, context: Context) -> Record:
        """Return the record of a prefill, and let the trace report it from now on."""
        now = context.now
        record = self.record_type(
            now.batch,
            now.length,
            now.token_mask,
            skipped=dict(context.anatomy.unreachable),
            deferred_checks=list(now.deferred_checks),
            finite=Finiteness(now.token_mask),
        )
        context.trace.begin(record, current_branch())
        return record

    def last_hidden_state(self, hidden: Tensor, context: Context) -> None:
        """See whether what left the decoder is finite; on the CPU an error is raised at once."""
        now = context.now
        mask = now.token_mask_on(hidden.device)
        bad = context.record.finite.add_output(hidden, mask, is_prefill=now.is_prefill)
        if is_eager_cpu(bad) and bool(bad):
            context.trace.check_finite()

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model that the settings do not fit. By default, accept it."""

    def beside(self, context: Context) -> AbstractContextManager[Any]:
        """Return what else is put on the model for the length of a block, as a second pass is. By default, nothing."""
        return nullcontext()

    def __call__(
        self, model: Any, *prompt: Any, spans: Any = None, **inputs: Any
    ) -> _GeneratorContextManager[Trace, None, None]:
        """Attach the method to `model` for the length of a block.

        Parameters
        ----------
        model : nn.Module, Loaded or Pipeline
            A transformers model with one text decoder, or what holds one: what `load_model` returned, a pipeline.
        spans : sequence of sequences of Span, or mapping of str to Tensor, optional
            What is text, image, video and audio in the block's prompts, for methods that ask: as
            ``loaded.spans(inputs)`` says, or (B, S) bool by modality. None reads it off the ids of the prompt.

        Yields
        ------
        Trace
            What the method finds and does; readable in the block and after it.

        Raises
        ------
        UnsupportedModelError
            If the method would be silently wrong on this model.
        OmnisinkError
            If inputs are given too, or the model carries a method of this class already; in the block or at its end,
            if the residual stream was not finite; at the end of the block, if something that only the accelerator knew
            while it ran makes the result wrong.
        """
        if prompt or inputs:
            self.refuse_inputs()
        return Block(type(self)._block, (self, model, spans), {})

    def _block(self, model: Any, spans: Any) -> Generator[Trace, None, None]:
        with self._attached(model, spans) as trace:
            yield trace

    @contextmanager
    def _attached(self, model: Any, spans: Any = None, branch: int | None = None) -> Iterator[Trace]:
        """Attach the method for the length of a block, in one branch or in all (`omnisink.decoder.twins`)."""
        decoder = model if isinstance(model, nn.Module) else model_of(model, f"{type(self).__name__}(...)()")
        anatomy = read_anatomy(decoder)
        self.check(anatomy)
        if (profile := vars(self).get("_profile")) is not None:
            # Of this and `__call__`, their context managers, and the user's `with`.
            profile.warn(anatomy, stacklevel=5)
        context = Context(self, anatomy, self.trace_type(self.criterion_settings(), anatomy.model))
        context.trace.decoder, context.tokenizer = anatomy.path, getattr(model, "tokenizer", None)
        if self.needs_spans:
            context.prompt_spans = PromptSpans(anatomy, type(self).__name__, spans)
        name = f"{type(self).__name__} in branch {branch}" if branch else type(self).__name__
        attachment = Attachment(context, owner=self, name=name, branch=branch)
        attachment.attach()
        try:
            with self.beside(context):
                yield context.trace
        except BaseException:
            with suppress(OmnisinkError):  # What went wrong in the block matters more.
                attachment.detach()
            raise
        attachment.detach()
        context.trace.raise_deferred()
