"""The base class of adapters: what a family must define, and the defaults."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from omnisink.errors import OmnisinkError
from omnisink.media import Clip, FrameChoice, read_clip, read_image
from omnisink.models.adapters.counts import facts_of, grid_times
from omnisink.models.adapters.embedding import check_columns, given, placed
from omnisink.models.adapters.refusals import (
    media_tokens,
    named,
    refuse_long_picture,
    refuse_media_tokens,
    refuse_short_sound,
)
from omnisink.models.adapters.spans import Modality, Span, Unit, find_spans
from omnisink.models.context import check_context, check_length
from omnisink.models.templates import Message, write_parts, write_text
from omnisink.questions.prompt import Encoded, Facts, Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts


class Adapter(ABC):
    """How a family of models is asked about media.

    A subclass names its model types and says what differs from the defaults, which fit processors that take texts with
    placeholders and put the right number of tokens in their place. It keeps no state: every call is given the parts of
    the model. An adapter of another package is found through the entry point group ``omnisink.adapters``.
    """

    #: ``config.model_type`` of the models it is for.
    model_types: ClassVar[tuple[str, ...]]
    #: What the models take beside text.
    modalities: ClassVar[frozenset[Modality]] = frozenset({"image", "video"})
    #: The system message they were tuned with; None leaves it to the chat template.
    default_system: ClassVar[str | None] = None
    #: What stands for each modality in the text of a question, as ``{"video": "<video>"}``; empty where the chat
    #: template writes it. `process` finds it there.
    media_texts: ClassVar[Mapping[Modality, str]] = MappingProxyType({})
    #: Samples per second of the sound they hear.
    audio_rate: ClassVar[int] = 16_000
    #: Whether a checkpoint that takes media has the file of a processor in its folder.
    has_processor_file: ClassVar[bool] = True
    #: Whether media become tokens of the prompt. Where they do not, counts of media are 0 and all spans are of text.
    media_are_tokens: ClassVar[bool] = True

    def default_frames(self, parts: ModelParts) -> FrameChoice:
        """Return the rule by which the family picks frames of a video."""
        raise NotImplementedError

    def temporal_patch(self, parts: ModelParts) -> int:
        """Return how many frames make one temporal step of the video's tokens."""
        video_processor = getattr(parts.processor, "video_processor", None)
        return int(getattr(video_processor, "temporal_patch_size", None) or 1)

    def grid_times(self, parts: ModelParts, clip: Clip) -> list[tuple[float, float]]:
        """Return when each temporal step of the video's tokens begins and ends, in seconds."""
        return grid_times(clip, self.temporal_patch(parts))

    def placeholders(self, parts: ModelParts, prompt: Prompt) -> dict[int, Modality]:
        """Return the token ids that stand for media in a prompt, each with its modality."""
        from omnisink.decoder.spans import placeholder_ids  # Adapters are listed without importing torch.

        return placeholder_ids(parts.model.config)

    def audio_tokens(self, samples: int) -> int:
        """Return the number of audio tokens that this number of samples must become."""
        raise NotImplementedError

    def audio_tokens_in(self, media: Media) -> int:
        """Return the number of audio tokens of a prompt with these media, if its video has a say in it too."""
        return self.audio_tokens(len(media.samples))

    def audio_units(self, tokens: int, seconds: float) -> list[Unit]:
        """Return which seconds the audio tokens stand for, one unit a second where their rate is fixed."""
        return [(tokens, 0.0, seconds)]

    def content(self, prompt: Prompt, media: Media) -> list[dict[str, Any]]:
        """Return the user's message for the chat template: media first, then the text."""
        shown: list[dict[str, Any]] = []
        if prompt.video is not None:
            shown.append({"type": "video", "video": str(prompt.video)})
        if prompt.image is not None:
            shown.append({"type": "image", "image": str(prompt.image)})
        if prompt.sound is not None and not prompt.sound_of_video:
            shown.append({"type": "audio", "audio": str(prompt.sound)})
        text = prompt.text
        if self.media_texts:
            marks = "".join(self.media_texts.get(part["type"], "") + "\n" for part in shown)
            shown, text = [], text + "\n" + marks.rstrip("\n") if prompt.text_first else marks + text
        return [*shown, {"type": "text", "text": text}]

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Run the family's processor over a batch; returns a mapping of names to tensors.

        A model whose ids do not say which tokens are media, or how many, is given embeddings: return what
        `omnisink.models.adapters.embed_rows` makes.
        """
        raise NotImplementedError

    def extras(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Return what `generate` and `forward` want beside the processor's output."""
        return {}

    def generate_options(self, max_new_tokens: int) -> dict[str, Any]:
        """Return the options of a greedy answer. Sampling is turned off, since some families have it on."""
        return {
            "max_new_tokens": max_new_tokens,
            "do_sample": False,
            "num_beams": 1,
            "num_return_sequences": 1,
            "temperature": None,
            "top_p": None,
            "top_k": None,
        }

    def generate(self, parts: ModelParts, inputs: Mapping[str, Any], **options: Any) -> Any:
        """Generate, for models whose own `generate` takes other arguments; returns what it returns.

        Parameters
        ----------
        parts : ModelParts
            The model.
        inputs : mapping
            Result of `encode`.
        **options
            As transformers' `generate` takes them.

        Returns
        -------
        Tensor or ModelOutput
            (B, N) int64 ids: the new tokens, with the prompt's before them or not.
        """
        return parts.model.generate(**given(inputs), **options)

    def forward(self, parts: ModelParts, inputs: Mapping[str, Any], **options: Any) -> Any:
        """Run the model once over prompts, for models that take other arguments; returns an output with `logits`.

        Parameters
        ----------
        parts : ModelParts
            The model.
        inputs : mapping
            Result of `encode`, or token ids with their mask.
        **options
            As ``use_cache=False``.

        Returns
        -------
        ModelOutput
            Its `logits` are (B, S, V), with one position for each column of ``input_ids``.
        """
        return parts.model(**given(inputs), **options)

    # The rest is the same for all families.

    def read(self, parts: ModelParts, prompts: Sequence[Prompt]) -> list[Media]:
        """Read the files of a batch. Prompts about one file share what was read of it."""
        kept: dict[Any, Any] = {}

        def once(key: Any, make: Any) -> Any:
            if key not in kept:
                kept[key] = make()
            return kept[key]

        out = []
        for prompt in prompts:
            video = image = sound = None
            if prompt.video is not None:
                choice = prompt.frames or self.default_frames(parts)
                rate = self.audio_rate if prompt.sound_of_video else None
                key = ("video", prompt.video, choice, rate)
                video = once(key, lambda p=prompt.video, c=choice, r=rate: read_clip(p, frames=c, audio_rate=r))
                sound = video if prompt.sound_of_video else None
            if prompt.image is not None:
                image = once(("image", prompt.image), lambda p=prompt.image: read_image(p))
            if prompt.sound is not None and sound is None:
                rate = self.audio_rate
                sound = once(
                    ("sound", prompt.sound), lambda p=prompt.sound, r=rate: read_clip(p, frames=None, audio_rate=r)
                )
            picture, record = image or (None, None)
            for path, seen in ((prompt.image, picture), (prompt.video, None if video is None else video.frames[0])):
                if seen is not None:
                    refuse_long_picture(path, *seen.shape[:2])
            out.append(Media(video, picture, sound, record))
        return out

    def encode(self, parts: ModelParts, prompts: Sequence[Prompt], media: Sequence[Media] | None = None) -> Encoded:
        """Turn prompts into model inputs, padded on the left.

        Parameters
        ----------
        parts : ModelParts
            Model and processor.
        prompts : sequence of Prompt
            At least one.
        media : sequence of Media, optional
            Result of `read` for these prompts; None reads the files now.

        Returns
        -------
        Encoded
            Tensors on the model's device; pictures and spectrograms in its dtype.

        Raises
        ------
        MediaError
            If a file cannot be read, or a video whose sound is wanted has none.
        OmnisinkError
            If the model lacks a modality, the question quotes a placeholder of media, the prompt is longer than the
            model's context, or the question or the sound did not arrive in the prompt.
        """
        self._check(parts, prompts)
        media = self.read(parts, prompts) if media is None else media
        for prompt, read in zip(prompts, media, strict=True):
            if read.sound is not None and self.media_are_tokens:  # Before hours of sound become a spectrogram.
                tokens = self.audio_tokens(len(read.samples))
                refuse_short_sound(prompt.sound, len(read.samples), self.audio_rate, tokens)
                check_length(parts, tokens, "tokens of sound")
        texts = [self._text(parts, prompt, read) for prompt, read in zip(prompts, media, strict=True)]
        import torch

        with named(parts.name, prompts), torch.no_grad():  # A process may run towers.
            made = dict(self.process(parts, texts, prompts, media)) | self.extras(prompts)
        modalities = made.pop("modalities", None)
        if modalities is not None:
            check_columns(parts.name, made, modalities)
        encoded = Encoded(made, list(prompts), [], modalities)
        columns = self._modalities(parts, encoded)
        encoded.facts = [
            facts_of(self, parts, *one) for one in zip(prompts, media, columns, _masks(made), strict=True)
        ]
        check_context(parts, made)
        place = parts.model.device
        return encoded.with_data({name: placed(value, place, parts.model.dtype) for name, value in made.items()})

    def count_tokens(self, parts: ModelParts, prompt: Prompt) -> int:
        """Return how many tokens a prompt of text becomes, whether the model's context holds them or not.

        Parameters
        ----------
        parts : ModelParts
            Model and processor.
        prompt : Prompt
            Without media.

        Returns
        -------
        int
            Those of `encode`, with the chat template and the system message.

        Raises
        ------
        OmnisinkError
            If the question quotes a placeholder of media, or did not arrive in the prompt.
        """
        media = self.read(parts, [prompt])
        made = self.process(parts, [self._text(parts, prompt, media[0])], [prompt], media)
        return int(made["attention_mask"].sum())

    def spans(self, parts: ModelParts, inputs: Encoded) -> list[list[Span]]:
        """Cut every sequence into spans of text, image, video and audio.

        Parameters
        ----------
        parts : ModelParts
            Model and processor.
        inputs : Encoded
            Result of `encode`.

        Returns
        -------
        list of list of Span
            The spans of every sequence, in order.
        """
        rows = []
        columns = self._modalities(parts, inputs)
        for known, modalities, mask in zip(inputs.facts, columns, _masks(inputs), strict=True):
            units: dict[Modality, list[Unit]] = {"audio": self.audio_units(known.audio_tokens, known.audio_seconds)}
            if known.grid_times:
                units["video"] = self.video_units(known)
            rows.append(find_spans(modalities, mask, units))
        return rows

    def _modalities(self, parts: ModelParts, inputs: Encoded) -> list[list[Modality]]:
        """Return the modality of every token: what `process` said, or what ids say."""
        if inputs.modalities is not None:
            return inputs.modalities  # type: ignore[return-value]
        holders = [self.placeholders(parts, prompt) for prompt in inputs.prompts]
        ids = inputs["input_ids"].tolist()
        return [[known.get(i, "text") for i in row] for known, row in zip(holders, ids, strict=True)]

    def video_units(self, facts: Facts) -> list[Unit]:
        """Return which seconds the video tokens stand for: as many for every temporal step."""
        steps = len(facts.grid_times)
        each, over = divmod(facts.video_tokens, steps)
        return [
            (each + (over if i == steps - 1 else 0), begins, ends) for i, (begins, ends) in enumerate(facts.grid_times)
        ]

    def _check(self, parts: ModelParts, prompts: Sequence[Prompt]) -> None:
        tokens = media_tokens(parts) | frozenset(self.media_texts.values())
        for prompt in prompts:
            for modality, wanted in (("video", prompt.video), ("image", prompt.image), ("audio", prompt.sound)):
                if wanted is not None and modality not in self.modalities:
                    raise OmnisinkError(self.lacks(parts.name, modality))
            refuse_media_tokens(parts, prompt, tokens)

    def lacks(self, name: str, modality: str) -> str:
        """Say that a model of this family does not take a modality."""
        return f"{name} cannot {'hear' if modality == 'audio' else 'see'}: the family takes no {modality}"

    def _messages(self, parts: ModelParts, prompt: Prompt, media: Media) -> list[Message]:
        """Return the messages as content parts: the system message where there is one, and the question."""
        defaults = (prompt.system, parts.system, self.default_system)
        system = next((said for said in defaults if said is not None), None)
        content = self.content(prompt, media)
        if prompt.text_first:
            content.sort(key=lambda part: part["type"] != "text")
        messages = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        return messages

    def _text(self, parts: ModelParts, prompt: Prompt, media: Media) -> str:
        write = write_text if parts.processor is None else write_parts
        return write(parts, self._messages(parts, prompt, media)) + prompt.reply


def pictures(media: Sequence[Media]) -> list[Any]:
    """Return the images of a batch as Pillow has them, so that no processor guesses which side holds the colours.

    A picture of 1, 3 or 4 pixels in height would be taken for one with its colours first.
    """
    from PIL import Image

    return [Image.fromarray(m.image) for m in media if m.image is not None]


def _masks(inputs: Mapping[str, Any]) -> list[list[bool]]:
    return [[bool(real) for real in row] for row in inputs["attention_mask"].tolist()]
