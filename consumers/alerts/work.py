"""The owner's work with alerts: one round after each commit, and whenever nothing is to be read.

A round is bounded in time: it takes what another thread has read of `coupon.alerts`, looks at some changed episodes,
and about once a second lets time pass, puts messages into the queue and asks one rule. It never waits for the log, a
channel or a rule. What it decides goes into the outbox in one transaction, and from there to the log.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from coupon_ledger.consumers import outbox
from coupon_ledger.consumers.alerts import book, conditions
from coupon_ledger.consumers.alerts.asked import Asked, Find, Moment
from coupon_ledger.consumers.alerts.automatic import Automatic
from coupon_ledger.consumers.alerts.episodes import EpisodeWork
from coupon_ledger.consumers.alerts.known import Clocks, Known
from coupon_ledger.consumers.alerts.rules import Rules, RulesFile, problems_of, put_in_force, say_mended
from coupon_ledger.consumers.alerts.tail import Opening, Tail
from coupon_ledger.consumers.alerts.telling import Channel, Messages, NoMessages, Telling
from coupon_ledger.consumers.runner import Boundary, Committed
from coupon_ledger.ledger.alert_commands import NotDelivered
from coupon_ledger.ledger.alert_events import AlertEvent, fingerprint_of, record_of
from coupon_ledger.ledger.alert_problems import EVALUATION, FILE_RULE, RULES_FILE
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import LedgerError, QueueUnusable, StoreError
from coupon_ledger.ledger.log import EventLog
from coupon_ledger.ledger.topics import ALERTS
from coupon_ledger.ledger.words import Note
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.store import Store

_TICK_S: Final = 1.0
_RESTS: Final = 20.0
"""Time passes every `_TICK_S`, but more rarely if that takes long, with very many open alerts."""
_AGAIN_S: Final = 60.0
_PATIENCE_S: Final = 60.0
_DELIVERY_S: Final = 15.0
_BEGINNINGS: Final = frozenset({"fired", "no_data", "error"})
"""Events after which people must know of an alert."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Figures:
    """How alerts are at the moment. `open`: open alerts by rule and severity. `evaluated_until`: by topic, the instant
    of recording up to which the streamed rules were evaluated. `channels`: how channels fare, by name."""

    open: Mapping[tuple[str, str], int] = field(default_factory=dict)
    evaluated_until: Mapping[str, datetime] = field(default_factory=dict)
    channels: Mapping[str, Channel] = field(default_factory=dict)


