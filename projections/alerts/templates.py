"""The texts of alerts: templates with the fields of an alert, and how their values are written for people.

A template has places `{name}` and `{name:format}`; `{{` and `}}` are braces. Names and formats are those of `FIELDS`
and `FORMATS`, and nothing else is evaluated: no attributes, no indexes, no expressions. A value that an alert does not
have is written as a dash. Rendering never fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal

from coupon_ledger.ledger import amounts, labels
from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.labels import Label
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.words import Note, catalogue, note
from coupon_ledger.projections.alerts.rules import Rule

Format = Literal["count", "number", "percent", "money", "instant", "duration", "word", "text", "top"]
FORMATS: Final[Mapping[Format, str]] = {
    "count": "a whole number with thousands separators: 12,345",
    "number": "a number: 12,345 or 0.25",
    "percent": "a share as per cent: 0.25 is 25.0%",
    "money": "an amount in the currency: 1,234.50 CNY",
    "instant": "date and time in the reader's zone",
    "duration": "a length of time: 10 min",
    "word": "a code in the reader's language: the label of used_when_used",
    "text": "as it is",
    "top": "who contributed most, with how much: d-17 (12), d-9 (4)",
}
_LONGEST: Final = 200
_MOST: Final = 5


@dataclass(frozen=True, slots=True)
class TemplateField:
    """A field of an alert. `format`: how its value is written unless the template says otherwise; `measured`: in the
    unit of what the rule measures. `kinds`: the kinds of rules that have it; None: all. `personal`: whether it can be
    personal data, which only channels that are marked for it may get."""

    meaning: str
    format: Format | Literal["measured"] = "text"
    kinds: frozenset[str] | None = None
    personal: bool = False


def _of(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


_EVENTS: Final = _of("velocity", "concentration", "linked", "violation")
FIELDS: Final[Mapping[str, TemplateField]] = {
    "alert": TemplateField("id of the alert"),
    "rule": TemplateField("name of the rule"),
    "group": TemplateField("group of the rule"),
    "severity": TemplateField("severity of the rule", "word"),
    "owner": TemplateField("who is responsible"),
    "playbook": TemplateField("where it says what to do"),
    "key": TemplateField(
        "what the alert is about: all parts of its key, such as campaign 8, device d-17", personal=True
    ),
    "value": TemplateField("what was measured", "measured"),
    "threshold": TemplateField("the value from which the rule fires", "measured"),
    "since": TemplateField("when the condition began to hold", "instant"),
    "at": TemplateField("when the alert fired", "instant"),
    "lasted": TemplateField("how long the condition has held", "duration"),
    "window": TemplateField("length of the rule's window", "duration"),
    "money": TemplateField("money at stake", "money"),
    "currency": TemplateField("currency of the money at stake"),
    "count": TemplateField("number of events, violations or rows behind the alert", "count"),
    "distinct": TemplateField("number of different values", "count", _of("velocity", "concentration", "linked")),
    "users": TemplateField("number of users behind the alert", "count", _EVENTS),
    "coupons": TemplateField("number of coupons behind the alert", "count", _EVENTS),
    "orders": TemplateField("number of orders behind the alert", "count", _EVENTS),
    "late": TemplateField("number of events that came too late to be counted", "count", _EVENTS),
    "top": TemplateField("who contributed most", "top", personal=True),
    "hubs": TemplateField("shared values that joined nobody, since too many users have them", "count", _of("linked")),
    "metric": TemplateField("the metric", "word", _of("metric", "threshold", "guardrail")),
    "expected_low": TemplateField("lower bound of the expected band", "measured", _of("metric")),
    "expected_high": TemplateField("upper bound of the expected band", "measured", _of("metric")),
    "score": TemplateField("the detector's score, from 0 to 1", "number", _of("metric")),
    "before": TemplateField("what the value is compared with", "measured", _of("threshold")),
    "change": TemplateField("change against that, or distance from the band", "percent", _of("metric", "threshold")),
    "spent": TemplateField("what is spent of the budget", "money", _of("budget")),
    "budget": TemplateField("the campaign's budget", "money", _of("budget")),
    "left": TemplateField("coupons left in stock", "count", _of("stock")),
    "arm": TemplateField("arm of the experiment", "text", _of("guardrail")),
    "check": TemplateField("what was compared", "text", _of("reconciliation")),
    "of": TemplateField("what was watched", "word", _of("health")),
    "error": TemplateField("why the evaluation failed", "text", _of("health")),
}
"""The fields of alerts besides the parts of their keys."""

LABELS: Final[Mapping[str, TemplateField]] = {
    "campaign": TemplateField("the campaign (also `campaign_id`)"),
    "coupon_type": TemplateField("type of the coupons", "word"),
    "channel": TemplateField("the channel"),
    "store": TemplateField("the store"),
    "region": TemplateField("the region"),
    "source": TemplateField("the system that published the events"),
    "code": TemplateField("the violation, or the coupons' code", "word"),
    "ip": TemplateField("address of the network", personal=True),
    "device_id": TemplateField("the device", personal=True),
    "phone_prefix": TemplateField("first digits of the phone number", personal=True),
    "user_id": TemplateField("the user", personal=True),
    "order_id": TemplateField("the order", personal=True),
}
"""The parts of keys. A rule's alerts have those that its expression names."""
_ALSO: Final = {"campaign_id": "campaign"}

GENERIC: Final = "{rule}: {value} (threshold {threshold}); {key}; since {since}"
"""The summary of a rule without annotations."""


# --- which fields a rule has


