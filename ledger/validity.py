"""Validates many events at once, by columns.

What is valid is defined by the models in `events.py`. This module states the same rules as column expressions, which
are at least as strict. An event that fails them is validated again by its model, which decides. So if the expressions
refuse a valid event, this costs time, but does not change the result. JSON fields are returned in canonical form, so
that equal values are equal texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, get_args, get_type_hints

import polars as pl
import polars.selectors as cs
from pydantic import TypeAdapter, ValidationError

from coupon_ledger.ledger import events
from coupon_ledger.ledger.codec import FIRST_INSTANT, JSON_FIELDS, LAST_INSTANT, SCHEMA_NAME, current_writer, event_data
from coupon_ledger.ledger.columns import decode_columns, polars_schema
from coupon_ledger.ledger.errors import InvalidEvent, UndecodableRecord
from coupon_ledger.ledger.events import parse_json
from coupon_ledger.ledger.rules import CHOICES, CURRENCIES, NEEDS
from coupon_ledger.ledger.topics import COUPON, ORDER

Check = Callable[[pl.Expr], pl.Expr]


def _instant(c: pl.Expr) -> pl.Expr:
    return c.cast(pl.Int64).is_between(FIRST_INSTANT, LAST_INSTANT)


def _choice(name: str) -> Check:
    return lambda c: c.is_in(CHOICES[name])


# A text has at least as many bytes as characters, so a limit on bytes lets no text pass that is too long.
_CHECKS: Final[list[tuple[Any, Check]]] = [
    (events.Id, lambda c: c.str.len_bytes().is_between(1, events.MAX_ID_CHARS)),
    (events.Text, lambda c: c.str.len_bytes() <= events.MAX_TEXT_CHARS),
    (events.Instant, _instant),
    (events.Amount, lambda c: c.is_between(0, events.MAX_AMOUNT)),
    (events.SignedAmount, lambda c: c.is_between(-events.MAX_AMOUNT, events.MAX_AMOUNT)),
    (events.Count, lambda c: c >= 0),
    (events.Number, lambda c: c >= -events.INT64_MAX),
    (events.BasisPoints, lambda c: c.is_between(0, 10_000)),
    (events.Currency, lambda c: c.is_in(sorted(CURRENCIES))),
    (events.CouponType, _choice("coupon_type")),
]
_CHOICE_FIELDS: Final = ("mechanic", "visibility", "cost_kind")


DECODING: Final = 2
"""Version of the decoding. Increase it whenever a message becomes valid or invalid, or decodes to a different event.
Events that an archive stores decoded by another version are decoded again from their bytes (tests/test_decoded.py)."""


def decoded_by(topic: str) -> str:
    """A text that changes whenever a topic's events would be decoded differently. It consists of the schema's name, the
    header of its current version, and `DECODING`."""
    record = SCHEMA_NAME[topic]
    return f"{record} {current_writer(record).header.hex()} {DECODING}"


def valid_events(topic: str, messages: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, tuple[str, str]]]:
    """Decode and validate the messages of a topic.

    Returns a frame and a dictionary. The frame has the valid events: the fields of the schema, with JSON in canonical
    form, and the column `row`, the index of the message in `messages`, ascending. The dictionary has all other
    messages: for each index, the code of the reason and the details in words.
    """
    decoded, undecodable = decode_columns(messages)
    dead = {u.row: (u.reason, u.detail) for u in undecodable}
    record = SCHEMA_NAME[topic]
    accepted = pl.DataFrame(schema={"row": pl.Int64, **polars_schema(record)})
    for part in decoded:
        if part.name == record:
            frame, invalid = split_valid(topic, part.frame)
            dead.update({int(part.rows[i]): ("invalid_event", words) for i, words in invalid})
            accepted = frame.with_columns(row=pl.Series(part.rows[frame["row"].to_numpy()], dtype=pl.Int64))
        else:
            dead |= dict.fromkeys(part.rows.tolist(), wrong_topic(part.name, topic))
    return accepted, dead


def wrong_topic(record: str, topic: str) -> tuple[str, str]:
    """The code of the reason, and the details in words, for a record that belongs in another topic than the one where
    it is. `record`: the name of the record's schema."""
    return "wrong_topic", f"a {record} does not belong on {topic}"


