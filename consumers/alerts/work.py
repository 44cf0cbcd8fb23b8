"""The owner's work with alerts: one round after each commit, and whenever nothing is to be read.

A round is bounded in time: it takes what another thread has read of `coupon.alerts`, looks at some changed episodes,
and about once a second lets time pass, puts messages into the queue and asks one rule. It never waits for the log, a
channel or a rule. What it decides goes into the outbox in one transaction, and from there to the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from coupon_ledger.consumers import outbox
from coupon_ledger.consumers.alerts import asked, book, conditions
from coupon_ledger.consumers.alerts.asked import Asked, Find, Moment
from coupon_ledger.consumers.alerts.evidence import behind
from coupon_ledger.consumers.alerts.rules import Rules, RulesFile, problems_of, put_in_force
from coupon_ledger.consumers.alerts.tail import Opening, Tail
from coupon_ledger.consumers.alerts.telling import OF_THE_PAST, Channel, Messages, NoMessages, Telling, own_offenders
from coupon_ledger.consumers.runner import Boundary
from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import Command, Condition, NotDelivered
from coupon_ledger.ledger.alert_events import AlertEvent, fingerprint_of, record_of
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import LedgerError, StoreError
from coupon_ledger.ledger.log import EventLog
from coupon_ledger.projections.alerts.episodes import Touched
from coupon_ledger.projections.alerts.rules import STREAMED, Rule
from coupon_ledger.projections.store import Store

_TICK_S: Final = 1.0
_RESTS: Final = 20.0
"""Time passes every `_TICK_S`, but more rarely if that takes long, with very many open alerts."""
_BUDGET_S: Final = 0.1
_AT_ONCE: Final = 200
_AGAIN_S: Final = 60.0
_PATIENCE_S: Final = 60.0
_DELIVERY_S: Final = 15.0
_UNHEARD_S: Final = 60.0
"""How long an alert that is over stays open so that people can be told of it first."""
_TELLING: Final = frozenset({"pending", "fired", "updated", "relapsed"})
"""Events that carry evidence."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Figures:
    """How alerts are at the moment. `open`: open alerts by rule and severity. `evaluated_until`: by topic, the instant
    of recording up to which the streamed rules were evaluated. `channels`: how channels fare, by name."""

    open: Mapping[tuple[str, str], int] = field(default_factory=dict)
    evaluated_until: Mapping[str, datetime] = field(default_factory=dict)
    channels: Mapping[str, Channel] = field(default_factory=dict)


@dataclass(slots=True)
class _Clocks:
    """`evaluated`: up to where the streamed rules were evaluated, by their clock; `data`: the data's clock. None before
    the first event."""

    evaluated: datetime | None = None
    data: datetime | None = None
    until: dict[str, datetime] = field(default_factory=dict)