class AlertWork:
    """Follows the alert rules of one database. The owner's thread calls `begin`, then the object itself after each
    commit, and `close`; all in one thread.

    `rules`: the rules file; None: the defaults. `reader`: opens the log for the thread that reads `coupon.alerts`; by
    default, that thread uses `log`, which must then stand two readers. `find`: evaluates the rules on the tables; None:
    these are not evaluated. `messages`: closed by whoever made it. `announce`: called in each round with the alerts
    that have begun to stand since, mostly none, once that is in the log. `figures`: for other threads, replaced as a
    whole.
    """

    def __init__(
        self,
        store: Store,
        log: EventLog,
        *,
        rules: Path | None = None,
        reader: Opening | None = None,
        find: Find | None = None,
        messages: Messages | None = None,
        announce: Callable[[Sequence[Alert]], None] = lambda _: None,
        at_boundary: Boundary = lambda _: None,
    ) -> None:
        self.figures = Figures()
        self._store = store
        self._log = log
        self._reader: Opening = reader or (lambda: nullcontext(log))
        self._file = RulesFile(rules)
        self._announce = announce
        self._reached = at_boundary
        self._telling = Telling(messages or NoMessages())
        self._asked = Asked(store, find)
        self._stopped = False
        self._pause_until = 0.0
        self._problems: dict[str, Note] | None = None
        self._tail: Tail | None = None
        self._lag = 0
        self._newest: float | None = None

    # ── For the owner ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Put the rules of the file in force, before the first batch is folded. Without a queue of messages, events are
        folded all the same."""
        self._open()
        try:
            self._look_at_file()
        except QueueUnusable as error:
            self._later(error)

    def committed(self, commit: Committed) -> None:
        """Note how far the consumer is behind the log."""
        self._lag = commit.lag
        self._newest = commit.newest_recorded_at or self._newest

    def use(self, store: Store) -> None:
        """From now on, work on `store`, another generation of the database, whose rules in force are the same."""
        self._store = store
        self._asked.use(store)
        self._open()

    def _open(self) -> None:
        """Know what the store says, and nothing else: everything can be made again from it."""
        if self._tail is not None:
            self._tail.close()
        self._delivery = outbox.Delivery(self._store, self._log)
        self._known = Known(book=book.made(self._store))
        self._episodes = EpisodeWork(self._store, self._known)
        self._synced = False
        self._tick_at = 0.0
        self._use_rules()
        self._automatic = Automatic(self._store, self._known)
        self._read_to = book.positions(self._store)
        self._tail = Tail(self._reader, self._read_to)

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
            self._later(error)

    def _later(self, error: Exception) -> None:
        if isinstance(error, LedgerError):
            _logger.warning("alerts: %s; going on in %.0f s", error, _AGAIN_S)
        else:
            _logger.error("alerts: an error of the program; going on in %.0f s", _AGAIN_S, exc_info=error)
        self._pause_until = time.monotonic() + _AGAIN_S
        self._file = RulesFile(self._file.path)
        self._open()

    def finish(self) -> None:
        """For a run that ends with the log: look at all that changed, ask every rule once, and send what is due,
        without waiting for further alerts of a group. Takes about a minute at most, and logs what it left out."""
        deadline = time.monotonic() + _PATIENCE_S
        self._tick_at = float("inf")
        while not (self._synced and self._episodes.done):
            if self._stopped:
                return
            assert self._tail is not None
            past = time.monotonic() > deadline or time.monotonic() < self._pause_until
            if past or self._tail.lacks_topic:
                _logger.warning("alerts: not everything was looked at; the next `consume` goes on")
                return
            self()
            if not self._synced:
                time.sleep(0.01)
        self._known.clocks = Clocks.read(self._store)
        self._asked.forget()  # what was found while the consumer was behind may be over
        self._ask_all(deadline)
        self._tick(at_once=True)
        self._flush()
        self._telling.messages.settle(max(0.0, min(_DELIVERY_S, deadline - time.monotonic())))
        self._tick(at_once=True)
        self._flush()
        self._store_own(deadline)
        while self._automatic.complete() and time.monotonic() < deadline:
            self._flush()
        self._flush()

    def _store_own(self, deadline: float) -> None:
        """Wait until what was appended has come back, so that whoever asks the database next knows of it."""
        try:
            ends = self._log.end_positions(self._log.partitions([ALERTS]))
        except LedgerError as error:
            _logger.warning("alerts: %s", error)
            return
        while time.monotonic() < deadline and any(self._read_to.get(p, 0) < end for p, end in ends.items()):
            self._take_events(timeout_s=0.1)

    def _ask_all(self, deadline: float) -> None:
        rules = list(self._known.rules.by_name.values())
        while self._asked.busy or self._asked.start(rules, self._moment(_now()), at_once=True):
            if self._stopped:
                return
            if time.monotonic() > deadline:
                _logger.warning("alerts: not every rule on the tables was asked; the next `consume` asks them")
                return
            self._take_answer(timeout_s=0.5)

    # ── One round ────────────────────────────────────────────────────────────────────────────────────────────

    def _round(self) -> None:
        self._look_at_file()
        self._take_events()
        assert self._tail is not None
        if not self._synced and self._tail.complete:
            self._synced = True
            self._episodes.look_at_all(_now())
        if self._synced:
            self._automatic.complete()
            self._episodes.look(_now())
            self._take_answer()
            started = time.monotonic()
            if started >= self._tick_at:
                self._tick()
                ended = time.monotonic()
                self._tick_at = ended + max(_TICK_S, _RESTS * (ended - started))
        self._flush()
        self._delivery.again()

    def _look_at_file(self) -> None:
        loaded = self._file.changed()
        if loaded is None:
            return
        was_broken = bool(self._problems)
        self._problems = problems_of(loaded)
        if put_in_force(self._store, loaded, self._file.path):
            self._reached("rules in force")
            self._delivery()
            self._use_rules()
            self._synced = False
        unusable = self._telling.messages.use(loaded)
        for problem in unusable:
            _logger.warning("alert channels: %s", problem)
        self._problems = problems_of(loaded, unusable)
        if was_broken and not self._problems:
            say_mended(self._file.path)

    def _use_rules(self) -> None:
        self._known.rules = Rules.stored(self._store)
        self._telling.rules = self._known.rules.by_name

    def _take_events(self, timeout_s: float = 0.0) -> None:
        assert self._tail is not None
        piece = self._tail.taken(timeout_s)
        if piece is not None:
            self._read_to = piece.positions
            fresh = book.store_piece(self._store, piece)
            self._reached("events stored")
            for event in fresh:
                self._known.book.fold(event)
                self._automatic.see(event)

    def _flush(self) -> None:
        """Append what was decided, and announce which alerts fired. It is durable before it is appended."""
        made: list[AlertEvent] = []
        if self._known.made or self._known.records:
            made, self._known.made = self._known.made, []
            records, self._known.records = self._known.records, []
            with self._store.transaction():
                outbox.put(self._store, [*(record_of(event) for event in made), *records])
            self._reached("alerts decided")
            self._delivery()
            self._reached("alerts appended")
        self._announce(self._begun(made))

    def _begun(self, made: Iterable[AlertEvent]) -> list[Alert]:
        """The alerts that people must know of since these events."""
        alerts = self._known.book.alerts
        named = dict.fromkeys(event.alert_id or "" for event in made if event.type in _BEGINNINGS)
        firing = {event.alert_id for event in made if event.type == "fired"}
        return [alerts[i] for i in named if i in alerts and (i in firing or alerts[i].fired_at is None)]

    # ── Rules on the tables ──────────────────────────────────────────────────────────────────────────────────

    def _take_answer(self, timeout_s: float = 0.0) -> None:
        answer = self._asked.answer(timeout_s)
        if answer is None or self._known.rules.by_name.get(answer.rule.name) != answer.rule:
            return
        now = _now()
        if answer.problem is not None:
            self._known.decide(conditions.not_evaluated(answer.rule, answer.problem, now))
            return
        self._known.decide(conditions.evaluated(answer.rule, now))
        self._found(answer.rule, answer.offenders, answer.at, now)

    def _found(self, rule: Rule, offenders: Iterable[Offender], at: datetime, now: datetime) -> None:
        """The condition of the rule holds for these offenders at `at`, by the rule's clock, and for no other key."""
        alerts, current = self._known.book.alerts, self._known.book.current
        holding = set()
        for found in offenders:
            fingerprint = fingerprint_of(rule.name, conditions.labels_of(found.key))
            holding.add(fingerprint)
            condition = conditions.of_offender(found, rule, alerts.get(current.get(fingerprint, "")), at, now)
            if condition is not None:
                self._known.decide(condition)
        for alert in self._known.book.open_alerts():
            others = alert.rule == rule.name and alert.fingerprint not in holding
            if others and not conditions.is_problem(alert) and alert.at <= at:
                self._episodes.end(conditions.over(alert, rule, at, now))

    def _moment(self, now: datetime) -> Moment:
        lag_s = 0.0 if not self._lag or self._newest is None else max(0.0, time.time() - self._newest)
        dead = {name: c.failures for name, c in self._telling.messages.channels().items() if c.dead}
        unwell = [a for a in self._known.book.open_alerts() if dict(a.labels) == EVALUATION and a.phase == "error"]
        failing = dict.fromkeys((alert.rule for alert in unwell), 1) | self._asked.failures
        problems = {a.rule: conditions.problem_of(a) for a in unwell} | self._asked.problems
        return Moment(now, self._known.clocks.data, lag_s, self._lag, dead, failing, problems)

    def _look_at_problems(self, now: datetime) -> None:
        """What the rules file says wrong is an alert of the rule, until it is mended."""
        if self._problems is None:
            return
        problems, self._problems = self._problems, None
        known = {a.rule: a for a in self._known.book.open_alerts() if dict(a.labels) == RULES_FILE}
        for name in sorted({name or FILE_RULE for name in problems} | known.keys()):
            said = problems.get("" if name == FILE_RULE else name)
            rule, file = self._known.rules.by_name.get(name), str(self._file.path or "")
            for condition in conditions.of_file(name, rule, file, said, known.get(name), now):
                self._known.decide(condition)

    # ── Time ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _tick(self, *, at_once: bool = False) -> None:
        now, known = _now(), self._known
        known.clocks = Clocks.read(self._store)
        known.note(known.book.tick(now, known.clock_of, lambda a: conditions.terms_of(known.rule_of(a))))
        self._look_at_problems(now)
        self._automatic.take(now)
        self._tell(now, at_once=at_once)
        self._episodes.go_on(now)
        self._asked.start(known.rules.by_name.values(), self._moment(now))
        counts = Counter((alert.rule, alert.severity) for alert in known.book.open_alerts())
        self.figures = Figures(counts, known.clocks.until, self._telling.messages.channels())

    def _tell(self, now: datetime, *, at_once: bool) -> None:
        known = self._known
        self._flush()  # nobody is told of an alert that a crash could still lose
        queued = self._telling.messages.queued()
        for outcome in list(self._telling.outcomes(queued, known.book, now)):
            known.decide(outcome)
        routing = self._telling.route(queued, known.book, now, known.clocks.data, at_once=at_once)
        if routing.messages:
            self._reached("messages queued")
        for held in routing.held:
            known.decide(NotDelivered(alert_id=held.alert_id, reason=held.reason, cause=held.cause, now=now))
        self._flush()
        self._telling.forget(queued, known.book)


def _now() -> datetime:
    return datetime.now(UTC)
