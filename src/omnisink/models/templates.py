"""Messages to prompt text by a checkpoint's chat template, and the proof that the question is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.models.parts import ModelParts
from omnisink.models.template_limits import is_plain, write_limited

#: A message: ``{"role": ..., "content": [{"type": "text", "text": ...}, ...]}``.
Message = dict[str, Any]

#: A content part as Python or JSON prints it: what a template for text makes of a list of parts.
_PRINTED_PART = re.compile(r"""\[\{\s*['"]type['"]\s*:""")


def write_parts(parts: ModelParts, messages: Sequence[Message]) -> str:
    """Write messages with a multimodal checkpoint's chat template, up to where the answer begins.

    Parameters
    ----------
    parts : ModelParts
        With a processor; where it has no template of its own, the tokenizer's is used.
    messages : sequence of dict
        With content parts.

    Returns
    -------
    str
        The prompt, with every text of the messages in it.

    Raises
    ------
    OmnisinkError
        If there is no template, or it refuses the messages, prints the parts as a list, or leaves a text out.
    """
    own = getattr(parts.processor, "chat_template", None)
    lent = getattr(parts.tokenizer, "chat_template", None)
    if not own and not lent:
        raise OmnisinkError(f"{parts.name} has no chat template for questions about media")
    return _write(parts, parts.processor, messages, messages, {} if own else {"chat_template": lent})


def write_text(parts: ModelParts, messages: Sequence[Message]) -> str:
    """Write messages of text with a text model's chat template, which takes plain strings.

    Without a template the texts follow one another, with an empty line between them.

    Parameters
    ----------
    parts : ModelParts
        With a tokenizer.
    messages : sequence of dict
        With content parts, all of them text.

    Returns
    -------
    str
        The prompt, with every text of the messages in it.

    Raises
    ------
    OmnisinkError
        If the template refuses the messages, most often because it knows no system message, or leaves a text out.
    """
    if not getattr(parts.tokenizer, "chat_template", None):
        return "\n\n".join(_texts(messages))
    plain = [{**message, "content": "\n".join(_texts([message]))} for message in messages]
    return _write(parts, parts.tokenizer, messages, plain, {})


def _write(
    parts: ModelParts, writer: Any, messages: Sequence[Message], given: Sequence[Message], options: dict[str, Any]
) -> str:
    def work() -> str:
        return str(writer.apply_chat_template(list(given), add_generation_prompt=True, tokenize=False, **options))

    try:
        # Beside what Jinja raises itself, a template can divide by zero or include a file that is not there.
        written = (
            work()
            if _is_harmless(options.get("chat_template", writer.chat_template))
            else write_limited(work, parts.name)
        )
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OmnisinkError(f"the chat template of {parts.name} refuses these messages: {reason}") from error
    texts = [text.strip() for text in _texts(messages)]
    if _PRINTED_PART.search(written) and not any(map(_PRINTED_PART.search, texts)):
        raise OmnisinkError(
            f"the chat template of {parts.name} is for text only: it prints the parts of a question as a list. "
            "Save the checkpoint with the processor's own chat template"
        )
    if lost := next((text for text in texts if text not in written), None):
        raise OmnisinkError(
            f"the chat template of {parts.name} leaves out what is asked: {lost[:60]!r} is not in the prompt it writes"
        )
    return written


def _is_harmless(template: Any) -> bool:
    """Tell whether a template, or every one of several with names, is plain."""
    named = template.values() if isinstance(template, dict) else [template]
    return all(isinstance(one, str) and is_plain(one) for one in named)


def _texts(messages: Sequence[Message]) -> list[str]:
    """Return the texts of messages, in order."""
    return [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