class AlertWork:
    """Follows the alert rules of one database. The owner's thread calls `begin`, then the object itself after each
    commit, and `close`; all in one thread.

    `rules`: the rules file; None: the defaults. `reader`: opens the log for the thread that reads `coupon.alerts`; by
    default, that thread uses `log`, which must then stand two readers. `finders`: the questions for rules on the
    tables, by kind. `messages`: closed by whoever made it.
    """

    def __init__(
        self,
        store: Store,
        log: EventLog,
        *,
        rules: Path | None = None,
        reader: Opening | None = None,
        finders: Mapping[str, Find] | None = None,
        messages: Messages | None = None,
        at_boundary: Boundary = lambda _: None,
    ) -> None:
        self.figures = Figures()
        self._store = store
        self._log = log
        self._reader: Opening = reader or (lambda: nullcontext(log))
        self._file = RulesFile(rules)
        self._reached = at_boundary
        self._telling = Telling(messages or NoMessages())
        self._asked = Asked(store, finders or {})
        self._stopped = False
        self._pause_until = 0.0
        self._problems: dict[str, str] | None = None
        self._tail: Tail | None = None
        self._forget()

    def _forget(self) -> None:
        """Know nothing any more: everything can be made again from the store."""
        self._delivery = outbox.Delivery(self._store, self._log)
        self._rules = Rules({}, {})
        self._book = AlertBook()
        self._synced = False
        self._made: list[AlertEvent] = []
        self._todo: dict[str, None] = {}
        self._orphans: dict[str, None] = {}
        self._ending: dict[str, tuple[Condition, float]] = {}
        self._clocks = _Clocks()
        self._tick_at = 0.0

    # ── For the owner ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Put the rules of the file in force, before the first batch is folded."""
        self._open()
        self._look_at_file()

    def use(self, store: Store) -> None:
        """From now on, work on `store`, another generation of the database, whose rules in force are the same."""
        self._store = store
        self._asked.use(store)
        self._forget()
        self._open()

    def _open(self) -> None:
        if self._tail is not None:
            self._tail.close()
        self._store.cache(Touched).watched = True
        self._book = book.made(self._store)
        self._tail = Tail(self._reader, book.positions(self._store))
        self._use_rules()

    def stop(self) -> None:
        """Let `finish` end early. Safe to call from a signal handler."""
        self._stopped = True

    def close(self) -> None:
        self._asked.close()
        if self._tail is not None:
            self._tail.close()

    def __call__(self) -> None:
        """Do a round. An error of the log, a rule or the program is logged, and the work begins anew a minute later;
        only an error of the database is raised."""
        if self._tail is None or time.monotonic() < self._pause_until:
            return
        try:
            self._round()
        except StoreError:
            raise
        except Exception as error:
            if isinstance(error, LedgerError):
                _logger.warning("alerts: %s; going on in %.0f s", error, _AGAIN_S)
            else:
                _logger.exception("alerts: an error of the program; going on in %.0f s", _AGAIN_S)
            self._pause_until = time.monotonic() + _AGAIN_S
            self._file = RulesFile(self._file.path)
            self._forget()
            self._open()

    def finish(self) -> None:
        """For a run that ends with the log: do all there is to do, ask every rule once, and send what is due, without
        waiting for further alerts of a group."""
        deadline = time.monotonic() + _PATIENCE_S
        asked_once = False
        while time.monotonic() < deadline and not self._stopped and time.monotonic() >= self._pause_until:
            self._tick_at = float("inf") if self._todo else 0.0
            self._round(at_once=True)
            if not self._synced:
                time.sleep(0.02)
                continue
            if not asked_once:
                asked_once = True
                self._ask_all(deadline)
            elif not (self._todo or self._ending or self._orphans):
                break
        self._telling.messages.settle(max(0.0, min(_DELIVERY_S, deadline - time.monotonic())))
        self._tick_at = 0.0
        self._round(at_once=True)

    def _ask_all(self, deadline: float) -> None:
        rules = list(self._rules.by_name.values())
        while self._asked.start(rules, self._moment(), at_once=True) or self._asked.busy:
            if time.monotonic() > deadline or self._stopped:
                return
            self._take_answer(timeout_s=0.5)
        self._flush()

    # ── One round ────────────────────────────────────────────────────────────────────────────────────────────

    def _round(self, *, at_once: bool = False) -> None:
        self._look_at_file()
        self._take_events()
        assert self._tail is not None
        if not self._synced and self._tail.complete:
            self._sync()
        if self._synced:
            self._look_at_episodes()
            self._take_answer()
            started = time.monotonic()
            if started >= self._tick_at:
                self._tick(at_once=at_once)
                ended = time.monotonic()
                self._tick_at = ended + max(_TICK_S, _RESTS * (ended - started))
        self._flush()
        self._delivery.again()

    def _look_at_file(self) -> None:
        loaded = self._file.changed()
        if loaded is None:
            return
        for problem in self._telling.messages.use(loaded):
            _logger.warning("alert channels: %s", problem)
        self._problems = problems_of(loaded)
        if put_in_force(self._store, loaded, self._file.path):
            _logger.info("alert rules in force", extra={"rules": len(loaded.rule_set.rules)})
            self._reached("rules in force")
            self._delivery()
            self._use_rules()
            self._synced = False

    def _use_rules(self) -> None:
        self._rules = Rules.stored(self._store)
        self._telling.rules = self._rules.by_name

    def _take_events(self) -> None:
        assert self._tail is not None
        piece = self._tail.taken()
        if piece is not None:
            fresh = book.store_piece(self._store, piece)
            self._reached("events stored")
            for event in fresh:
                self._book.fold(event)

    def _sync(self) -> None:
        """Look at everything that may have changed while nobody looked, or since other rules came into force."""
        self._synced = True
        self._todo = dict.fromkeys(conditions.untold(self._store))
        open_alerts = self._book.open_alerts()
        self._todo |= dict.fromkeys(a.alert_id for a in open_alerts if self._is_streamed(a))
        self._read_clocks()
        now = _now()
        for alert in open_alerts:
            if self._is_obsolete(alert):
                self._decide(conditions.over(alert, self._rule_of(alert), self._clock_of(alert) or now, now))

    def _flush(self) -> None:
        """Append what was decided. It is durable before it is appended."""
        if self._made:
            made, self._made = self._made, []
            with self._store.transaction():
                outbox.put(self._store, [record_of(event) for event in made])
            self._reached("alerts decided")
            self._delivery()
            self._reached("alerts appended")

    def _decide(self, command: Command) -> list[AlertEvent]:
        """The events that follow from a command; they are folded at once, and appended with the others of the round."""
        try:
            events = self._book.decide(command)
        except LedgerError as error:
            _logger.warning("alerts: %s", error)
            return []
        for event in events:
            self._book.fold(event)
        self._made += events
        return events

    # ── Episodes ─────────────────────────────────────────────────────────────────────────────────────────────

    def _look_at_episodes(self) -> None:
        touched = self._store.cache(Touched)
        if touched.ids:
            ids, touched.ids = touched.ids, set()
            fresh = list(ids) if len(ids) <= _AT_ONCE and not self._todo else conditions.in_order(self._store, ids)
            self._todo |= dict.fromkeys(fresh)
        if not self._todo:
            return
        until, now = time.monotonic() + _BUDGET_S, _now()
        ids = set(list(self._todo)[:_AT_ONCE])
        rows = conditions.episodes(self._store, ids)
        for gone in ids - rows.keys():
            del self._todo[gone]
            self._without_episode(gone, now)
        for episode_id, row in rows.items():
            del self._todo[episode_id]
            self._of_episode(row, now)
            if time.monotonic() > until:
                return

    def _of_episode(self, row: Mapping[str, object], now: datetime) -> None:
        rule = self._rules.versions.get((str(row["rule"]), str(row["rule_version"])))
        alert = self._book.alerts.get(str(row["episode_id"]))
        if rule is None or (alert is not None and self._is_obsolete(alert)):
            return
        for condition in conditions.of_episode(row, rule, now):
            if condition.outcome == "holds":
                if any(event.type in _TELLING for event in self._book.decide(condition)):
                    condition = self._with_evidence(condition, rule, row)
                self._decide(condition)
            else:
                self._end(condition)
        alert = self._book.alerts.get(str(row["episode_id"]))
        if row["closed_at"] is None and alert is not None and self._is_obsolete(alert):
            self._decide(conditions.over(alert, rule, self._clocks.evaluated or now, now))

    def _with_evidence(self, condition: Condition, rule: Rule, row: Mapping[str, object]) -> Condition:
        found = behind(self._store, rule, row)
        evidence = {**condition.evidence, **found.counts, "rows": found.rows}
        return replace(condition, evidence=evidence, money_minor=found.money_minor, currency=found.currency)

    def _end(self, condition: Condition) -> None:
        """End an alert, but let people hear of it first, or record why they do not."""
        alert = self._book.alerts.get(condition.alert_id or "")
        if alert is None or not alert.is_open:
            return
        if alert.stands and not alert.told and alert.fired_at and alert.fired_at < condition.now - OF_THE_PAST:
            self._decide(NotDelivered(alert_id=alert.alert_id, reason="catch_up", now=condition.now))
        if _was_heard(alert := self._book.alerts[alert.alert_id]):
            self._decide(condition)
        else:
            self._ending[alert.alert_id] = (condition, time.monotonic() + _UNHEARD_S)

    def _go_on_ending(self, now: datetime) -> None:
        for alert_id, (condition, at_latest) in list(self._ending.items()):
            if _was_heard(self._book.alerts[alert_id]) or time.monotonic() > at_latest:
                del self._ending[alert_id]
                self._decide(replace(condition, now=now))

    def _without_episode(self, alert_id: str, now: datetime) -> None:
        """The condition ceased to hold before the alert fired; or the alert is of another evaluation of the log."""
        alert = self._book.alerts.get(alert_id)
        if alert is None or not alert.is_open:
            return
        if alert.phase == "pending":
            self._decide(conditions.over(alert, self._rule_of(alert), self._clocks.evaluated or alert.at, now))
        else:
            self._orphans[alert_id] = None

    def _look_at_orphans(self, now: datetime) -> None:
        """End alerts without an episode, once everything that is known of them has been evaluated."""
        clock = self._clocks.evaluated
        passed = [i for i in self._orphans if clock is not None and self._book.alerts[i].at < clock]
        there = conditions.episodes(self._store, passed) if passed else {}
        for alert_id in passed:
            del self._orphans[alert_id]
            alert = self._book.alerts[alert_id]
            if alert_id not in there and alert.is_open:
                assert clock is not None
                self._decide(conditions.over(alert, self._rule_of(alert), clock, now))

    # ── Rules on the tables ──────────────────────────────────────────────────────────────────────────────────

    def _take_answer(self, timeout_s: float = 0.0) -> None:
        answer = self._asked.answer(timeout_s)
        if answer is None or self._rules.by_name.get(answer.rule.name) != answer.rule:
            return
        now = _now()
        if answer.problem is not None:
            self._decide(conditions.not_evaluated(answer.rule, answer.problem, now))
            return
        self._decide(conditions.evaluated(answer.rule, now))
        self._found(answer.rule, answer.offenders, answer.at, now)

    def _found(self, rule: Rule, offenders: object, at: datetime, now: datetime) -> None:
        """The condition of the rule holds for these offenders, and for no other key."""
        holding = set()
        for found in offenders:  # type: ignore[attr-defined]
            fingerprint = fingerprint_of(rule.name, conditions.labels_of(found.key))
            holding.add(fingerprint)
            current = self._book.alerts.get(self._book.current.get(fingerprint, ""))
            condition = conditions.of_offender(found, rule, current, at, now)
            if condition is not None:
                self._decide(condition)
        for alert in self._book.open_alerts():
            if (
                alert.rule == rule.name
                and alert.fingerprint not in holding
                and not conditions.is_problem(alert)
                and alert.at <= at
            ):
                self._end(conditions.over(alert, rule, at, now))

    def _look_at_own_rules(self, now: datetime) -> None:
        channels = self._telling.messages.channels()
        failing = {a.rule: a for a in self._book.open_alerts() if conditions.is_problem(a) and a.phase == "error"}
        for rule in self._rules.by_name.values():
            if asked.is_own(rule):
                self._found(rule, own_offenders(rule, channels, failing), now, now)

    def _look_at_problems(self, now: datetime) -> None:
        """What the rules file says wrong is an alert of the rule, until it is mended."""
        if self._problems is None:
            return
        problems, self._problems = self._problems, None
        known = {a.rule for a in self._book.open_alerts() if dict(a.labels) == conditions.RULES_FILE}
        for name in sorted({name or conditions.FILE_RULE for name in problems} | known):
            problem = problems.get("" if name == conditions.FILE_RULE else name)
            self._decide(conditions.of_file(name, self._rules.by_name.get(name), problem, now))

    # ── Time ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _tick(self, *, at_once: bool) -> None:
        now = _now()
        self._read_clocks()
        for event in self._book.tick(now, self._clock_of, lambda a: conditions.terms_of(self._rule_of(a))):
            self._book.fold(event)
            self._made.append(event)
        self._look_at_problems(now)
        self._look_at_own_rules(now)
        self._look_at_orphans(now)
        self._tell(now, at_once=at_once)
        self._go_on_ending(now)
        self._asked.start(self._rules.by_name.values(), self._moment(now))
        self._count()

    def _tell(self, now: datetime, *, at_once: bool) -> None:
        queued = self._telling.messages.queued()
        for command in list(self._telling.outcomes(queued, self._book, now)):
            self._decide(command)
        routing = self._telling.route(queued, self._book, now, self._clocks.data, at_once=at_once)
        if routing.messages:
            self._reached("messages queued")
        for held in routing.held:
            self._decide(NotDelivered(alert_id=held.alert_id, reason=held.reason, cause=held.cause, now=now))
        self._flush()
        self._telling.forget(queued, self._book)

    def _read_clocks(self) -> None:
        rows = self._store.rows("SELECT topic, released_until, clock FROM alert_progress")
        self._clocks = _Clocks(
            min((clock.replace(tzinfo=UTC) for _, _, clock in rows), default=None),
            asked.data_clock(self._store),
            {topic: until.replace(tzinfo=UTC) for topic, until, _ in rows},
        )

    def _moment(self, now: datetime | None = None) -> Moment:
        return Moment(now or _now(), self._clocks.data)

    def _clock_of(self, alert: Alert) -> datetime | None:
        """The clock by which time passes for an alert; None: the wall clock."""
        if conditions.is_problem(alert):
            return None
        if self._is_streamed(alert):
            # The evaluation says when a pending alert fires; time alone does not.
            return alert.since if alert.phase == "pending" else self._clocks.evaluated or alert.at
        rule = self._rule_of(alert)
        return None if rule is None or asked.follows_the_wall_clock(rule) else self._clocks.data

    def _rule_of(self, alert: Alert) -> Rule | None:
        known = self._rules.versions.get((alert.rule, alert.rule_version or ""))
        return self._rules.by_name.get(alert.rule, known)

    def _is_streamed(self, alert: Alert) -> bool:
        rule = self._rule_of(alert)
        return rule is not None and rule.expr.kind in STREAMED and not conditions.is_problem(alert)

    def _is_obsolete(self, alert: Alert) -> bool:
        """Whether no rule in force says any more whether the alert's condition holds."""
        rule = self._rules.by_name.get(alert.rule)
        if rule is None:
            return dict(alert.labels) != conditions.RULES_FILE
        return self._is_streamed(alert) and alert.rule_version != rule.version

    def _count(self) -> None:
        counts: dict[tuple[str, str], int] = {}
        for alert in self._book.open_alerts():
            key = (alert.rule, alert.severity)
            counts[key] = counts.get(key, 0) + 1
        self.figures = Figures(counts, dict(self._clocks.until), self._telling.messages.channels())


def _was_heard(alert: Alert) -> bool:
    """Whether people were told of the alert, or need not be, or it is recorded why they were not."""
    return not alert.stands or bool(alert.told) or (alert.withheld is not None and alert.withheld.reason != "grouped")


def _now() -> datetime:
    return datetime.now(UTC)
