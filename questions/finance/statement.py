"""The liability statement of coupons: opening balance, moves, closing balance.

A coupon is *out* (outstanding) while it is issued, claimed or reserved, since it can still be used. Its value is its
face value. Coupons without one (a percentage, a gift) are only counted. If a column of the statement counts coupons of
which none has a face value, the column's value is null: unknown, not zero. A *move* is an event with which a coupon
starts or stops being out. This equation is exact, in coupons and in minor units (a null adds nothing):

    opening + issued + returned - used - expired - revoked - released = closing

The opening balance of a period is the closing balance of the previous period.

If a coupon broke no rule and every step happened to it once at most, its row has the instants of all its moves. The
history of every other coupon is folded from its first event (`ledger/lifecycle.toml`). The audit `liability` folds all
histories. It compares the result, and that of the statement, with the states of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.ledger.rules import STATES
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.apply import prepare
from coupon_ledger.projections.live.fold import EVENT_FIELDS, states_of
from coupon_ledger.projections.live.journal import POSITION
from coupon_ledger.projections.wide import as_integers

OUT: Final = ("issued", "claimed", "reserved")
MOVES: Final = ("issued", "returned", "used", "expired", "revoked", "released")
"""With the first two, a coupon starts to be out; with the others, it stops. `released`: a reservation that broke the
rules ended, and the coupon went back to a state in which it is not out."""
_IN: Final = MOVES[:2]
_UNITS: Final = ("coupons", "minor", "unknown")
"""Number of coupons, sum of their face values, number of coupons without a face value."""
_AT_ONCE: Final = 500_000
"""Events folded at once."""
_IS_OUT: Final = np.isin(STATES, OUT)
_CODES: Final = {name: code for code, name in enumerate(STATES)}
_SHOWN_BY_ROW: Final = """
    violations = 0 AND events = (created_at IS NOT NULL)::INTEGER + (issued_at IS NOT NULL)::INTEGER
    + (claimed_at IS NOT NULL)::INTEGER + (reserved_at IS NOT NULL)::INTEGER + (used_at IS NOT NULL)::INTEGER
    + (ended_at IS NOT NULL)::INTEGER
