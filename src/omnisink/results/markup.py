"""Text from data in Markdown, shown and not interpreted."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#!~&])")


def plain_markdown(text: object) -> str:
    """Return text that Markdown shows as it is, on one line: no link, picture, heading, HTML or cell of a table."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))
