"""The texts of alerts: templates with the fields of an alert, and how their values are written for people.

A template has places `{name}` and `{name:format}`; `{{` and `}}` are braces. Names and formats are those of
`template_fields.py`, and nothing else is evaluated: no attributes, no indexes, no expressions. A value that an alert
does not have is written as a dash. Rendering never fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from coupon_ledger.ledger import amounts, labels
from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.labels import Label
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.words import Note, catalogue, note
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.template_fields import (
    ALSO,
    LABELS,
    TemplateField,
    fields_of,
    key_labels,
    measured,
)

HIDDEN: Final = "•••"
_LONGEST: Final = 200
_MOST: Final = 5
GENERIC: Final = "{rule}: {value} (threshold {threshold}); {key}; since {since}"
"""The summary of a rule without annotations."""


# --- reading templates


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a template. `format`: empty if the template names none."""

    name: str
    format: str


class BadTemplate(ValueError):
    """The text is no template. `said`: why, and what to write."""

    def __init__(self, said: Note) -> None:
        self.said = said
        super().__init__(str(said))


_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_PLACE: Final = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)(?::([a-z]+))?")


@lru_cache(maxsize=4_096)
def parse(template: str) -> tuple[str | Place, ...]:
    """The template as texts and places. Raises `BadTemplate` if braces do not match, or if a place is no `{name}` or
    `{name:format}`."""
    return tuple(map(_piece, _PIECE.finditer(template)))


def _piece(match: re.Match[str]) -> str | Place:
    piece = match[0]
    if piece in ("{{", "}}"):
        return piece[0]
    if piece in ("{", "}"):
        said = note("has a brace {brace} without its other half; write {twice} for a brace", brace=piece,
                    twice=piece * 2)  # fmt: skip
        raise BadTemplate(said)
    if match[1] is None:
        return piece
    if place := _PLACE.fullmatch(match[1]):
        return Place(place[1], place[2] or "")
    raise BadTemplate(
        note("has the place {place}; write the name of a field, or name:format, in braces", place=piece[:60])
    )


def problems(template: str, known: Mapping[str, TemplateField] | None, unit: str | None) -> list[Note]:
    """What is wrong with a template, each with what to write. `known`: the fields that it may name; None: any. `unit`:
    how the rule's values are written; None: anyhow."""
    found = []
    places: dict[Place, None] = {}
    for match in _PIECE.finditer(template):
        try:
            piece = _piece(match)
        except BadTemplate as bad:
            found.append(bad.said)
        else:
            places |= {piece: None} if isinstance(piece, Place) else {}
    for place in places:
        if known is None:
            break
        if place.name not in known:
            found.append(_unknown(place.name, known))
        elif place.format:
            found += _misfit(place, known[place.name], unit)
    return found


def _unknown(name: str, known: Mapping[str, TemplateField]) -> Note:
    near = alike([name[:60]], known)[:1]
    if near:
        return note("has no field {name} in alerts of this rule; did you mean {near}?", name=name[:60], near=near)
    return note("has no field {name} in alerts of this rule; there are {known}", name=name[:60], known=sorted(known))


def _misfit(place: Place, field: TemplateField, unit: str | None) -> list[Note]:
    own = unit if field.format == "measured" else field.format
    if own is None:
        return []
    fitting = _FITTING.get(own, (own, "text"))
    if place.format in fitting:
        return []
    return [
        note(
            "writes {name} as {format}; this field takes {formats}",
            name=place.name,
            format=place.format,
            formats=fitting,
        )
    ]


_FITTING: Final[Mapping[str, tuple[str, ...]]] = {
    "count": ("count", "number", "text"),
    "number": ("number", "count", "percent", "text"),
    "percent": ("percent", "number", "text"),
    "text": ("text",),
}
"""By the format of a field's values, the formats that a template may name; for others, that one and `text`."""


def is_personal(template: str, rule: Rule) -> bool:
    """Whether the template has a field that can be personal data."""
    known = fields_of(rule)
    return any(known[p.name].personal for p in parse(template) if isinstance(p, Place) and p.name in known)


# --- writing values


@dataclass(frozen=True)
class Reader:
    """For whom a text is written: the language `lang` (`en` or `zh`), and functions that write an instant in the
    reader's zone, and a code or metric in words (None: the labels of codes). `personal`: whether the reader may see
    personal data; otherwise, asterisks stand in their place."""

    lang: str = "en"
    instant: Callable[[datetime], str] = instant
    word: Callable[[str], str] | None = None
    personal: bool = True