def key_labels(rule: Rule) -> tuple[str, ...]:
    """The parts of the keys of the rule's alerts."""
    expr = rule.expr
    match expr.kind:
        case "sql":
            names: tuple[str, ...] = expr.key
        case "budget" | "stock" | "guardrail":
            names = ("campaign",)
        case "health":
            names = ("source",) if expr.of == "silent_source" else ("channel",) if expr.of == "channel_dead" else ()
        case "linked":
            names = ("user_id",)
        case "reconciliation":
            names = ()
        case _:
            names = tuple(expr.by)
    return tuple(_ALSO.get(name, name) for name in names)


def fields_of(rule: Rule) -> Mapping[str, TemplateField]:
    """The fields that the templates of the rule may name, by name."""
    own = {name: field for name, field in FIELDS.items() if field.kinds is None or rule.expr.kind in field.kinds}
    parts = {name: LABELS.get(name, TemplateField("a column of the key", personal=True)) for name in key_labels(rule)}
    also = {name: parts[of] for name, of in _ALSO.items() if of in parts}
    return parts | also | own if rule.expr.kind == "sql" else own | parts | also


_MONEY: Final = frozenset("discount gmv net_sales refunds average_order".split())
_SHARES: Final = frozenset("claim_rate use_rate return_rate discount_share".split())


def measured(rule: Rule) -> Format:
    """How the value of the rule's alerts, and its threshold, are written."""
    expr = rule.expr
    match expr.kind:
        case "metric" | "threshold":
            return "money" if expr.metric in _MONEY else "percent" if expr.metric in _SHARES else "count"
        case "concentration":
            return "percent"
        case "budget":
            return "percent" if expr.share is not None else "duration"
        case "guardrail":
            return "percent"
        case "stock":
            return "duration"
        case "health" if expr.of in ("lag", "silent_source", "clock_skew"):
            return "duration"
        case "health" if expr.of == "late_share":
            return "percent"
        case "health" | "sql":
            return "number"
    return "count"


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
    return tuple(_pieces(template))


def _pieces(template: str) -> Iterator[str | Place]:
    for match in _PIECE.finditer(template):
        piece = match[0]
        if piece in ("{{", "}}"):
            yield piece[0]
        elif piece in ("{", "}"):
            raise BadTemplate(
                note(
                    "has a brace {brace} without its other half; write {twice} for a brace",
                    brace=piece,
                    twice=piece * 2,
                )
            )
        elif match[1] is None:
            yield piece
        elif place := _PLACE.fullmatch(match[1]):
            yield Place(place[1], place[2] or "")
        else:
            raise BadTemplate(
                note("has the place {place}; write the name of a field, or name:format, in braces", place=piece[:60])
            )


def problems(template: str, rule: Rule) -> list[Note]:
    """What is wrong with a template of the rule, each with what to write."""
    try:
        places = [piece for piece in parse(template) if isinstance(piece, Place)]
    except BadTemplate as bad:
        return [bad.said]
    known = fields_of(rule)
    found = []
    for place in dict.fromkeys(places):
        if place.name not in known:
            found.append(_unknown(place.name, known))
        elif place.format:
            found += _misfit(place, known[place.name], measured(rule))
    return found


def _unknown(name: str, known: Mapping[str, TemplateField]) -> Note:
    near = alike([name[:60]], known)[:1]
    if near:
        return note("has no field {name} in alerts of this rule; did you mean {near}?", name=name[:60], near=near)
    return note("has no field {name} in alerts of this rule; there are {known}", name=name[:60], known=sorted(known))


def _misfit(place: Place, field: TemplateField, unit: Format) -> list[Note]:
    own = unit if field.format == "measured" else field.format
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
    reader's zone, and a code or metric in words (None: the labels of codes)."""

    lang: str = "en"
    instant: Callable[[datetime], str] = instant
    word: Callable[[str], str] | None = None


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
    name = _ALSO.get(place.name, place.name)
    value = _value(name, values)
    if value is None and name == "key":
        return _key(rule, values, reader)
    field = known.get(place.name, TemplateField(""))
    form = place.format or (measured(rule) if field.format == "measured" else field.format)
    try:
        return _in_format(value, form, reader, name)
    except (TypeError, ValueError, ArithmeticError):
        return _text(value)


def _value(name: str, values: Mapping[str, Any]) -> Any:
    also = next((other for other, of in _ALSO.items() if of == name), name)
    return values.get(name, values.get(also))


def _key(rule: Rule, values: Mapping[str, Any], reader: Reader) -> str:
    """The parts of the key, each after its name."""
    said = []
    for name in key_labels(rule):
        value = _value(name, values)
        if value is not None:
            field = labels.fields().get(name)
            form = LABELS[name].format if name in LABELS else "text"
            said.append(f"{_said(field.label, reader.lang) if field else name} {_in_format(value, form, reader)}")
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
        case "instant":
            return reader.instant(value) if isinstance(value, datetime) else _text(value)
        case "duration":
            return _duration(value, reader.lang)
        case "word":
            return _word(str(value), reader, name)
        case "top":
            return _top(value, reader.lang)
    return reader.instant(value) if isinstance(value, datetime) else _text(value)


_UNITS: Final = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}


def _duration(value: timedelta | float, lang: str) -> str:
    """In the largest unit of which there are at least two, with one decimal if needed."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    unit = next((name for name, length in _UNITS.items() if abs(seconds) >= 2 * length), "seconds")
    number = f"{seconds / _UNITS[unit]:,.1f}".removesuffix(".0")
    return f"{number} {_said(labels.section('durations')[unit], lang)}"


_SECTIONS: Final = {"severity": "severities", "of": "health"}
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