def split_valid(topic: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    """Validate the rows of a frame that has the fields of the topic's schema. Returns the valid rows, and a list of the
    invalid ones: the index of each, and its problems in words.

    The valid rows have JSON in canonical form, and the column `row`, their index in the given frame.
    """
    frame, no_json = _with_canonical_json(frame)
    frame = frame.with_row_index("row")
    passes = frame.select(_expression(topic).fill_null(False)).to_series() & ~no_json
    if passes.all():
        return frame, []
    invalid = []
    possible = frame.select(_possible_instants()).to_series()
    for i in passes.not_().arg_true().to_list():
        problem = _problem_by_model(topic, frame.row(i, named=True)) if possible[i] else _NO_INSTANT
        if problem is not None:
            invalid.append((i, problem))
    gone = [i for i, _ in invalid]
    return frame.filter(~pl.col("row").is_in(gone)), invalid


_NO_INSTANT: Final = "an instant lies outside the years 1 to 9999"


def _possible_instants() -> pl.Expr:
    """An expression: whether all instants of a row are in the years 1 to 9999. Python's `datetime` has no other years,
    so the model cannot validate rows with others."""
    return pl.all_horizontal(_instant(cs.datetime()).fill_null(True))


def _problem_by_model(topic: str, row: dict[str, Any]) -> str | None:
    row.pop("row")
    try:
        events.parse_event(topic, event_data(row))
    except (InvalidEvent, UndecodableRecord) as error:
        return str(error)
    return None


@cache
def _expression(topic: str) -> pl.Expr:
    checks = [
        check(pl.col(name)).fill_null(True)
        for name, check in _field_checks(topic)
        if name in polars_schema(SCHEMA_NAME[topic])
    ]
    for kind, needed in NEEDS[topic].items():
        if needed:
            complete = pl.all_horizontal(pl.col(f).is_not_null() for f in needed)
            checks.append((pl.col("type") != kind) | complete)
    known = pl.col("type").is_in(list(NEEDS[topic]))  # a newer writer's schema may have more types
    return pl.all_horizontal(known, *checks, *_of_topic(topic))


def _of_topic(topic: str) -> list[pl.Expr]:
    if topic == COUPON:
        allowed = CHOICES["expired_reason"]
        return [(pl.col("type") != "expired") | pl.col("reason").is_in(allowed)]
    if topic == ORDER:
        return [(pl.col(name).is_null() | (pl.col(name).list.len() <= events.MAX_ITEMS)) for name in _LISTS] + [
            _items_pass(name, model) for name, model in _LISTS.items()
        ]
    return []


_LISTS: Final[dict[str, Any]] = {"discounts": events.Discount, "lines": events.Line, "coupon_ids": None}


def _items_pass(name: str, model: Any) -> pl.Expr:
    item = pl.element()
    if model is None:
        good = item.str.len_bytes().is_between(1, events.MAX_ID_CHARS)
    else:
        good = pl.all_horizontal(check(item.struct.field(field)).fill_null(True) for field, check in _checks_of(model))
    return pl.col(name).list.eval(good).list.all().fill_null(True)


def _field_checks(topic: str) -> list[tuple[str, Check]]:
    return _checks_of(events.TOPIC_MODELS[topic])


def _checks_of(model: Any) -> list[tuple[str, Check]]:
    checks: list[tuple[str, Check]] = []
    for name, hint in get_type_hints(model, include_extras=True).items():
        kinds = {hint, *get_args(hint)}
        checks += [(name, check) for kind, check in _CHECKS if kind in kinds]
        if name in _CHOICE_FIELDS:
            checks.append((name, _choice(name)))
    if model is events.Discount:
        checks.append(("kind", _choice("discount_kind")))
    return checks


def _with_canonical_json(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """The frame with the JSON fields in canonical form (JSON's `null` becomes null), and a mask of the rows with JSON
    that may be invalid."""
    doubtful = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    for name in sorted(JSON_FIELDS & set(frame.columns)):
        column = frame[name]
        if column.null_count() == len(column):
            continue
        values = [None if text is None else _canonical(name, text) for text in column.to_list()]
        texts = pl.Series(name, [f and f.text for f in values], dtype=pl.String)
        doubtful = doubtful | pl.Series([f is not None and not f.certain for f in values], dtype=pl.Boolean)
        frame = frame.with_columns(texts)
    return frame, doubtful


@dataclass(frozen=True, slots=True)
class _Json:
    """A converted JSON field. `certain`: whether the JSON is certainly valid. `text`: its canonical form if so,
    otherwise the original text. None for null."""

    text: str | None
    certain: bool = True


_NULL: Final = _Json(None)
_SAFE_DEPTH: Final = 100
"""Up to this number of opening brackets, a text is surely not nested too deeply for the model."""


@lru_cache(maxsize=1_000)
def _canonical(field: str, text: str) -> _Json:
    """Convert a JSON text to canonical form. If the result is not `certain`, the text may be invalid: the model must
    decide. `field`: the name of the JSON field."""
    try:
        value = parse_json(text)
        canonical = events.canonical_json(value)
        canonical.encode()
    except (ValueError, RecursionError):
        return _Json(text, certain=False)
    if value is None:  # null and absent are the same
        return _NULL
    plain = field == "attributes" and isinstance(value, dict) and len(canonical) <= events.MAX_JSON_CHARS
    if plain and canonical.count("{") + canonical.count("[") <= _SAFE_DEPTH:
        return _Json(canonical)
    return _Json(canonical) if _model_accepts(field, value) else _Json(text, certain=False)


_ADAPTERS: Final[dict[str, TypeAdapter[Any]]] = {
    "applies_to": TypeAdapter(events.AppliesTo),
    "funded_by": TypeAdapter(events.FundedBy),
    "attributes": TypeAdapter(events.Attributes),
}


def _model_accepts(field: str, value: Any) -> bool:
    try:
        _ADAPTERS[field].validate_python(value)
    except ValidationError:
        return False
    return True
