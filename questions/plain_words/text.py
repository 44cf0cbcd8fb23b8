"""The text of a question, folded for matching: width, case, control characters, words and Chinese characters."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

MOST_CHARACTERS: Final = 400
_TOKEN: Final = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)?|[^\W_]")
_STEMS: Final = {"lost": "lose", "losing": "lose", "men": "man", "people": "person"}
_SPACES: Final = {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "～": "~"}


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number or Chinese character (`text`). `stem`: what is compared.
    `start`, `end`: its place in the folded text."""

    text: str
    stem: str
    start: int
    end: int


def plain(text: str) -> str:
    """The text with compatible characters unified, and control characters as spaces. Case is kept, since ids need
    it."""
    unified = unicodedata.normalize("NFKC", text[: 4 * MOST_CHARACTERS])
    return "".join(_SPACES.get(c, " " if unicodedata.category(c)[0] in "CZ" else c) for c in unified)


def folded(text: str) -> str:
    """The result of `plain` in lower case, with the same length, so that places in one are places in the other."""
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def tokens(text: str) -> list[Token]:
    """The words of a folded text. Punctuation is left out."""
    return [Token(m[0], stem(m[0]), m.start(), m.end()) for m in _TOKEN.finditer(text)]


def stem(word: str) -> str:
    """The word without the ending of a plural."""
    if word in _STEMS:
        return _STEMS[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("sses"):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word


def distance(one: str, other: str, most: int) -> int:
    """The number of insertions, deletions, replacements and exchanges of neighbours from one word to the other; more
    than `most` is returned as `most + 1` (optimal string alignment)."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                row[j] = min(row[j], earlier[j - 2] + 1)
        if min(row) > most:
            return most + 1
    return row[-1]
