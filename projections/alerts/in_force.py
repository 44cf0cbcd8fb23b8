"""Which rules are in force, and since when. They are stored in the database, so that a rebuild evaluates the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from coupon_ledger.projections.alerts import episodes
from coupon_ledger.projections.alerts.chunk import EPOCH, instant
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.store import Store

TABLE: Final = "alert_rules"


@dataclass(frozen=True, slots=True)
class InForce:
    """A rule that judges the events recorded after `since` and not after `until` (None: it is still in force)."""

    rule: Rule
    since: datetime
    until: datetime | None

    def judges(self, after: datetime) -> bool:
        """Whether the rule judges the events recorded right after this instant."""
        return self.since <= after and (self.until is None or after < self.until)


def stored(reading: Reading) -> list[InForce]:
    """All rules that are or were in force, by name and time."""
    rows = reading.rows(f"SELECT rule, since, until FROM {TABLE} ORDER BY name, since")
    return [InForce(Rule.model_validate(json.loads(rule)), since, until) for rule, since, until in rows]


def put_in_force(store: Store, rules: Iterable[Rule]) -> list[str]:
    """Replace the rules in force by these, for all events that are not released yet, inside the caller's transaction.
    Returns the names of the rules that were added, changed or removed."""
    wanted = {rule.name: rule for rule in rules if rule.enabled}
    now = released_until(store)
    current = {f.rule.name: f for f in stored(store) if f.until is None}
    changed = [
        name
        for name in sorted(wanted.keys() | current.keys())
        if name not in wanted or name not in current or wanted[name].version != current[name].rule.version
    ]
    for name in changed:
        if name in current:
            _end(store, current[name], now)
        if name in wanted:
            _add(store, InForce(wanted[name], now, None))
    return changed


def take_over(store: Store, rows: Iterable[Mapping[str, Any]]) -> None:
    """Put the rules of another database in force as they are there, inside the caller's transaction. `rows`: what the
    question `standing` says of them: each rule as JSON, with instants in microseconds."""
    store.execute(f"DELETE FROM {TABLE}")
    for row in rows:
        until = None if row["until"] is None else instant(row["until"])
        _add(store, InForce(Rule.model_validate(json.loads(row["rule"])), instant(row["since"]), until))


def released_until(reading: Reading) -> datetime:
    """The latest instant up to which events of any topic are evaluated; the epoch before the first."""
    [(until,)] = reading.rows("SELECT max(released_until) FROM alert_progress")
    return EPOCH if until is None else until


def _end(store: Store, ended: InForce, now: datetime) -> None:
    episodes.end(store, ended.rule.name, ended.rule.version)
    named = {"name": ended.rule.name, "since": ended.since}
    if ended.since >= now:
        store.execute(f"DELETE FROM {TABLE} WHERE name = $name AND since = $since", named)
    else:
        store.execute(
            f"UPDATE {TABLE} SET until = $until WHERE name = $name AND since = $since", {**named, "until": now}
        )


def _add(store: Store, rule: InForce) -> None:
    store.execute(
        f"INSERT INTO {TABLE} VALUES ($name, $version, $rule, $since, $until)",
        {
            "name": rule.rule.name,
            "version": rule.rule.version,
            "rule": json.dumps(rule.rule.as_json(), ensure_ascii=False, sort_keys=True),
            "since": rule.since,
            "until": rule.until,
        },
    )
