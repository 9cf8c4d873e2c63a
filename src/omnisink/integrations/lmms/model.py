"""The models that lmms-eval runs: any model we can load, under one method, through our own reading of media."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from tqdm import tqdm

from omnisink.errors import OmnisinkError, reason
from omnisink.evaluation.running.batchsize import BatchSize, out_of_memory
from omnisink.evaluation.running.parts import Rank
from omnisink.integrations.lmms.messages import AUDIO, Messages, prompt_of, visual_message
from omnisink.integrations.lmms.settings import Generation, read_generation, read_method
from omnisink.media import Uniform
from omnisink.models.adapters.asking import answer, attached
from omnisink.models.adapters.registry import own_system
from omnisink.models.continuations import continuation_log_likelihoods
from omnisink.models.loading import load_model
from omnisink.questions.likelihood import token_log_likelihoods
from omnisink.questions.prompt import Encoded, Prompt

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Asked:
    """One request: its name for messages, its prompt, and how it is generated."""

    name: str
    prompt: Prompt
    generation: Generation
    continuation: tuple[int, ...] = ()

    @property
    def kind(self) -> tuple[Any, ...]:
        """Properties that the questions of a batch share."""
        return (*self.prompt.media, repr(self.generation), len(self.continuation))  # An option may be a list.


class OmnisinkChat(lmms):  # type: ignore[misc]
    """A model of omnisink's for lmms-eval's chat tasks.

    Parameters
    ----------
    pretrained : str
        Model as in `load_model`: ``"smolomni"``, a local folder, or a name on the Hub.
    method : str
        ``"baseline"``, ``"outro"``, ``"outro:rotate"``, ``"outro:random"``, ...; one at a time.
    gamma : float, optional
        Strength of the rotation; None is the model's default.
    tau : float
        Temperature of the rotation's gate.
    batch_size : int
        Questions at once; halved when memory runs out. lmms-eval gives it from ``--batch_size``.
    device : str, optional
        None is the CPU, and under a launcher of several processes each one's own accelerator. lmms-eval gives it from
        ``--device``.
    dtype, attn_implementation, revision, trust_remote_code, download
        As for `load_model`. Nothing is downloaded, and no code of a checkpoint is run, unless it is said here.
    frames : int, optional
        So many frames of each video, evenly spaced; None is the family's own rule.
    audio : {"always", "if-there", "never"}
        Use of the sound of videos; with ``"always"`` a video without sound is an error.

    Raises
    ------
    OmnisinkError
        If a setting is unknown or wrong, or the model cannot be loaded.
    """

    is_simple: ClassVar[bool] = False

    def __init__(
        self,
        pretrained: str = "smolomni",
        method: str = "baseline",
        gamma: float | None = None,
        tau: float = 0.1,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        frames: int | None = None,
        audio: str = "always",
        revision: str | None = None,
        trust_remote_code: bool = False,
        download: bool = False,
        max_batch_size: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise OmnisinkError(
                f"model_args: there is no setting {sorted(unknown)[0]!r}; docs/lmms-eval.md lists them"
            )
        if audio not in AUDIO:
            raise OmnisinkError(f"model_args: audio must be one of {', '.join(AUDIO)}, got {audio!r}")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise OmnisinkError(f"the batch size must be a positive number, got {batch_size!r}")
        for name, value in (("trust_remote_code", trust_remote_code), ("download", download)):
            if not isinstance(value, bool):  # The text "False" would be taken for true.
                raise OmnisinkError(f"model_args: {name} must be True or False, got {value!r}")
        self.method = read_method(method, str(pretrained), gamma, tau)
        self.frames = None if frames is None else Uniform(int(frames))
        self.audio = audio
        self._size = BatchSize(int(batch_size))
        place = Rank.of_environment()
        self._rank, self._world_size = place.rank, place.world
        self.loaded = load_model(
            str(pretrained),
            device=place.device(device),
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            revision=None if revision is None else str(revision),
            download=download,
        )

    @property
    def device(self) -> torch.device:
        """Device of the model; lmms-eval gathers counts there."""
        return torch.device(self.loaded.model.device)

    @property
    def batch_size(self) -> int:
        """Questions at once."""
        return self._size.size

    def clean(self) -> None:
        """Let the model go, as lmms-eval asks before it may start a judge."""
        if hasattr(self, "loaded"):
            del self.loaded
        super().clean()

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answer requests.

        Parameters
        ----------
        requests : sequence of lmms_eval.api.instance.Instance
            Requests of chat tasks.

        Returns
        -------
        list of GenerationResult
            Texts without special tokens and white space at their ends, with numbers of tokens.

        Raises
        ------
        OmnisinkError
            If one cannot be asked; the message names it. An error is never an empty answer.
        """
        with _Pictures() as store:
            return self._each(self._asked(requests, store), self._answer)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: chat tasks of lmms-eval have no likelihoods; `OmnisinkSimple` has them."""
        raise OmnisinkError("lmms-eval asks chat models for no likelihoods: add --force_simple")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse tasks of several rounds."""
        raise OmnisinkError("omnisink answers one question of one turn: tasks of several rounds cannot be run with it")

    def _asked(self, requests: Sequence[Any], store: Callable[[Any], Path]) -> list[_Asked]:
        asked = []
        for request in requests:
            _, to_messages, generation, doc_id, task, split = request.args
            name = f"{task}, question {doc_id}"
            write = partial(to_messages, self.task_dict[task][split][doc_id])
            asked.append(_Asked(name, self._prompt(name, write, store), read_generation(generation or {})))
        return asked

    def _prompt(self, name: str, write: Callable[[], Messages], store: Callable[[Any], Path]) -> Prompt:
        """Write messages and turn them into a prompt; an error names the question."""
        hears = "audio" in self.loaded.adapter.modalities
        try:
            prompt = prompt_of(write(), hears=hears, audio=self.audio, frames=self.frames, store=store)
            return replace(prompt, system=own_system(self.loaded.adapter, prompt.system))
        except OmnisinkError as error:
            raise OmnisinkError(f"{name}: {error}") from None

    def _each(
        self, asked: Sequence[_Asked], work: Callable[[Sequence[_Asked], Encoded], list[Result]]
    ) -> list[Result]:
        """Work through requests in batches of one kind; the results are in the order of the requests."""
        kinds: dict[tuple[Any, ...], list[int]] = {}
        for i, one in enumerate(asked):
            kinds.setdefault(one.kind, []).append(i)
        found: dict[int, Result] = {}
        with tqdm(total=len(asked), desc="omnisink", disable=self.rank != 0) as bar:
            for left in kinds.values():
                while left:
                    part = left[: self._size.size]
                    results = self._batch([asked[i] for i in part], work)
                    if results is not None:
                        found.update(zip(part, results, strict=True))
                        left = left[len(part) :]
                        bar.update(len(part))
        return [found[i] for i in range(len(asked))]

    def _batch(
        self, batch: Sequence[_Asked], work: Callable[[Sequence[_Asked], Encoded], list[Result]]
    ) -> list[Result] | None:
        """Return the results of a batch; None where it did not fit in memory and a smaller one may."""
        try:
            return work(batch, self.loaded.adapter.encode(self.loaded, [one.prompt for one in batch]))
        except Exception as error:
            if not (out_of_memory(error) and len(batch) > 1):
                names = batch[0].name if len(batch) == 1 else f"{batch[0].name} and {len(batch) - 1} more"
                raise OmnisinkError(f"{names}: {reason(error)}") from error
        # Here, unlike inside, nothing holds on to the tensors of the batch.
        self._size.too_large(len(batch))
        return None

    def _answer(self, batch: Sequence[_Asked], inputs: Encoded) -> list[GenerationResult]:
        how = batch[0].generation
        said = answer(self.loaded, inputs, max_new_tokens=how.max_new_tokens, method=self.method, **dict(how.options))
        return [
            GenerationResult(how.cut(got.text), TokenCounts(got.facts.prompt_tokens, got.new_tokens)) for got in said
        ]


