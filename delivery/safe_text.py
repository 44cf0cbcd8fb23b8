"""Text from outside (names of campaigns, ids of devices) made harmless before it is put into a message.

Whoever publishes events chooses these texts, so they may try to forge links, mentions, markup or headers. No escaping
works in all destinations; characters that mean something to some of them are replaced by their full-width forms, which
look the same to readers and mean nothing to machines.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "•••"
"""What stands in place of personal data."""

_EVERYWHERE: Final = str.maketrans({"<": "＜", ">": "＞", "@": "＠"})
"""Tags and mentions."""
_IN_MARKDOWN: Final = str.maketrans(dict(zip("*[]()`#!|~\\&", "＊［］（）｀＃！｜～＼＆", strict=True)))
_EDGE_OF_WORD: Final = re.compile(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
"""Underscores that would begin or end emphasis. Those within a word, as in most ids, mean nothing."""
_SCHEME: Final = re.compile(r"://")
_WWW: Final = re.compile(r"\bwww\.", re.IGNORECASE)
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of Unicode: control characters, directions of writing, line separators, and what is no character."""


def one_line(text: str) -> str:
    """The text on one line, without characters that cannot be seen."""
    visible = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text)
    return " ".join(visible.split())


def harmless(text: str, *, links: bool = False) -> str:
    """The text on one line, without tags, mentions, and (unless `links`) addresses of the web."""
    text = one_line(text).translate(_EVERYWHERE)
    return text if links else _WWW.sub("www．", _SCHEME.sub("：//", text))


def plain_markdown(text: str) -> str:
    """Harmless text for a place in Markdown where it must stand as it is."""
    return _EDGE_OF_WORD.sub("＿", text.translate(_IN_MARKDOWN))


def shortened(text: str, most: int) -> str:
    """The first `most` characters of the text, the last of them an ellipsis if more followed."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def without(text: str, values: Iterable[str]) -> str:
    """The text with `HIDDEN` instead of each of the values, in whatever case. Both must be on one line (`one_line`).

    A value of one or two characters is replaced where it stands alone, not within a longer word or number.
    """
    # Some letters become two when they change their case, which `IGNORECASE` does not know.
    forms = {form for v in values if v for form in (v, v.upper(), v.lower())}
    for value in sorted(forms, key=len, reverse=True):
        pattern = re.escape(value)
        if len(value) < 3:
            pattern = rf"(?<![0-9A-Za-z]){pattern}(?![0-9A-Za-z])"
        text = re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)
    return text
