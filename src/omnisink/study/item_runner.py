"""One item in front of a model: encoded once, and answered again and again, each time with one thing changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy, read_anatomy
from omnisink.decoder.replay import replay
from omnisink.decoder.replay.tape import Tape
from omnisink.decoder.spans import masks_of_spans
from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.block_records import Record
from omnisink.methods.modality import label_tokens
from omnisink.methods.trace import Trace
from omnisink.models.adapters.asking import spans_for
from omnisink.models.adapters.spans import Span
from omnisink.models.context import check_context
from omnisink.models.last_rows import last_log_likelihoods, last_rows
from omnisink.models.loaded import Loaded
from omnisink.questions.items import Item, parse_answer
from omnisink.questions.likelihood import answer_log_likelihoods, spellings, token_log_likelihoods
from omnisink.results.schema import ItemOutcome


@dataclass(frozen=True)
class Outcome:
    """The outcome of an item in one run of the model.

    Attributes
    ----------
    loss : float
        Nats: of the right answer, or the mean over the tokens of a passage.
    right : bool or None
        Whether the likeliest answer is the right one; None for a passage.
    said : str
        The likeliest answer; empty for a passage.
    recorded : Record or None
        What the last method left in its record; None without methods.
    tempered : list of float or None
        Losses with the logits times each of the inverse temperatures that were asked for; None for a question.
    """

    loss: float
    right: bool | None
    said: str
    recorded: Record | None = None
    tempered: list[float] | None = None

    def record(self) -> ItemOutcome:
        """Return what a record holds of the outcome."""
        return {"loss": self.loss, "right": self.right, "said": self.said}


class ItemRunner:
    """An item, encoded, whose first run is kept so that later runs may begin at any layer.

    Attributes
    ----------
    loaded : Loaded
        The model.
    item : Item
        The question or passage.
    inputs : dict
        What the model takes, the right answer's tokens but the last included.
    base : Outcome
        Outcome of the baseline.
    spans : list of Span
        Which tokens are text, video and audio.
    """

    def __init__(self, loaded: Loaded, anatomy: Anatomy, item: Item, tape: Tape) -> None:
        self.loaded, self.anatomy, self.item = loaded, anatomy, item
        self._tape = tape
        encoded = _encode(loaded, item)
        self.facts = encoded.facts[0] if hasattr(encoded, "facts") else None
        self.prompt_length = int(encoded["input_ids"].shape[1])
        whole = [Span("text", 0, self.prompt_length)]
        self.spans: list[Span] = loaded.spans(encoded)[0] if self.facts is not None else whole
        self._gold = _gold(loaded, item)
        self.inputs = _with_answer(loaded, dict(encoded), self._gold[0][:-1])
        self.length = int(self.inputs["input_ids"].shape[1])
        if self.length > self.prompt_length:
            self.spans.append(Span("text", self.prompt_length, self.length))
        self.base = self._run((), None)

    def run(self, *methods: Method, start: int | None = 0, betas: Sequence[float] = ()) -> Outcome:
        """Run the item with methods attached.

        Parameters
        ----------
        *methods : Method
            In the order in which they act.
        start : int or None
            The first layer at which any of them can change something; what comes before it is not run again. None is
            nowhere: the outcome is the baseline's.
        betas : sequence of float
            Inverse temperatures, each of which gives a passage a loss of its own.

        Returns
        -------
        Outcome
            With what the last method left in its record.
        """
        if start is None or not methods:
            # What is kept of the first run is its loss; for others its last layer gives the logits again.
            return self._run((), len(self.anatomy.layers) - 1, betas) if betas else self.base
        return self._run(methods, start, betas)

    def _run(self, methods: Sequence[Method], start: int | None, betas: Sequence[float] = ()) -> Outcome:
        kept = None if self.item.passage is not None else len(self._gold[0])
        with torch.inference_mode(), ExitStack() as stack:
            if start is not None:
                stack.enter_context(self._tape.from_layer(start))
            traces = [stack.enter_context(self._attached(method)) for method in methods]
            log_likelihoods = last_log_likelihoods(self.loaded, self.inputs, kept)[0]
        return self._score(log_likelihoods, traces[-1].record if traces else None, betas)

    def _attached(self, method: Method) -> AbstractContextManager[Trace]:
        if not method.needs_spans or self.facts is None:
            return method(self.loaded)
        return method(self.loaded, spans=spans_for(self.loaded, [self.spans], self.length))

    def _score(self, log_likelihoods: Tensor, recorded: Record | None, betas: Sequence[float]) -> Outcome:
        if self.item.passage is not None:
            rows = log_likelihoods[:-1]
            likelihoods = token_log_likelihoods(rows, self.inputs["input_ids"][0, 1:])
            tempered = [float(((rows * beta).logsumexp(dim=-1) - beta * likelihoods).mean()) for beta in betas]
            return Outcome(float(-likelihoods.mean()), None, "", recorded, tempered)
        tokens, spelled = self._gold
        likeliest = log_likelihoods.argmax(dim=-1)
        said = self.loaded.tokenizer.decode(likeliest, skip_special_tokens=True).strip()
        if len(tokens) > 1:
            loss = float(-token_log_likelihoods(log_likelihoods[-len(tokens) :], torch.tensor(tokens)).mean())
            return Outcome(loss, likeliest.tolist() == tokens, said, recorded)
        loss = -answer_log_likelihoods(log_likelihoods[-1], {self.item.answer: spelled})[self.item.answer]
        return Outcome(loss, parse_answer(said, self.item) == self.item.answer, said, recorded)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Make a block in which the model may be run on `inputs` without its towers and without most of its logits."""
        with self._tape.from_layer(0), last_rows(self.loaded.model, 1):
            yield

    def residual(self, layer: int) -> Tensor:
        """Return the residual stream (S, d) that entered a layer in the first run."""
        return self._tape.residual(layer)[0]

    def sets(self) -> dict[str, Tensor]:
        """Return the tokens of every modality of the prompt, (1, S) bool by name."""
        return masks_of_spans([self.spans], self.length)

    def tokens(self) -> list[str]:
        """Return the text of every token, and of a picture's or a sound's what it stands for."""
        texts = [self.loaded.tokenizer.decode([i]) for i in self.inputs["input_ids"][0].tolist()]
        return label_tokens(texts, self.spans)