class OmnisinkSimple(OmnisinkChat):
    """The same for lmms-eval's simple tasks, which give files and a text, and ask for likelihoods too."""

    is_simple: ClassVar[bool] = True

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return how likely continuations are.

        Parameters
        ----------
        requests : sequence of lmms_eval.api.instance.Instance
            With a context, a continuation and files.

        Returns
        -------
        list of (float, bool)
            Log-likelihood of all tokens of the continuation in nats, and whether each was the likeliest. They are
            scored one by one, as they would be generated: no sink sees the continuation beforehand.

        Raises
        ------
        OmnisinkError
            If one cannot be asked, or its continuation shares a token with the prompt.
        """
        with _Pictures() as store:
            asked = []
            for request in requests:
                continuation = request.args[1]
                name, prompt, doc = self._simple(request, store)
                text = continuation(doc) if callable(continuation) else continuation
                tokens = self.loaded.tokenizer.encode(str(text), add_special_tokens=False)
                asked.append(_Asked(name, replace(prompt, reply=str(text)), Generation(1), tuple(tokens)))
            return self._each(asked, self._likelihoods)

    def _asked(self, requests: Sequence[Any], store: Callable[[Any], Path]) -> list[_Asked]:
        asked = []
        for request in requests:
            name, prompt, _ = self._simple(request, store)
            asked.append(_Asked(name, prompt, read_generation(request.args[1] or {})))
        return asked

    def _simple(self, request: Any, store: Callable[[Any], Path]) -> tuple[str, Prompt, Any]:
        """Return a request's name, its prompt, and the row of the dataset."""
        context, _, to_visuals, doc_id, task, split = request.args
        doc, name = self.task_dict[task][split][doc_id], f"{task}, question {doc_id}"
        visuals = to_visuals(doc) if to_visuals else None
        return name, self._prompt(name, lambda: visual_message(visuals or [], context), store), doc

    def _likelihoods(self, batch: Sequence[_Asked], inputs: Encoded) -> list[tuple[float, bool]]:
        for one, row in zip(batch, inputs["input_ids"].tolist(), strict=True):
            count = len(one.continuation)
            if not count or tuple(row[-count:]) != one.continuation:
                raise OmnisinkError(
                    f"{one.name}: {one.prompt.reply!r} does not begin at a token of its own after the prompt"
                )
        prompts = inputs.without_last(len(batch[0].continuation))
        with torch.inference_mode(), attached(self.method, self.loaded, prompts):
            rows = continuation_log_likelihoods(self.loaded, prompts, [one.continuation for one in batch])
        found = []
        for row, one in zip(rows, batch, strict=True):
            wanted = torch.tensor(one.continuation, device=row.device)
            likely = bool((row.argmax(dim=1) == wanted).all())
            found.append((float(token_log_likelihoods(row, wanted).sum()), likely))
        return found


class _Pictures:
    """Pictures that lmms-eval holds in memory, as files that last as long as the requests."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="omnisink-")
        self._count = 0

    def __enter__(self) -> Callable[[Any], Path]:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def _store(self, picture: Any) -> Path:
        path = Path(self._folder.name) / f"{self._count}.png"
        self._count += 1
        picture.convert("RGB").save(path)
        return path
