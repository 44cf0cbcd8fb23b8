"""Tells the book of alerts what became of episodes: of those that a batch changed and, at a start or after a change of
rules, of all that may have changed while nobody looked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from coupon_ledger.consumers.alerts import conditions
from coupon_ledger.consumers.alerts.evidence import behind
from coupon_ledger.consumers.alerts.known import Clocks, Known
from coupon_ledger.consumers.alerts.telling import OF_THE_PAST
from coupon_ledger.ledger.alert_commands import Condition, NotDelivered
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.projections.alerts.episodes import Touched
from coupon_ledger.projections.alerts.rules import SEVERITIES, Rule
from coupon_ledger.projections.store import Store

_BUDGET_S: Final = 0.1
_AT_ONCE: Final = 200
_FLOOD: Final = 100
"""More waiting episodes than this are a flood."""
_IN_TURN: Final = 20
"""Number of episodes of a rule that are looked at before it is the next rule's turn."""
_UNHEARD_S: Final = 600.0
"""How long an alert that is over stays open so that people can be told of it first."""
_TELLING: Final = frozenset({"pending", "fired", "updated", "relapsed"})
"""Events that carry evidence."""


class EpisodeWork:
    """The episodes of one store that are still to be looked at (`todo`), the alerts whose episode is not there
    (`_orphans`), and those that end once people have heard of them (`_ending`)."""

    def __init__(self, store: Store, known: Known) -> None:
        self.todo: dict[str, None] = {}
        self._store = store
        self._known = known
        self._touched = store.cache(Touched)
        self._touched.watched = True
        self._shown: Counter[str] = Counter()
        self._orphans: dict[str, None] = {}
        self._ending: dict[str, tuple[Condition, float]] = {}

    @property
    def done(self) -> bool:
        """Whether everything that changed was looked at. Some alerts may end later all the same."""
        return not (self.todo or self._touched.ids)

    def look_at_all(self, now: datetime) -> None:
        """Look at everything that may have changed while nobody looked, or since other rules came into force."""
        known = self._known
        known.clocks = Clocks.read(self._store)
        open_alerts = known.book.open_alerts()
        streamed = (a.alert_id for a in open_alerts if known.is_streamed(a))
        self._plan([*conditions.untold(self._store), *streamed])
        for alert in open_alerts:
            if known.is_obsolete(alert):
                self._over(alert, known.clock_of(alert) or now, now)

    def look(self, now: datetime) -> None:
        """Look at some of the episodes that changed. Takes about `_BUDGET_S` at most."""
        if self._touched.ids:
            ids, self._touched.ids = self._touched.ids, set()
            self._plan([*self.todo, *ids])
        if not self.todo:
            self._shown.clear()
            return
        until = time.monotonic() + _BUDGET_S
        next_ones = list(self.todo)[:_AT_ONCE]
        rows = conditions.episodes(self._store, next_ones)
        for episode_id in next_ones:
            del self.todo[episode_id]
            if episode_id in rows:
                self._look_at(rows[episode_id], now)
            else:
                self._gone(episode_id, now)
            if time.monotonic() > until:
                return

    def _plan(self, ids: Iterable[str]) -> None:
        """Look at these episodes next, the earliest of a rule first. Rules take turns, the most severe first, so that a
        flood of one rule does not hold up the alerts of another."""
        turns: Counter[str] = Counter()
        planned: list[tuple[int, int, int, str]] = []
        for number, (episode_id, name) in enumerate(conditions.in_order(self._store, set(ids))):
            rule = self._known.rules.by_name.get(name)
            severity = SEVERITIES.index(rule.severity) if rule is not None else 0
            planned.append((turns[name] // _IN_TURN, severity, number, episode_id))
            turns[name] += 1
        self.todo = {episode_id: None for *_, episode_id in sorted(planned)}

    def _look_at(self, row: Mapping[str, Any], now: datetime) -> None:
        known, alert_id = self._known, row["episode_id"]
        rule = known.rules.versions.get((row["rule"], row["rule_version"]))
        alert = known.book.alerts.get(alert_id)
        if rule is None or (alert is not None and known.is_obsolete(alert)):
            return
        for condition in conditions.of_episode(row, rule, now):
            if condition.outcome == "clear":
                self.end(condition)
                continue
            if any(event.type in _TELLING for event in known.book.decide(condition)) and not self._in_flood(rule):
                condition = self._with_evidence(condition, rule, row)
            known.decide(condition)
        alert = known.book.alerts.get(alert_id)
        if row["closed_at"] is None and alert is not None and known.is_obsolete(alert):
            self._over(alert, known.clocks.evaluated or now, now)

    def _in_flood(self, rule: Rule) -> bool:
        """Whether so many episodes wait that the alert is raised with what the evaluation says of it alone. To read
        what is behind each would take longer than people can wait; `alerts show` reads it when somebody asks."""
        self._shown[rule.name] += 1
        return len(self.todo) > _FLOOD and self._shown[rule.name] > _IN_TURN

    def _with_evidence(self, condition: Condition, rule: Rule, row: Mapping[str, Any]) -> Condition:
        found = behind(self._store, rule, row)
        evidence = {**condition.evidence, **found.counts, **found.more, "rows": found.rows}
        return replace(condition, evidence=evidence, money_minor=found.money_minor, currency=found.currency)

    def _over(self, alert: Alert, at: datetime, now: datetime) -> None:
        self._known.decide(conditions.over(alert, self._known.rule_of(alert), at, now))

    # ── Ends ─────────────────────────────────────────────────────────────────────────────────────────────────

    def end(self, condition: Condition) -> None:
        """End an alert, but let people hear of it first, or record why they do not."""
        book = self._known.book
        alert = book.alerts.get(condition.alert_id or "")
        if alert is None or not alert.is_open:
            return
        if alert.stands and not alert.told and alert.fired_at and alert.fired_at < condition.now - OF_THE_PAST:
            self._known.decide(NotDelivered(alert_id=alert.alert_id, reason="catch_up", now=condition.now))
        if _was_heard(book.alerts[alert.alert_id]):
            self._known.decide(condition)
        else:
            self._ending.setdefault(alert.alert_id, (condition, time.monotonic() + _UNHEARD_S))

    def go_on(self, now: datetime) -> None:
        """End the alerts of which people have heard since, and those whose episode is surely not there."""
        for alert_id, (condition, at_latest) in list(self._ending.items()):
            if _was_heard(self._known.book.alerts[alert_id]) or time.monotonic() > at_latest:
                del self._ending[alert_id]
                self._known.decide(replace(condition, now=now))
        if self._orphans:
            self._look_at_orphans(now)

    def _gone(self, alert_id: str, now: datetime) -> None:
        """The condition ceased to hold before the alert fired; or the alert is of another evaluation of the log."""
        alert = self._known.book.alerts.get(alert_id)
        if alert is None or not alert.is_open:
            return
        if alert.phase == "pending":
            self._over(alert, self._known.clocks.evaluated or alert.at, now)
        else:
            self._orphans[alert_id] = None

    def _look_at_orphans(self, now: datetime) -> None:
        """End alerts without an episode, once everything that is known of them has been evaluated: until then, a new
        database may just not have read that far."""
        clock, alerts = self._known.clocks.evaluated, self._known.book.alerts
        if clock is None:
            return
        passed = [alert_id for alert_id in self._orphans if alerts[alert_id].at < clock]
        there = conditions.episodes(self._store, passed) if passed else {}
        for alert_id in passed:
            del self._orphans[alert_id]
            if alert_id not in there and alerts[alert_id].is_open:
                self._over(alerts[alert_id], clock, now)


def _was_heard(alert: Alert) -> bool:
    """Whether people were told of the alert, or need not be, or it is recorded why they were not."""
    return not alert.stands or bool(alert.told) or (alert.withheld is not None and alert.withheld.reason != "grouped")