"""
"""Condition for coupons whose row shows all their moves: there are as many events as instants, so each of these
happened once, and nothing else (a return, a release) happened."""


def statement(
    reading: Reading,
    campaign: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    by_rows: bool = True,
) -> pl.DataFrame:
    """The liability statement: one row per campaign (null: coupons without a campaign) and currency. The period
    includes `since` and excludes `until`. `by_rows`: whether to read the moves from a coupon's row if the row shows all
    of them. If false, every history is folded."""
    folded = (_summed(piece, since, until) for piece in _moves(reading, campaign, by_rows))
    rows = [_of_rows(reading, campaign, since, until)] if by_rows else []
    moved = pl.concat([_nothing(), *rows, *folded])
    by = ["campaign_id", "currency"]
    sums = moved.group_by(by).agg(pl.exclude(by).sum())
    for unit in _UNITS:
        signed = [pl.col(f"{move}_{unit}") * (1 if move in _IN else -1) for move in MOVES]
        sums = sums.with_columns((pl.col(f"opening_{unit}") + pl.sum_horizontal(signed)).alias(f"closing_{unit}"))
    parts = ("opening", *MOVES, "closing")
    counts = [f"{part}_coupons" for part in parts]
    values = [
        pl.when((pl.col(f"{part}_coupons") == 0) | (pl.col(f"{part}_coupons") != pl.col(f"{part}_unknown")))
        .then(pl.col(f"{part}_minor"))
        .alias(f"{part}_minor")
        for part in parts
    ]
    unknown = {"without_value": "issued_unknown", "closing_without_value": "closing_unknown"}
    answer = sums.select(*by, *counts, *values, **{name: pl.col(of) for name, of in unknown.items()})
    return as_integers(answer.sort(by, nulls_last=True))


def _of_rows(reading: Reading, campaign: str | None, since: datetime | None, until: datetime | None) -> pl.DataFrame:
    """The moves of those coupons whose rows show all their moves, summed as in `_summed`."""
    plain = f"SELECT * FROM coupons WHERE ($campaign IS NULL OR campaign_id = $campaign) AND {_SHOWN_BY_ROW}"
    query = f"WITH plain AS ({plain}) {sql(__package__, 'statement')}"
    sums = reading.frame(query, {"campaign": campaign, "since": since, "until": until})
    schema = _nothing().schema
    missing = [pl.lit(0, schema[name]).alias(name) for name in schema if name not in sums.columns]
    return sums.with_columns(missing).select(schema.names()).cast(schema)


def _moves(reading: Reading, campaign: str | None, by_rows: bool) -> Iterator[pl.DataFrame]:
    """The moves that are found by folding histories: one row per move, with `campaign_id`, `currency` and
    `face_value_minor` of the coupon, `at` and `move`. They are returned in pieces, so memory does not grow with their
    number. `by_rows`: whether to leave out coupons whose rows show all their moves."""
    condition = f"($campaign IS NULL OR campaign_id = $campaign) AND NOT ($by_rows AND {_SHOWN_BY_ROW})"
    bound = {"campaign": campaign, "by_rows": by_rows}
    [events] = reading.frame(f"SELECT coalesce(sum(events), 0)::BIGINT FROM coupons WHERE {condition}", bound).row(0)
    parts = 1 + events // _AT_ONCE
    for part in range(parts):
        first, after = (-(1 << 63) + (1 << 64) * n // parts for n in (part, part + 1))
        history = reading.frame(
            f"""
            SELECT e.key_hash, e.coupon_id, {", ".join(f"e.{name}" for name in (*EVENT_FIELDS, *POSITION))},
                   c.campaign_id AS of_campaign, c.currency AS in_currency, c.face_value_minor AS worth
            FROM coupon_events e JOIN (
                SELECT key_hash, coupon_id, campaign_id, currency, face_value_minor
                FROM coupons WHERE key_hash BETWEEN $first AND $last AND {condition}
            ) c ON c.key_hash = e.key_hash AND c.coupon_id = e.coupon_id
            WHERE e.key_hash BETWEEN $first AND $last
            """,
            bound | {"first": first, "last": after - 1},
        )
        if history.height:
            yield _moved(history)


def _moved(events: pl.DataFrame) -> pl.DataFrame:
    events = prepare(COUPON, events).events
    before, after = states_of(events.rename({"entity": "coupon"}))
    was, is_ = _IS_OUT[before], _IS_OUT[after]
    came = np.where(before == _CODES["used"], "returned", "issued")
    went = np.array([name if name in MOVES else "released" for name in STATES])[after]
    move = np.where(was, went, came)
    return events.select(
        campaign_id="of_campaign",
        currency="in_currency",
        face_value_minor="worth",
        at="occurred_at",
        move=pl.Series(move),
    ).filter(pl.Series(was != is_))


def _summed(moved: pl.DataFrame, since: datetime | None, until: datetime | None) -> pl.DataFrame:
    """Opening balance and moves by campaign and currency. The opening balance is computed from the moves before the
    period. The columns are those of `_nothing`."""
    earlier = pl.lit(False) if since is None else pl.col("at") < since
    within = ~earlier & (pl.lit(True) if until is None else pl.col("at") < until)
    sign = pl.when(pl.col("move").is_in(_IN)).then(1).otherwise(-1)
    worth = pl.col("face_value_minor")
    units = {
        "coupons": pl.lit(1),
        "minor": worth.fill_null(0).cast(pl.Int128),
        "unknown": worth.is_null().cast(pl.Int64),
    }
    parts = {
        f"{part}_{unit}": (value * sign).filter(earlier).sum()
        if part == "opening"
        else (value * (within & (pl.col("move") == part)).cast(pl.Int64)).sum()
        for unit, value in units.items()
        for part in ("opening", *MOVES)
    }
    by = ["campaign_id", "currency"]
    sums = moved.group_by(by).agg(**{name: part.cast(pl.Int128) for name, part in parts.items()})
    return sums.select(_nothing().columns)


def _nothing() -> pl.DataFrame:
    numbers = [f"{part}_{unit}" for unit in _UNITS for part in ("opening", *MOVES)]
    return pl.DataFrame(schema={"campaign_id": pl.String, "currency": pl.String, **dict.fromkeys(numbers, pl.Int128)})
