"""Text for people: on one line, without what steers a terminal, and how wide it is."""

from __future__ import annotations

from typing import Any
from unicodedata import east_asian_width

Row = dict[str, Any]


def printable(text: str) -> str:
    """The text without what a terminal would obey: control characters in somebody's data are written out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def text_width(text: str) -> int:
    """Columns that the text takes on a terminal: two for wide characters."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)
