"""Text for people: printable on one line, and how wide it is on a terminal."""

from __future__ import annotations

from typing import Any
from unicodedata import east_asian_width

Row = dict[str, Any]


def printable(text: str) -> str:
    """Escape characters that are not printable, such as control characters, which a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def text_width(text: str) -> int:
    """The text's width in terminal columns; wide characters take two."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)
