"""Budget and stock rules: how fast a campaign burns its budget or its coupons, and when nothing is left at this rate.

Budget and quantity are the campaign's terms as they were known when the window was judged.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON
from coupon_ledger.projections.alerts.buckets import Buckets, Closed, Slice, Sums, runs
from coupon_ledger.projections.alerts.chunk import CAMPAIGN_OF, Place, Released, instant
from coupon_ledger.projections.alerts.episodes import Episodes, micros_of
from coupon_ledger.projections.alerts.evaluator import Stored
from coupon_ledger.projections.alerts.measures import ACQUIRED, Measure
from coupon_ledger.projections.alerts.rules import Budget, Rule, Stock
from coupon_ledger.projections.alerts.terms import Terms
from coupon_ledger.projections.alerts.window_sums import WindowSums
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live.entities import TERM_EVENTS

_CELLS: Final = 500_000
"""So many buckets times campaigns are judged at once, about."""
_SECOND: Final = 1_000_000
_DAY: Final = 24 * 3600 * _SECOND
_BURNT: Final = Measure(
    COUPON,
    pl.when(pl.col("type") == "used")
    .then(pl.col("discount_minor").fill_null(0))
    .when(pl.col("type") == "returned")
    .then(-pl.col("discount_minor").fill_null(0))
    .otherwise(0),
    columns=("discount_minor", "order_id"),
)
_ACQUIRED: Final = Measure(
    COUPON,
    ACQUIRED,
    columns=("user_id",),
)


class BudgetRules(Stored):
    """The budget and stock rules, on the topic of coupon events."""

    def __init__(self, rules: Iterable[tuple[Rule, Episodes]]) -> None:
        self._rules = [
            _BudgetRule(rule, rule.expr, episodes) for rule, episodes in rules if isinstance(rule.expr, Budget | Stock)
        ]

    @property
    def columns(self) -> set[str]:
        return {CAMPAIGN_OF, *_BURNT.columns, *_ACQUIRED.columns} if self._rules else set()

    def restore(self, reading: Reading, clock: int | None) -> None:
        for rule in self._rules:
            rule.restore(reading, clock)

    def see(self, reading: Reading, piece: Released) -> None:
        if not self._rules:
            return
        terms = _terms(reading, piece.place(len(piece) - 1).recorded_at)
        priced = replace(piece, events=_with_returns_priced(reading, piece.events), _computed={})
        for rule in self._rules:
            rule.see(priced, terms)

    @property
    def buckets(self) -> list[Buckets]:
        return [rule.buckets for rule in self._rules]


class _BudgetRule:
    """One rule. Its buckets are judged many at once, in arrays with a row per bucket and a column per campaign."""

    def __init__(self, rule: Rule, of: Budget | Stock, episodes: Episodes) -> None:
        self._of = of
        self._episodes = episodes
        length = micros_of(rule.every)
        measure = _BURNT if isinstance(of, Budget) else _ACQUIRED
        self._window = max(1, micros_of(of.window) // length)
        self._day = max(self._window, _DAY // length)
        self.buckets = Buckets(rule, measure, (CAMPAIGN_OF,), length, self._day, late_now=True)
        self._sums = WindowSums()
        self._total: dict[Slice, float] = defaultdict(float)
        """What each campaign has burnt before the buckets of `_sums` that are still to be judged."""

    def restore(self, reading: Reading, clock: int | None) -> None:
        self.buckets.restore(reading, clock)
        if self.buckets.next is not None:
            for number, sums in self.buckets.stored(reading, -(2**62), self.buckets.next):
                self._add_up(sums)
                if number >= self.buckets.next - self._day:
                    self._sums.add([(number, sums)])

    def _add_up(self, sums: Mapping[Slice, Sums]) -> None:
        for key, one in sums.items():
            self._total[key] += one.of

    def see(self, piece: Released, terms: Terms) -> None:
        at_once = max(20, _CELLS // max(1, len(self._sums.columns)))
        for closed in runs(self.buckets.see(piece), at_once):
            self._sums.add([(one.number, one.sums) for one in closed])
            if self._sums.columns:
                self._judge(piece, closed, terms)
            self._sums.forget(closed[-1].number - self._day)
            for one in closed:
                self._add_up(one.sums)
            self._episodes.advance(closed[-1].at)

    def _judge(self, piece: Released, closed: Sequence[Closed], terms: Terms) -> None:
        """Judge buckets that follow one another."""
        of, keys = self._of, list(self._sums.columns)
        numbers = range(closed[0].number, closed[-1].number + 1)
        new, lately, today = (self._sums.ending(numbers, length) for length in (1, self._window, self._day))
        total = np.array([self._total[key] for key in keys]) + np.cumsum(new.of, axis=0)
        recorded = piece.recorded_when(np.array([one.at for one in closed]))
        limit = np.column_stack([terms.over(key[0], self._term, recorded) for key in keys])
        per_second = lately.of / (self._window * self.buckets.length / _SECOND)
        with np.errstate(divide="ignore", invalid="ignore"):
            seconds = np.where(per_second > 0, np.maximum(limit - total, 0.0) / per_second, np.inf)
        known = (limit > 0) & today.any
        share = of.share if isinstance(of, Budget) else None
        within = of.exhausted_within if isinstance(of, Budget) else of.sold_out_within
        spent = known & (total >= share * limit) if share is not None else np.zeros_like(known)
        soon = known & ~spent & (seconds <= within.total_seconds()) if within is not None else np.zeros_like(known)
        for row, column in np.argwhere(spent | soon).tolist():
            one, place, campaign = closed[row], closed[row].place, keys[column][0]
            most, all_spent, left_s = int(limit[row, column]), float(total[row, column]), float(seconds[row, column])
            details: dict[str, Any] = {
                **self._figures(most, all_spent, terms.at(campaign, "currency", place.recorded_at)),
                "per_hour": round(float(per_second[row, column]) * 3600, 2),
                "exhausted_at": None if math.isinf(left_s) else _later(one.at, left_s),
            }
            named = ((CAMPAIGN_OF, campaign),)
            if share is not None and spent[row, column]:
                self._episodes.true(named, one.at, place, all_spent / most, share, details)
            elif within is not None and self._ahead(all_spent / most, campaign, terms, place):
                bound = within.total_seconds()
                self._episodes.true(named, one.at, place, left_s, bound, details, less_is_worse=True)

    def _ahead(self, spent: float, campaign: str, terms: Terms, place: Place) -> bool:
        """Whether the share that is spent is far enough ahead of the time for claims that has passed."""
        ahead = self._of.ahead if isinstance(self._of, Budget) else None
        first, last = (terms.at(campaign, term, place.recorded_at) for term in ("claim_from", "claim_until"))
        if ahead is None or first is None or last is None or last <= first:
            return True
        return bool(spent >= ahead * min(max((place.recorded_at - first) / (last - first), 0.0), 1.0))

    @property
    def _term(self) -> str:
        return "budget_minor" if isinstance(self._of, Budget) else "quantity"

    def _figures(self, limit: int, total: float, currency: str | None) -> dict[str, Any]:
        if isinstance(self._of, Stock):
            return {"quantity": limit, "left": max(limit - int(total), 0)}
        return {"budget": [limit, currency or ""], "spent": [int(total), currency or ""]}


_TERMS: Final = ("budget_minor", "quantity", "currency", "claim_from", "claim_until")


def _terms(reading: Reading, until: datetime) -> Terms:
    """What campaigns may give out and spend, and when, with all that was recorded up to `until`."""
    return Terms(
        reading.frame(
            f"SELECT campaign_id, {', '.join(_TERMS)}, recorded_at FROM campaign_events"
            " WHERE recorded_at <= $until AND list_contains($terms, type)"
            f" AND coalesce({', '.join(f'{term}::VARCHAR' for term in _TERMS)}) IS NOT NULL"
            " ORDER BY occurred_at, list_position($types, type), event_id",
            {"until": until, "terms": list(TERM_EVENTS), "types": list(types(CAMPAIGN))},
        )
    )


def _with_returns_priced(reading: Reading, events: pl.DataFrame) -> pl.DataFrame:
    """The events, where `returned` ones carry the discount of the latest use before on the same order."""
    returned = events.with_row_index("row").filter(pl.col("type") == "returned")
    if not returned.height:
        return events
    position = ("recorded_at", "log_partition", "log_offset")
    before = " , ".join(position)
    with reading.given(returned_coupons=returned.select("row", "key_hash", "order_id", *position)):
        priced = reading.frame(
            f"SELECT r.row, arg_max(u.discount_minor, (u.recorded_at, u.log_partition, u.log_offset)) AS minor"
            f" FROM (SELECT row, key_hash, order_id, {before} FROM returned_coupons) r JOIN coupon_events u"
            " ON u.key_hash = r.key_hash AND u.order_id = r.order_id AND u.type = 'used'"
            " AND (u.recorded_at, u.log_partition, u.log_offset) < (r.recorded_at, r.log_partition, r.log_offset)"
            " GROUP BY r.row"
        )
    minor = events["discount_minor"].to_list()
    for row in returned["row"]:
        minor[row] = 0
    for row, discount in priced.iter_rows():
        minor[row] = discount
    return events.with_columns(discount_minor=pl.Series(minor, dtype=pl.Int64))


def _later(us: int, seconds: float) -> str | None:
    """`seconds` after an instant, as text; None beyond the calendar."""
    try:
        return (instant(us) + timedelta(seconds=round(seconds))).isoformat() + "Z"
    except OverflowError:
        return None
