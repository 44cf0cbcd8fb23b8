"""Computes the events that a sweep appends: `expired` for coupons past their `valid_until`, with the reason, and
`released` for reservations past their `hold_until`.

Always true: each event, including its id, is a function of its coupon's history before it. So sweepers that have read
the same events append the same events, however many sweepers there are and however often they run. A sweeper that has
read more derives a different event only if the additional events happened earlier.

The *end* of a coupon is its `valid_until`, or the instant of its last extension if that is later (an extension may
shorten the validity). A coupon that is in state created, issued or claimed at its end expires one microsecond later. A
coupon that is reserved or used at its end expires one microsecond after the first later event that returns it to one of
these states.

If an event happened before the expiry but arrives after the sweep, the table of transitions decides: the sweep's event
is then illegal, and its violation is superseded. The exception is an extension that arrives after the sweep: the coupon
stays expired.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.lifecycle import Coupon, canonical_order, evolve
from coupon_ledger.ledger.rules import EXPIRY, SWEPT, types
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.connection import Reading, sql

SOURCE: Final = "coupon-ledger"
"""The `source` of the events that a sweep appends."""

_PIECE: Final = 50_000
_HELD: Final = "AND state = 'reserved' AND (reserved_at < $until OR ends_at < $until)"
_OVER: Final = "AND state IN ('created', 'issued', 'claimed') AND ends_at < $until"
_STRETCHES: Final = 4
"""Maximum number of time ranges of the journal that are searched for the events of one piece of coupons."""
_MICROSECOND: Final = timedelta(microseconds=1)
_TYPES: Final = types(COUPON)
_EXPIRED: Final = _TYPES.index("expired")
_STANDING: Final = ["drafted", "published", "unpublished", "ended"]
_INSTANT: Final = pl.Datetime("us")
_NOTHING_HAPPENED: Final = {
    "event_id": pl.lit(None, pl.String),
    "for_order": pl.lit(None, pl.String),
    "hold_until": pl.lit(None, _INSTANT),
}
_SCHEMA: Final[dict[str, Any]] = {
    "event_id": pl.String,
    "type": pl.String,
    "occurred_at": _INSTANT,
    "coupon_id": pl.String,
    "reason": pl.String,
    "order_id": pl.String,
    "campaign_id": pl.String,
    "channel": pl.String,
    "currency": pl.String,
    "face_value_minor": pl.Int64,
}

Event = dict[str, Any]


def due(reading: Reading, until: datetime, piece: int = _PIECE) -> Iterator[pl.DataFrame]:
    """The events that are due at `until` (naive UTC), in non-empty pieces of at most `piece` coupons. Between two
    pieces, the table `coupons` must not change.

    Columns: those of the event, then the coupon's campaign, channel, currency and face value.
    """
    for chosen, find in ((_HELD, _held), (_OVER, _over)):
        for coupons in _coupons(reading, chosen, until, piece):
            rows = find(reading, coupons, until)
            events = [
                event
                for row, history in _with_histories(reading, rows)
                for event in (_of_history(row, history, until) if row["needs_history"] else _at_once(row))
            ]
            if events:
                yield pl.DataFrame(events, schema=_SCHEMA, orient="row")


def _coupons(reading: Reading, chosen: str, until: datetime, piece: int) -> Iterator[pl.DataFrame]:
    query = f"{sql(__package__, 'due')} {chosen} LIMIT {piece}"
    after = -1
    while True:
        coupons = reading.frame(query, {"after": after, "until": until})
        if coupons.height:
            yield coupons
        if coupons.height < piece:
            return
        after = coupons["row_id"][-1]


def _held(reading: Reading, coupons: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """The coupons in `coupons` whose hold is over at `until`, or that were reserved after their end. All of `coupons`
    are in the state reserved.

    Adds the columns that `_of_history` and `_at_once` need. `reservation`: the id of the `reserved` event;
    `hold_until`: as in this event; `lapsed`: whether the hold is over; `needs_history`: whether the coupon is past its
    end. If a coupon has several reservations at the same instant, the canonically first one counts.
    """
    held = coupons.filter(pl.col("reserved_at") < until).with_columns(at="reserved_at", type=pl.lit("reserved"))
    events = _happened(reading, held).filter(pl.col("for_order") == pl.col("order_id")).sort("event_id")
    holds = events.group_by("row_id").agg(
        reservation=pl.col("event_id").first(), hold_until=pl.col("hold_until").first()
    )
    ended = (pl.col("ends_at") < until).fill_null(False)
    rows = coupons.join(holds, on="row_id", how="left").with_columns(
        lapsed=(pl.col("hold_until") < until).fill_null(False), needs_history=ended, follows=pl.lit(None, pl.String)
    )
    late = ended & (pl.col("reserved_at") > pl.col("ends_at"))
    return _with_campaigns(reading, rows.filter(pl.col("lapsed") | late))


def _over(reading: Reading, coupons: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """Add to `coupons`, which are all past their end, the columns that `_of_history` and `_at_once` need.

    `needs_history`: whether an event happened after the coupon's end. If not, the coupon was already in its present
    state at its end, and `follows` is the id of its last event.
    """
    rows = coupons.with_columns(needs_history=pl.col("last_event_at") > pl.col("ends_at"))
    unchanged = rows.filter(~pl.col("needs_history")).with_columns(
        at="last_event_at", type=pl.lit(pl.Series(_TYPES)).gather(pl.col("last_type").cast(pl.Int64))
    )
    last = _happened(reading, unchanged).group_by("row_id").agg(follows=pl.col("event_id").max())
    nothing = {"lapsed": pl.lit(False), "reservation": pl.lit(None, pl.String), "hold_until": pl.lit(None, _INSTANT)}
    return _with_campaigns(reading, rows.join(last, on="row_id", how="left").with_columns(**nothing))


def _happened(reading: Reading, wanted: pl.DataFrame) -> pl.DataFrame:
    """Join each coupon in `wanted` with its events that have the type in the coupon's column `type` and happened at the
    instant in its column `at`."""
    query, parts = sql(__package__, "happened"), []
    for first, last in _stretches(wanted["at"]):
        there = wanted.filter(pl.col("at").is_between(first, last))
        with reading.given(wanted=there.select("key_hash")):
            parts.append(reading.frame(query, {"first": first, "last": last} | _bounds(there)))
    on = ["key_hash", "coupon_id", "at", "type"]
    return wanted.join(pl.concat(parts), on=on) if parts else wanted.clear().with_columns(**_NOTHING_HAPPENED)


def _bounds(coupons: pl.DataFrame) -> dict[str, Any]:
    hashes = coupons["key_hash"]
    return {"low": hashes.min(), "high": hashes.max(), "since": coupons["first_recorded_at"].min()}


def _stretches(instants: pl.Series) -> Iterator[tuple[datetime, datetime]]:
    """At most `_STRETCHES` time ranges (first, last) that together contain all of `instants`. The ranges are separated
    at the longest gaps."""
    apart = instants.unique().sort().to_frame("at").with_columns(gap=pl.col("at").diff())
    longest = apart.drop_nulls().top_k(_STRETCHES - 1, by="gap")["at"]
    stretches = apart.with_columns(stretch=pl.col("at").is_in(longest.implode()).cum_sum())
    yield from (
        stretches.group_by("stretch")
        .agg(first=pl.col("at").min(), last=pl.col("at").max())
        .select("first", "last")
        .iter_rows()
    )


def _with_campaigns(reading: Reading, rows: pl.DataFrame) -> pl.DataFrame:
    """Add the column `campaign_over`: whether the coupon's campaign ended before the coupon's end."""
    if not rows.height:
        return rows
    with reading.given(wanted=rows.select("row_id", "campaign_id", "ends_at")):
        over = reading.frame(sql(__package__, "campaign_over"), {"standing": _STANDING})["row_id"]
    return rows.with_columns(campaign_over=pl.col("row_id").is_in(over.implode()))


def _with_histories(reading: Reading, coupons: pl.DataFrame) -> Iterator[tuple[Event, list[Event]]]:
    """Yield each coupon with its events: all of them if its `needs_history` is true, otherwise none."""
    histories: dict[str, list[Event]] = {}
    wanted = coupons.filter("needs_history")
    if wanted.height:
        with reading.given(wanted=wanted.select("key_hash")):
            events = reading.frame(sql(__package__, "histories"), _bounds(wanted))
        for event in events.iter_rows(named=True):
            histories.setdefault(event["coupon_id"], []).append(event)
    for row in coupons.iter_rows(named=True):
        yield row, histories.get(row["coupon_id"], [])


def _at_once(row: Event) -> list[Event]:
    if row["state"] == "reserved":
        return [_released(row)]
    reason = _reason(row["state"], owned=row["owned"], campaign_over=row["campaign_over"], given_back=False)
    return [_expired(row, row["ends_at"] + _MICROSECOND, reason, row["follows"])]


def _of_history(row: Event, history: Sequence[Event], until: datetime) -> list[Event]:
    """The events due for one coupon, from all its events (`history`): `released` if its hold is over, and `expired` if
    it can expire before `until`, taking that release into account."""
    released = [_released(row)] if row["lapsed"] else []
    end = _first_end([*history, *released], row["ends_at"], until)
    if end is None:
        return released
    reason = _reason(
        end.coupon.state,
        owned=end.coupon.owner is not None,
        campaign_over=row["campaign_over"],
        given_back=end.given_back,
    )
    expired = _expired(row, end.at, reason, end.follows)
    return [event for event in released if event["occurred_at"] < end.at] + [expired]


@dataclass(frozen=True, slots=True)
class _End:
    """A place in the history of a coupon where the coupon can expire. `at`: the instant. `coupon`: the coupon's state
    then. `follows`: the id of the last event before. `given_back`: whether the coupon has that state because of a
    `returned` event after its end."""

    at: datetime
    coupon: Coupon
    follows: str
    given_back: bool


def _first_end(history: Sequence[Mapping[str, Any]], ends_at: datetime, until: datetime) -> _End | None:
    """The first place in `history` where the coupon can expire, before `until`. None if there is no such place.
    `ends_at`: the coupon's end."""
    steps: list[tuple[tuple[datetime, int], _End]] = []
    coupon, given_back = Coupon(history[0]["coupon_id"]), False
    for event in sorted(history, key=canonical_order):
        before, (coupon, _) = coupon, evolve(coupon, event)
        at = event["occurred_at"]
        if coupon.state != before.state:
            given_back = event["type"] == "returned" and at > ends_at
        steps.append(((at, _TYPES.index(event["type"])), _End(at, coupon, event["event_id"], given_back)))
    places = [place for place, _ in steps]
    for end in [ends_at, *(at for at, _ in places if ends_at < at < until)]:
        at = end + _MICROSECOND
        known = bisect_left(places, (at, _EXPIRED))
        if known and steps[known - 1][1].coupon.state in EXPIRY["state"]:
            last = steps[known - 1][1]
            return _End(at, last.coupon, last.follows, last.given_back)
    return None


