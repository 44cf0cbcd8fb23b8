"""Which rules are in force, and since when. They are stored in the database, so that a rebuild evaluates the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import polars as pl

from coupon_ledger.projections.alerts import episodes
from coupon_ledger.projections.alerts.chunk import EPOCH, instant
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.store import Store

TABLE: Final = "alert_rules"
_SCHEMA: Final[dict[str, Any]] = {
    "name": pl.String,
    "version": pl.String,
    "rule": pl.String,
    "since": pl.Datetime("us"),
    "until": pl.Datetime("us"),
}


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


def versions(reading: Reading) -> dict[str, str]:
    """The versions of the rules in force, by name."""
    return dict(reading.rows(f"SELECT name, version FROM {TABLE} WHERE until IS NULL"))


def put_in_force(store: Store, rules: Iterable[Rule]) -> list[str]:
    """Replace the rules in force by these, for all events that are not released yet, inside the caller's transaction.
    Returns the names of the rules that were added, changed or removed."""
    wanted = {rule.name: rule for rule in rules if rule.enabled}
    now = released_until(store)
    current = versions(store)
    changed = [
        name
        for name in sorted(wanted.keys() | current.keys())
        if name not in wanted or wanted[name].version != current.get(name)
    ]
    _end(store, {name: current[name] for name in changed if name in current}, now)
    _add(store, [InForce(wanted[name], now, None) for name in changed if name in wanted])
    return changed


def take_over(store: Store, rows: Iterable[Mapping[str, Any]]) -> None:
    """Put the rules of another database in force as they are there, inside the caller's transaction. `rows`: what the
    question `standing` says of them: each rule as JSON, with instants in microseconds."""
    store.execute(f"DELETE FROM {TABLE}")
    _add(store, [_taken_over(row) for row in rows])


def _taken_over(row: Mapping[str, Any]) -> InForce:
    until = None if row["until"] is None else instant(row["until"])
    return InForce(Rule.model_validate(json.loads(row["rule"])), instant(row["since"]), until)


def released_until(reading: Reading) -> datetime:
    """The latest instant up to which events of any topic are evaluated; the epoch before the first."""
    [(until,)] = reading.rows("SELECT max(released_until) FROM alert_progress")
    return EPOCH if until is None else until


def _end(store: Store, ended: Mapping[str, str], now: datetime) -> None:
    """End the rules in force with these names (and versions) at `now`. Those that have judged nothing are forgotten."""
    episodes.end(store, ended.items())
    among = "until IS NULL AND name IN (SELECT unnest($names::VARCHAR[]))"
    given = {"names": list(ended), "now": now}
    store.execute(f"DELETE FROM {TABLE} WHERE {among} AND since >= $now", given)
    store.execute(f"UPDATE {TABLE} SET until = $now WHERE {among}", given)


def _add(store: Store, added: Iterable[InForce]) -> None:
    rows = [(one.rule.name, one.rule.version, _text(one.rule), one.since, one.until) for one in added]
    store.insert(TABLE, pl.DataFrame(rows, schema=_SCHEMA, orient="row"))


def _text(rule: Rule) -> str:
    return json.dumps(rule.as_json(), ensure_ascii=False, sort_keys=True)