@contextmanager
def item_runner(loaded: Loaded, item: Item) -> Iterator[ItemRunner]:
    """Encode an item and run it once.

    Parameters
    ----------
    loaded : Loaded
        The model.
    item : Item
        A question or a passage.

    Yields
    ------
    ItemRunner
        Usable in the block.

    Raises
    ------
    OmnisinkError
        If the item cannot be encoded, or its model's layers cannot be replayed.
    """
    anatomy = read_anatomy(loaded.model)
    with replay(anatomy) as tape:
        yield ItemRunner(loaded, anatomy, item, tape)


def _encode(loaded: Loaded, item: Item) -> Any:
    if item.passage is not None:
        made = loaded.tokenizer(item.passage, return_tensors="pt")
        if made["input_ids"].shape[1] < 2:
            raise OmnisinkError(f"item {item.id}: a passage needs two tokens at least")
        check_context(loaded, made)
        return {name: made[name].to(loaded.model.device) for name in ("input_ids", "attention_mask")}
    return loaded.inputs(
        item.question, video=item.video, audio=item.audio, image=item.image, choices=item.choices or None
    )


def _gold(loaded: Loaded, item: Item) -> tuple[list[int], list[int]]:
    """Return the tokens of the right answer, and where that is one, every way to spell it in one token."""
    if item.passage is not None:
        return [], []
    tokens = list(loaded.tokenizer.encode(item.answer, add_special_tokens=False))
    own = tokens if len(tokens) == 1 else []
    return tokens, sorted({*own, *spellings(loaded.tokenizer, item.answer)})


def _with_answer(loaded: Loaded, inputs: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """Append tokens to a prompt; whatever else has one entry for each token says "text" of them."""
    if not tokens:
        return inputs
    ids = inputs["input_ids"]
    more = torch.tensor([tokens], dtype=ids.dtype, device=ids.device)
    grown = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == ids.shape:
            fill = torch.ones_like(more) if name == "attention_mask" else torch.zeros_like(more)
            grown[name] = torch.cat([value, more if name == "input_ids" else fill.to(value.dtype)], dim=1)
    if (embeds := inputs.get("inputs_embeds")) is not None:
        with torch.no_grad():
            embedded = loaded.model.get_input_embeddings()(more.to(embeds.device))
        grown["inputs_embeds"] = torch.cat([embeds, embedded.to(embeds.dtype)], dim=1)
    return grown