def _reason(state: str, *, owned: bool, campaign_over: bool, given_back: bool) -> str:
    if given_back:
        return str(EXPIRY["given_back"])
    if owned:
        return str(EXPIRY["owned"])
    return str(EXPIRY["campaign_over"] if campaign_over else EXPIRY["state"][state])


def _expired(row: Event, at: datetime, reason: str, follows: str) -> Event:
    worth = {name: row[name] for name in ("campaign_id", "channel", "currency", "face_value_minor")}
    return _event(row, "expired", row["ends_at"], at, reason, follows) | worth


def _released(row: Event) -> Event:
    at = max(row["hold_until"], row["reserved_at"]) + _MICROSECOND
    place = {name: row[name] for name in ("order_id", "campaign_id", "channel")}
    return _event(row, "released", row["hold_until"], at, EXPIRY["hold"], row["reservation"]) | place


def _event(row: Event, kind: str, end: datetime, at: datetime, reason: str, follows: str) -> Event:
    """The columns that `expired` and `released` events have in common. The id is a hash of the event's content and of
    `follows`, the id of the event before it. So no other event has the same id."""
    identity = json.dumps([row["coupon_id"], kind, end.isoformat(), at.isoformat(), reason, follows])
    return {
        "event_id": SWEPT + sha256(identity.encode()).hexdigest()[:32],
        "type": kind,
        "occurred_at": at,
        "coupon_id": row["coupon_id"],
        "reason": reason,
    }
