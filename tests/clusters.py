"""Clusters: worlds in which much hangs on one key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.codec import SCHEMA_NAME
from coupon_ledger.ledger.columns import polars_schema
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER

_START: Final = datetime(2026, 1, 1)
Made = tuple[str, pl.DataFrame]
"""A topic and its events, in the order in which they happened and come."""


def events_of(topic: str, n: int, **fields: Any) -> Made:
    """`n` events a second apart; a field is a value or an expression over `i`."""
    schema = polars_schema(SCHEMA_NAME[topic])
    given = {"event_id": pl.format("e-{}", "i"), "source": pl.lit("cluster"), **fields}
    at = {"occurred_at": pl.lit(_START) + pl.duration(seconds="i")}
    values = {name: value if isinstance(value, pl.Expr) else pl.lit(value) for name, value in (at | given).items()}
    frame = pl.DataFrame({"i": range(n)}).select(
        values.get(name, pl.lit(None)).cast(pl.Datetime("us") if name == "occurred_at" else kind).alias(name)
        for name, kind in schema.items()
    )
    return topic, frame.with_columns(pl.col(pl.Datetime).dt.replace_time_zone("UTC").cast(schema["occurred_at"]))


def _ids(prefix: str) -> pl.Expr:
    return pl.format(f"{prefix}-{{}}", "i")


def _coupon(n: int) -> Iterator[Made]:
    """One coupon with so many events: held and let go of."""
    held = pl.when(pl.col("i") % 2 == 1).then(pl.lit("reserved")).otherwise(pl.lit("released"))
    kind = pl.when(pl.col("i") == 0).then(pl.lit("claimed")).otherwise(held)
    yield events_of(COUPON, n, type=kind, coupon_id="c", user_id="u", channel="app", order_id="o", campaign_id="k")


def _campaign(n: int) -> Iterator[Made]:
    """One campaign whose stock ends at half of so many claims."""
    terms: dict[str, Any] = {"quantity": n // 2, "per_user_limit": 1}
    yield events_of(CAMPAIGN, 1, type="published", campaign_id="k", name="k", coupon_type="cash", **terms)
    users = pl.format("u-{}", pl.col("i") * 2 // 3)
    claim = {"coupon_id": _ids("c"), "user_id": users, "channel": "app", "campaign_id": "k"}
    yield events_of(COUPON, n, type="claimed", **claim)


def _order(n: int) -> Iterator[Made]:
    """One order with so many coupons, of which it names every other one."""
    order: dict[str, Any] = {"order_id": "o", "user_id": "u", "currency": "CNY", "gross_minor": n, "net_minor": n}
    coupons = pl.lit([f"c-{i}" for i in range(0, n, 2)])
    yield events_of(ORDER, 1, type="paid", coupon_ids=coupons, **order)
    use = {"coupon_id": _ids("c"), "user_id": "u", "order_id": "o", "campaign_id": "k"}
    yield events_of(COUPON, n, type="used", discount_minor=1, **use)


def _user(n: int) -> Iterator[Made]:
    """One user with so many touches."""
    yield events_of(USER, n, type="touched", user_id="u", kind="click", channel="app", campaign_id="k")


def _paths(n: int) -> Iterator[Made]:
    """One user with so many touches and as many orders."""
    yield from _user(n)
    order: dict[str, Any] = {"order_id": _ids("o"), "user_id": "u", "currency": "CNY"}
    yield events_of(ORDER, n, type="paid", gross_minor=5, net_minor=5, **order)


def _aliases(n: int) -> Iterator[Made]:
    """One user with so many other ids."""
    yield events_of(USER, n, type="linked", user_id="u", alias_id=_ids("a"))


KINDS: Final[dict[str, Callable[[int], Iterator[Made]]]] = {
    "coupon": _coupon,
    "campaign": _campaign,
    "order": _order,
    "user": _user,
    "paths": _paths,
    "aliases": _aliases,
}


def followers(made: Sequence[Made]) -> dict[str, list[Made]]:
    """One event more of the last topic, each for a batch of its own."""
    topic, frame = made[-1]
    last, first = frame[-1:], frame[:1]
    later = last.with_columns(pl.lit("later").alias("event_id"), pl.col("occurred_at") + timedelta(days=1))
    late = first.with_columns(pl.lit("late").alias("event_id"))
    return {"later": [(topic, later)], "late": [(topic, late)], "repeated": [(topic, first)]}
