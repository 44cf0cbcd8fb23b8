"""What stands behind an episode: its first events and the money at stake or, for a metric, which parts drove it.

A rule's kind without a function here has the evidence that the evaluation itself wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from coupon_ledger.consumers.alerts.contributions import contributions
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.alerts.campaigns import with_campaigns
from coupon_ledger.projections.alerts.chunk import CAMPAIGN_OF
from coupon_ledger.projections.alerts.rules import Linked, Rule, Velocity
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.journal import happened

_ROWS: Final = 10
_MICROSECOND: Final = timedelta(microseconds=1)
_SEEN: Final = 50
"""How many coupons, users and devices an alert names, by which other alerts about the same are found."""


@dataclass(frozen=True, slots=True)
class Behind:
    """`rows`: the first events behind the episode. `counts`: how many events, users, coupons and orders there are.
    `money_minor`: the discounts of their coupons, or face values of those without one, in `currency`; if there are
    several currencies, the one with most coupons. `more`: further evidence."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    money_minor: int | None = None
    currency: str | None = None
    more: dict[str, Any] = field(default_factory=dict)


def behind(reading: Reading, rule: Rule, row: Mapping[str, Any]) -> Behind:
    """What stands behind an episode. `row`: its row in `alert_episodes`."""
    find = _OF_KIND.get(rule.expr.kind)
    return Behind() if find is None else find(reading, rule, row)


def _of_velocity(reading: Reading, rule: Rule, row: Mapping[str, Any]) -> Behind:
    of = rule.expr
    assert isinstance(of, Velocity)
    types, after, until = [*map(str, of.events)], row["opened_at"] - of.window, row["last_true_at"]
    wanted: dict[str, list[str]] = {name: [value] for name, value in json.loads(row["key"]).items()}
    for name, values in of.where.items():
        wanted[name] = [v for v in wanted[name] if v in values] if name in wanted else list(values)
    return _of_events(reading, types, wanted, after, until)


def _of_linked(reading: Reading, rule: Rule, row: Mapping[str, Any]) -> Behind:
    """Of a group whose details name all users. Of a larger one, the money of those alone would be too little."""
    of, details = rule.expr, json.loads(row["details"] or "{}")
    assert isinstance(of, Linked)
    users = [user for user, _ in details.get("first_users", ())]
    if not users or len(users) < details["users"]:
        return Behind()
    return _of_events(
        reading, [*map(str, of.events)], {"user_id": users}, row["opened_at"] - of.window, row["last_true_at"]
    )


def _of_events(
    reading: Reading, types: list[str], wanted: Mapping[str, list[str]], after: datetime, until: datetime
) -> Behind:
    """What stands behind events of these types, whose fields have one of these values."""
    bounds = {"types": types, "start": after + _MICROSECOND, "end": until + _MICROSECOND}
    journal = f"SELECT * FROM ({happened(COUPON)}) WHERE list_contains($types, type)"
    if CAMPAIGN_OF in wanted:
        journal = with_campaigns(journal)
    # One value is by far the usual case, and found without looking at most blocks of the journal.
    values = {f"value_{n}": v[0] if len(v) == 1 else v for n, v in enumerate(wanted.values())}
    tests = [
        f"{name} = $value_{n}" if len(allowed) == 1 else f"list_contains($value_{n}, {name})"
        for n, (name, allowed) in enumerate(wanted.items())
    ]
    events = f"SELECT * FROM ({journal}) WHERE {' AND '.join(tests)}"
    query = sql(__package__, "behind").replace("WITH ", f"WITH events_behind AS MATERIALIZED ({events}), ", 1)
    found = reading.frame(query, bounds | values | {"n": _ROWS, "m": _SEEN}).row(0, named=True)
    rows, minor, currency = found.pop("rows") or [], found.pop("money_minor"), found.pop("currency")
    seen = {name: ids for name, ids in found.pop("seen").items() if ids}
    return Behind(rows, found, None if minor is None else int(minor), currency, {"seen": seen} if seen else {})


def _of_metric(reading: Reading, rule: Rule, row: Mapping[str, Any]) -> Behind:
    return Behind(more=contributions(reading, rule, row))


_OF_KIND: Final[dict[str, Callable[[Reading, Rule, Mapping[str, Any]], Behind]]] = {
    "velocity": _of_velocity,
    "linked": _of_linked,
    "metric": _of_metric,
    "threshold": _of_metric,
}
