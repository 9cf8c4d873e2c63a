"""What `generate` of transformers must see of a port: the names that it takes, and where its prompt ends."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

_Forward = TypeVar("_Forward", bound=Callable[..., Any])


def extends(original: Callable[..., Any]) -> Callable[[_Forward], _Forward]:
    """Give a forward pass the parameters of the one that it hands its options to, beside its own.

    `generate` counts positions, and leaves out the logits of a prompt, only where it finds the names for that.

    Parameters
    ----------
    original : callable
        The forward pass that is extended.

    Returns
    -------
    callable
        A decorator. What it decorates takes `input_ids` first, and the rest by name.
    """

    def decorate(forward: _Forward) -> _Forward:
        own = signature(forward).parameters
        taken = {**signature(original).parameters, **own}
        first = [own[name] for name in ("self", "input_ids")]
        named = [
            one.replace(kind=Parameter.KEYWORD_ONLY)
            for name, one in taken.items()
            if name not in ("self", "input_ids") and one.kind is not Parameter.VAR_KEYWORD
        ]
        rest = [one for one in own.values() if one.kind is Parameter.VAR_KEYWORD]
        forward.__signature__ = Signature([*first, *named, *rest])  # type: ignore[attr-defined]
        return forward

    return decorate


class PenaltyOnNewTokens:
    """A repetition penalty that looks at new tokens only, as in releases that give `generate` embeddings."""

    def _get_logits_processor(self, *values: Any, **named: Any) -> Any:
        made = super()._get_logits_processor(*values, **named)  # type: ignore[misc]
        length = named.get("input_ids_seq_length", values[1] if len(values) > 1 else None)
        for one in made:
            if hasattr(one, "prompt_ignore_length"):
                one.prompt_ignore_length = length
        return made


#: The chat template of the video-SALMONN 2 models, with the system message that the releases always write.
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
