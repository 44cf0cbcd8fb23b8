"""Sentences for people: templates with values, and their Chinese translations.

Code that knows the facts creates a `Note`: an English template, and the values to insert. Code that knows the reader
turns the note into text in the reader's language, with amounts in major units and instants in the reader's time zone.
The file `words.toml` has the Chinese translation of every template; its keys are the templates.

In a template, `{name:kind}` is the place of a value. The kinds are `money` (a pair of minor units and currency),
`count`, `percent` (of a ratio), `bp`, `factor`, `p`, `instant`, `word` (a code) and `label` (a column or metric). A
value without a kind is a text, a number, a note, or a list of those. The kinds `s`, `are`, `have` and `were` stand for
an English noun ending or verb form that agrees with the number.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Any, Final

from coupon_ledger.ledger import amounts
from coupon_ledger.ledger.plain import instant


@cache
def catalogue() -> Mapping[str, str]:
    """The Chinese translation of every template, by template."""
    text = files(__package__).joinpath("words.toml").read_text(encoding="utf-8")
    return {template: chinese for part in tomllib.loads(text).values() for template, chinese in part.items()}


@dataclass(frozen=True)
class Note:
    """A sentence for people: a template, and the values to insert. `str(note)` is the sentence in English, with
    instants in UTC."""

    template: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return Speaker().say(self)

    def dumps(self) -> str:
        """The note as JSON text. `loads` restores the note from it."""
        return json.dumps(_plain(self), ensure_ascii=False)

    @staticmethod
    def loads(text: str) -> Note:
        note = _note(json.loads(text))
        assert isinstance(note, Note)
        return note


def note(template: str, /, **values: Any) -> Note:
    """Make a `Note` of a template and its values."""
    return Note(template, values)


def of_error(error: BaseException) -> Note:
    """The message of an error as a `Note`: the note with which the error was raised, otherwise a note with the error's
    text."""
    message = error.args[0] if error.args else None
    return message if isinstance(message, Note) else Note("{words}", {"words": str(error)})


def _plain(value: Any) -> Any:
    if isinstance(value, Note):
        return {"template": value.template, "values": {name: _plain(v) for name, v in value.values.items()}}
    if isinstance(value, datetime):
        return {"instant": instant(value)}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _note(value: Any) -> Any:
    if isinstance(value, list):
        return [_note(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "instant" in value:
        return datetime.fromisoformat(value["instant"].removesuffix("Z"))
    return Note(value["template"], {name: _note(v) for name, v in value["values"].items()})


def _utc(at: datetime) -> str:
    return f"{(at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)).isoformat()}Z"


@dataclass(frozen=True)
class Speaker:
    """Turns notes into text in the language `lang` (`en` or `zh`). `instant`, `word`, `label`: functions that return
    the text for an instant, for a code, and for the name of a column or metric."""

    lang: str = "en"
    instant: Callable[[datetime], str] = _utc
    word: Callable[[str], str] = str
    label: Callable[[str], str] = str

    def say(self, sentence: Note) -> str:
        pieces = []
        for literal, name, spec, _ in Formatter().parse(self._translated(sentence.template)):
            pieces.append(literal)
            if name is not None:
                pieces.append(self._value(sentence.values[name], spec or ""))
        return "".join(pieces)

    def _translated(self, text: str) -> str:
        return catalogue().get(text, text) if self.lang == "zh" else text

    def _units(self, amount: str) -> str:
        """Translate the English words in an amount. It contains words only if its currency has no known minor unit:
        "123,450 minor units"."""
        for words in ("minor units of", "minor units"):
            if words in amount:
                return amount.replace(words, self._translated(words))
        return amount

    def _value(self, value: Any, spec: str) -> str:
        if value is None:
            return amounts.NOTHING
        if isinstance(value, list | tuple) and spec != "money":
            return ("、" if self.lang == "zh" else ", ").join(self._value(one, spec) for one in value)
        if spec:
            return self._typed(spec, value)
        if isinstance(value, Note):
            return self.say(value)
        return self.instant(value) if isinstance(value, datetime) else str(value)

    def _typed(self, spec: str, value: Any) -> str:
        if spec == "money":
            minor, currency = value
            return self._units(amounts.money(minor, currency))
        if spec in GRAMMAR:
            return _AGREEING[spec][value != 1]
        written: dict[str, Callable[[Any], str]] = {
            "count": amounts.count,
            "percent": amounts.percent,
            "bp": amounts.percent_of_bp,
            "factor": lambda number: f"{number:,.2f}",
            "p": lambda p: f"{p:.3f}" if p >= 0.001 else self._translated("below 0.001"),
            "instant": self.instant,
            "word": self.word,
            "label": self.label,
        }
        return written[spec](value)


_AGREEING: Final = {"s": ("", "s"), "are": ("is", "are"), "have": ("has", "have"), "were": ("was", "were")}
"""English forms that agree with a number: singular and plural."""
GRAMMAR: Final = frozenset(_AGREEING)
"""Kinds that are not values but English grammar, which other languages leave out."""
TEMPLATE_KINDS: Final = GRAMMAR | frozenset("money count percent bp factor p instant word label".split())
