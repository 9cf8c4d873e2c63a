"""Make strings and numbers from data sets safe to handle, once, before anything reads them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

#: The longest string that is shown. Pictures are not shown as text, and are kept whole.
LONGEST = 4_000
#: A picture is a data URI of a raster format, and nothing else that a browser would follow.
PICTURE = re.compile(r"data:image/(?:jpeg|png|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")
#: Read, written and drawn as they are. Every other control, format or surrogate character is spelled out.
_PLAIN = re.compile(r"[\t\n\x20-\x7e\xa0-\xac\xae-\u02ff]*")


def clean(value: Any) -> Any:
    """Return a copy of JSON-like results without anything that cannot be written or read by eye.

    Parameters
    ----------
    value : Any
        Mappings, sequences, strings, numbers, booleans and None, nested.

    Returns
    -------
    Any
        The same, with dicts and lists, with None for NaN and infinities, and with `clean_text` applied to strings.
    """
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean_text(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def clean_text(text: str) -> str:
    """Spell out code points that are invisible, reorder the line, or are not characters; cut very long text."""
    if text.startswith("data:image/") and PICTURE.fullmatch(text):
        return text
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    return text if _PLAIN.fullmatch(text) else "".join(map(_spelled, text))


def _spelled(character: str) -> str:
    if character in "\t\n" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn"}:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown_token(text: str, longest: int = 48) -> str:
    """Return a token's text in quotation marks, its white space visible, on one line."""
    text = text.replace("\n", "⏎").replace("\t", "⇥")
    return f"“{text if len(text) <= longest else text[: longest - 1] + '…'}”"