def render(template: str, rule: Rule, values: Mapping[str, Any], reader: Reader = Reader()) -> str:
    """The text of a template. `values`: by field; money as (minor units, currency), lengths of time as timedelta or
    seconds, instants as datetime, `top` as pairs of text and number. A text that is no template is returned as it is.
    """
    try:
        pieces = parse(template)
    except BadTemplate:
        return template
    known = fields_of(rule)
    return "".join(p if isinstance(p, str) else _written(p, known, rule, values, reader) for p in pieces)


def summary(rule: Rule, lang: str) -> str:
    """The template of the rule's summary in this language, otherwise in the other one, otherwise `GENERIC`."""
    texts = rule.annotations.get("zh" if lang == "zh" else "en") or next(iter(rule.annotations.values()), None)
    if texts:
        return texts.summary
    return catalogue()[GENERIC] if lang == "zh" else GENERIC


def description(rule: Rule, lang: str) -> str | None:
    """The template of the rule's description, in this language if possible; None if it has none."""
    own = rule.annotations.get("zh" if lang == "zh" else "en")
    texts = [own, *rule.annotations.values()] if own else list(rule.annotations.values())
    return next((t.description for t in texts if t and t.description), None)


def _written(
    place: Place, known: Mapping[str, TemplateField], rule: Rule, values: Mapping[str, Any], reader: Reader
) -> str:
    name = ALSO.get(place.name, place.name)
    value = _value(name, values)
    field = known.get(place.name, TemplateField("", personal=True))
    if value is None and name == "key":
        return _key(rule, values, reader, known)
    if field.personal and not reader.personal and value is not None:
        return HIDDEN
    form = place.format or (measured(rule) if field.format == "measured" else field.format)
    try:
        return _in_format(value, form, reader, name)
    except (TypeError, ValueError, ArithmeticError):
        return _text(value)


def _value(name: str, values: Mapping[str, Any]) -> Any:
    also = next((other for other, of in ALSO.items() if of == name), name)
    return values.get(name, values.get(also))


def _key(rule: Rule, values: Mapping[str, Any], reader: Reader, known: Mapping[str, TemplateField]) -> str:
    """The parts of the key, each after its name."""
    said = []
    for name in key_labels(rule):
        value = _value(name, values)
        if value is not None:
            field = labels.fields().get(name)
            form = LABELS[name].format if name in LABELS else "text"
            hidden = name in known and known[name].personal and not reader.personal
            shown = HIDDEN if hidden else _in_format(value, form, reader)
            said.append(f"{_said(field.label, reader.lang) if field else name} {shown}")
    return ("，" if reader.lang == "zh" else ", ").join(said) or amounts.NOTHING


def _in_format(value: Any, form: str, reader: Reader, name: str = "") -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return amounts.NOTHING
    match form:
        case "count":
            return amounts.count(round(value))
        case "number":
            return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"
        case "percent":
            return amounts.percent(value)
        case "money":
            minor, currency = value
            return amounts.money(minor, currency)
        case "duration":
            return _duration(value, reader.lang)
        case "word":
            return _word(str(value), reader, name)
        case "top":
            return _top(value, reader.lang)
    return reader.instant(value.replace(microsecond=0)) if isinstance(value, datetime) else _text(value)


_UNITS: Final = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}


def _duration(value: timedelta | float, lang: str) -> str:
    """In the largest unit of which there are at least two, with one decimal if needed."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    unit = next((name for name, length in _UNITS.items() if abs(seconds) >= 2 * length), "seconds")
    number = f"{seconds / _UNITS[unit]:,.1f}".removesuffix(".0")
    return f"{number} {_said(labels.section('durations')[unit], lang)}"


_SECTIONS: Final = {"severity": "codes.severities", "of": "health"}
"""Fields whose codes have labels of their own."""


def _word(code: str, reader: Reader, name: str) -> str:
    if name in _SECTIONS:
        own = labels.section(_SECTIONS[name]).get(code)
        return _text(code) if own is None else _said(own, reader.lang)
    if reader.word is not None:
        return _text(reader.word(code))
    known = labels.of_code(code)
    return _text(code) if known is None else _said(known, reader.lang)


def _top(value: Any, lang: str) -> str:
    if isinstance(value, str):
        return _text(value)
    said = [f"{_text(name)} ({number:,})" for name, number in list(value)[:_MOST]]
    return ("、" if lang == "zh" else ", ").join(said) or amounts.NOTHING


def _said(label: Label, lang: str) -> str:
    return label.zh if lang == "zh" else label.en


def _text(value: Any) -> str:
    """A value as one short line, without characters that control a terminal or a page."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
