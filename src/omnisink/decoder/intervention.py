"""What a method may do while a decoder runs: the questions that it is asked, in their order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from omnisink.decoder.context import AttentionCall, Context


class Intervention(ABC):
    """What acts on a decoder while it runs: `omnisink.methods.base.Method` derives from it, and all methods from that.

    In each pass the questions come in the order in which they stand here; those from `residual_stream` to
    `head_output` come at every layer.
    """

    #: Whether `residual_stream` is called in passes that add one token to each sequence. A class that looks at prompts
    #: only says False, and no hook costs time there.
    watches_steps: ClassVar[bool] = True
    #: What it does in passes after the prompt: "nothing"; "by sequence", if it looks at what its state keeps for each
    #: sequence only; or "anything". Twins of a step that are run as one batch have to know.
    in_steps: ClassVar[str] = "anything"
    #: Whether `context.spans` is looked at: only then the ids that a model is called with are noted.
    needs_spans: ClassVar[bool] = False

    @abstractmethod
    def start_record(self, context: Context) -> Any:
        """Return a new record for the prefill `context.now`."""

    def begin(self, context: Context) -> None:
        """Prepare for the pass `context.now`, before its first layer. By default, do nothing."""

    def step(self, context: Context) -> Mapping[int, Callable[[Tensor], Tensor]] | None:
        """Return what head outputs (B, 1, H, D') go through in a pass that adds one token to each sequence, by layer.

        A layer that is missing keeps its own. This is asked where no gradient is wanted and `watches_steps` is False,
        and saves the host calls of `attention_input`, `attend` and `head_output` at every layer. By default None: they
        are made.
        """
        return None

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        """Look at the residual stream (B, S, d) entering a layer. By default, do nothing."""

    def can_skip_layer(self, layer: int, context: Context) -> bool:
        """Whether a layer need not run for this method's sake, now that its residual stream has been looked at.

        That is so where the method would neither change the layer's attention nor look at it in this prefill. By
        default, never. It is asked only where runs share layers (`omnisink.decoder.replay`), and may wait for the
        accelerator.
        """
        return False

    def attention_input(self, call: AttentionCall, context: Context) -> AttentionCall:
        """Return the queries, keys and values to attend with; a changed call is a new one. By default, the same."""
        return call

    def attend(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Answer the attention of a layer, in place of the model's own function, which is not run then.

        Returns
        -------
        Tensor or None
            Head outputs (B, S, H, D'), which go on to the `head_output` of every method; None, as by default, lets the
            model attend. One method at most may answer at a layer.
        """
        return None

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

    @abstractmethod
    def last_hidden_state(self, hidden: Tensor, context: Context) -> None:
        """Look at what left the decoder at the end of a pass, (B, S' <= S, d)."""
