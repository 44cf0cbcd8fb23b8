"""Are these events valid? For many at once, by columns.

The models in `events.py` say what is valid. Here the same rules stand as column expressions, made so that no
invalid event passes; an event that does not pass is shown to its model, whose word is final. So the two cannot
disagree about what is refused, only about how fast it is seen. JSON fields come out in canonical form, so that
equal values are equal texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, Final, get_args, get_type_hints

import polars as pl

from ledger import events
from ledger.codec import JSON_FIELDS, SCHEMA_NAME, event_data
from ledger.columns import polars_schema
from ledger.errors import InvalidEvent, UndecodableRecord
from ledger.rules import CHOICES, CURRENCIES, NEEDS

Check = Callable[[pl.Expr], pl.Expr]

_FIRST_INSTANT: Final = -62_135_596_800_000_000  # 0001-01-01 in microseconds
_LAST_INSTANT: Final = 253_402_300_799_999_999  # the end of 9999-12-31


def _instant(c: pl.Expr) -> pl.Expr:
    return c.cast(pl.Int64).is_between(_FIRST_INSTANT, _LAST_INSTANT)


def _choice(name: str) -> Check:
    return lambda c: c.is_in(CHOICES[name])


# A text's bytes are at least as many as its characters.
_CHECKS: Final[list[tuple[Any, Check]]] = [
    (events.Id, lambda c: c.str.len_bytes().is_between(1, events.MAX_ID_CHARS)),
    (events.Text, lambda c: c.str.len_bytes() <= events.MAX_TEXT_CHARS),
    (events.Instant, _instant),
    (events.Amount, lambda c: c >= 0),
    (events.SignedAmount, lambda c: c >= -events.INT64_MAX),
    (events.BasisPoints, lambda c: c.is_between(0, 10_000)),
    (events.Currency, lambda c: c.is_in(sorted(CURRENCIES))),
    (events.CouponType, _choice("coupon_type")),
]
_CHOICE_FIELDS: Final = ("mechanic", "visibility", "cost_kind")


def split_valid(topic: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    """The frame of wire fields with its invalid rows left out, and those rows' numbers with what is wrong.

    JSON fields of the rows that stay are canonical. A column `row` of the result holds the rows' numbers.
    """
    frame, no_json = _with_canonical_json(frame)
    frame = frame.with_row_index("row")
    passes = frame.select(_expression(topic).fill_null(False)).to_series() & ~no_json
    if passes.all():
        return frame, []
    invalid = []
    for i in passes.not_().arg_true().to_list():
        problem = _model_says(topic, frame.row(i, named=True))
        if problem is not None:
            invalid.append((i, problem))
    gone = [i for i, _ in invalid]
    return frame.filter(~pl.col("row").is_in(gone)), invalid


def _model_says(topic: str, row: dict[str, Any]) -> str | None:
    row.pop("row")
    try:
        events.parse_event(topic, event_data(row))
    except (InvalidEvent, UndecodableRecord) as error:
        return str(error)
    except (OverflowError, ValueError) as error:  # an instant that Python cannot hold
        return f"a value is out of range ({error})"
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
    return pl.all_horizontal(*checks, *_of_topic(topic))


def _of_topic(topic: str) -> list[pl.Expr]:
    if topic == events.COUPON:
        allowed = CHOICES["expired_reason"]
        return [(pl.col("type") != "expired") | pl.col("reason").is_in(allowed)]
    if topic == events.ORDER:
        return [
            (pl.col(name).is_null() | (pl.col(name).list.len() <= events.MAX_ITEMS)) for name in _LISTS
        ] + [_items_pass(name, model) for name, model in _LISTS.items()]
    return []


_LISTS: Final[dict[str, Any]] = {"discounts": events.Discount, "lines": events.Line, "coupon_ids": None}


def _items_pass(name: str, model: Any) -> pl.Expr:
    item = pl.element()
    if model is None:
        good = item.str.len_bytes().is_between(1, events.MAX_ID_CHARS)
    else:
        good = pl.all_horizontal(
            check(item.struct.field(field)).fill_null(True) for field, check in _checks_of(model)
        )
    return pl.col(name).list.eval(good).list.all().fill_null(True)


def _field_checks(topic: str) -> list[tuple[str, Check]]:
    return _checks_of(events.TOPIC_MODELS[topic])


def _checks_of(model: Any) -> list[tuple[str, Check]]:
    found: list[tuple[str, Check]] = []
    for name, hint in get_type_hints(model, include_extras=True).items():
        kinds = {hint, *get_args(hint)}
        found += [(name, check) for kind, check in _CHECKS if kind in kinds]
        if name in _CHOICE_FIELDS:
            found.append((name, _choice(name)))
    if model is events.Discount:
        found.append(("kind", _choice("discount_kind")))
    return found


def _with_canonical_json(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """JSON texts in canonical form, and which rows hold one that is not certainly a valid value."""
    doubtful = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    for name in sorted(JSON_FIELDS & set(frame.columns)):
        column = frame[name]
        if column.null_count() == len(column):
            continue
        found = [None if text is None else _canonical(name, text) for text in column.to_list()]
        texts = pl.Series(name, found, dtype=pl.String)
        doubtful = doubtful | (texts.is_null() & column.is_not_null())
        frame = frame.with_columns(pl.coalesce(texts, column).alias(name))
    return frame, doubtful


@lru_cache(maxsize=10_000)
def _canonical(field: str, text: str) -> str | None:
    """The canonical text, or None where the model should look at it."""
    try:
        value = json.loads(text)
        canonical = events.canonical_json(value)
    except (ValueError, RecursionError):
        return None
    if field != "attributes" or not isinstance(value, dict) or len(canonical) > events.MAX_JSON_CHARS:
        return None if not _model_accepts(field, value) else canonical
    return canonical


def _model_accepts(field: str, value: Any) -> bool:
    adapter = {"applies_to": events.AppliesTo, "funded_by": events.FundedBy, "attributes": events.Attributes}
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(adapter[field]).validate_python(value)
    except ValidationError:
        return False
    return True
