"""Which words mean what: words.toml, the names of metrics, and the names in a database; and how a text is divided into
the longest known phrases."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

from coupon_ledger.ledger import labels
from coupon_ledger.questions.metrics.definitions import METRICS
from coupon_ledger.questions.plain_words.readings import Vocabulary
from coupon_ledger.questions.plain_words.text import Token, distance, folded, plain, tokens

Phrase = tuple[str, ...]
_LONGEST: Final = 14
_MOST_VALUES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Meaning:
    """`role`: filler, marker, dimension, grain, comparison, order, event, unit, metric, preset, ask, value or refused.
    `value`: which one; for a `value`, a pair of dimension and value."""

    role: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Span:
    """A phrase in the text: tokens `first` to `last` (excluded), and what they may mean. Without meanings, it is one
    unknown token."""

    first: int
    last: int
    meanings: tuple[Meaning, ...]


@dataclass
class Lexicon:
    phrases: dict[Phrase, list[Meaning]] = field(default_factory=lambda: defaultdict(list))

    def add(self, text: str, role: str, value: Any = None) -> None:
        phrase = tuple(token.stem for token in tokens(folded(plain(text))))
        meaning = Meaning(role, value)
        if 0 < len(phrase) <= _LONGEST and meaning not in self.phrases[phrase]:
            self.phrases[phrase].append(meaning)

    def divided(self, words: Sequence[Token], breaks: frozenset[int] = frozenset()) -> list[Span]:
        """The text as spans: as few unknown tokens as possible, then as few spans. `breaks`: indexes of tokens before
        which no phrase continues."""
        best: list[tuple[int, int, Span | None]] = [(0, 0, None)]
        for end in range(1, len(words) + 1):
            unknown, count, _ = best[end - 1]
            choices = [(unknown + 1, count + 1, Span(end - 1, end, ()))]
            for start in range(end - 1, max(-1, end - 1 - _LONGEST), -1):
                if any(start < at < end for at in breaks):
                    break
                if meanings := self.phrases.get(tuple(word.stem for word in words[start:end])):
                    unknown, count, _ = best[start]
                    choices.append((unknown, count + 1, Span(start, end, tuple(meanings))))
            best.append(min(choices, key=lambda choice: choice[:2]))
        spans: list[Span] = []
        end = len(words)
        while end:
            span = best[end][2]
            assert span is not None
            spans.append(span)
            end = span.first
        return spans[::-1]

    @property
    def words(self) -> frozenset[str]:
        return frozenset(word for phrase in self.phrases for word in phrase if len(word) > 3 and word.isascii())


@cache
def words() -> Mapping[str, Any]:
    return tomllib.loads(files(__package__).joinpath("words.toml").read_text(encoding="utf-8"))


@cache
def _general() -> Lexicon:
    """The words that do not depend on a database."""
    lexicon, data = Lexicon(), words()
    for name, metric in METRICS.items():
        named = (metric.english, metric.chinese, name, name.replace("_", " "), name.removesuffix("_minor"))
        for text in (*named, *metric.synonyms, *data["metrics"].get(name, ())):
            lexicon.add(text, "metric", name)
    for table, role in (("events", "event"), ("units", "unit"), ("grains", "grain"), ("comparisons", "comparison"),
                        ("orders", "order"), ("markers", "marker"), ("dimensions", "dimension"),
                        ("refused", "refused")):  # fmt: skip
        for value, phrases in data[table].items():
            for text in phrases:
                lexicon.add(text, role, value)
    for table, role in (("presets", "preset"), ("asks", "ask")):
        for number, entry in enumerate(data[table]):
            for text in entry["phrases"]:
                lexicon.add(text, role, number)
    for name in ("channel", "store", "region", "segment", "campaign"):
        label = labels.fields().get(name)
        for text in (label.label.en, label.label.zh) if label else ():
            lexicon.add(text, "dimension", name)
    _add_filler(lexicon)
    return lexicon


def _add_filler(lexicon: Lexicon) -> None:
    for text in (*words()["filler"]["en"].split(), *words()["filler"]["zh"].split()):
        lexicon.add(text, "filler")


@cache
def single() -> Lexicon:
    """The words of questions about one coupon, order or user."""
    lexicon = Lexicon()
    for value, phrases in words()["single"].items():
        for text in phrases:
            lexicon.add(text, "single", value)
    for text in words()["markers"]["now"]:
        lexicon.add(text, "filler")
    _add_filler(lexicon)
    return lexicon


_LEXICONS: Final[dict[int, tuple[Vocabulary, Lexicon]]] = {}


def lexicon_of(vocabulary: Vocabulary) -> Lexicon:
    """All words, with the names of the vocabulary. The latest is kept, since many questions are asked of one
    vocabulary."""
    kept = _LEXICONS.get(id(vocabulary))
    if kept is None or kept[0] is not vocabulary:
        lexicon = Lexicon(defaultdict(list, {phrase: list(of) for phrase, of in _general().phrases.items()}))
        for name, value, text in _names(vocabulary):
            _add_name(lexicon, name, value, text)
        _LEXICONS.clear()
        kept = _LEXICONS[id(vocabulary)] = (vocabulary, lexicon)
    return kept[1]


def _names(vocabulary: Vocabulary) -> Iterable[tuple[str, str, str]]:
    """Dimension, value, and a text that stands for it."""
    for value, name in list(vocabulary.campaigns.items())[:_MOST_VALUES]:
        yield "campaign", value, value
        if name:
            yield "campaign", value, name
    for dimension, values in vocabulary.values.items():
        for value in values[:_MOST_VALUES]:
            yield dimension, value, value
            if dimension == "coupon_type" and (label := labels.of_code(value)):
                yield dimension, value, label.zh


def _add_name(lexicon: Lexicon, dimension: str, value: str, text: str) -> None:
    """Add a name by itself, unless it is short or a number, and together with the word for its dimension."""
    stems = [token.stem for token in tokens(folded(plain(text)))]
    meaning = (dimension, value)
    telling = len(stems) > 1 or (stems and not stems[0][0].isdigit() and (len(stems[0]) > 1 or not stems[0].isascii()))
    if telling and any(not stem[0].isdigit() for stem in stems):
        lexicon.add(text, "value", meaning)
    for word in words()["dimensions"][dimension]:
        lexicon.add(f"{word} {text}", "value", meaning)
        if not stems or len(stems[0]) > 2 or not stems[0].isdigit():  # "5 campaigns" is a number of campaigns
            lexicon.add(f"{text} {word}", "value", meaning)
    for word in {"campaign": ("campaign no", "campaign number", "活动号", "活动编号", "campaign id")}.get(
        dimension, ()
    ):
        lexicon.add(f"{word} {text}", "value", meaning)


def corrected(word: str, known: Iterable[str]) -> str | None:
    """The only known word that is as near to `word` as one mistype (two from eight letters on), with the same first
    letter; None if there is none, or several."""
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return None
    for most in (1, 2) if len(word) >= 7 else (1,):
        near = {one for one in known if one[0] == word[0] and distance(word, one, most) <= most}
        if near:
            return near.pop() if len(near) == 1 else None
    return None
