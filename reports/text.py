"""Texts on a terminal: without characters that control it, and how wide they are."""

from __future__ import annotations

from typing import Any
from unicodedata import east_asian_width

Row = dict[str, Any]


def printable(text: str) -> str:
    """The text with unprintable characters escaped, since a terminal would obey control characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def text_width(text: str) -> int:
    """The width of the text in columns of a terminal. Wide characters take two columns."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def middle_cut(text: str, width: int) -> str:
    """The text, without its middle if it is wider than `width` columns: ids often differ at their ends alone."""
    return text if text_width(text) <= width else f"{text[: (width - 1) // 2]}…{text[-(width // 2) :]}"
