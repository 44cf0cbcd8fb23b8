"""Rules on the tables: when each is asked, and the thread that asks.

One rule at a time, on a cursor of its own beside the consumer, in one committed state, and for a limited time. Between
two rules the thread rests for a multiple of what the last one took, so that the consumer keeps its speed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from coupon_ledger.ledger.words import Note, note, of_error
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import ASKED, SETTLED, Health, Rule, Sql
from coupon_ledger.projections.connection import Cursor, Reading
from coupon_ledger.projections.readers import Running
from coupon_ledger.projections.store import Store

_LIMIT: Final = timedelta(seconds=30)
_RESTS: Final = 9.0
_ON_TABLES: Final = SETTLED | ASKED
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a rule is asked, and what the tables do not say. `now`: by the wall clock; `clock`: by the data's; both
    aware, in UTC. `clock` is None before the first event. `lag_records`: how many records of the log wait; `lag_s`: for
    how long, in seconds. `dead_channels`, `failing_rules`: by name, how often in a row they have failed.
    `problems`: why the failing rules failed."""

    now: datetime
    clock: datetime | None
    lag_s: float = 0.0
    lag_records: int = 0
    dead_channels: Mapping[str, int] = field(default_factory=dict)
    failing_rules: Mapping[str, int] = field(default_factory=dict)
    problems: Mapping[str, Note] = field(default_factory=dict)


Find = Callable[[Cursor, Rule, Moment], Sequence[Offender]]
"""Finds the offenders of a rule on the tables, in one committed state."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What asking a rule gave, at `at` by the rule's clock: its offenders or, if it failed, the `problem`."""

    rule: Rule
    at: datetime
    offenders: Sequence[Offender] = ()
    problem: Note | None = None


def follows_the_wall_clock(rule: Rule) -> bool:
    return isinstance(rule.expr, Health)


class Asked:
    """Asks the rules on the tables with `find`; None: asks none. Use from one thread. `failures`, `problems`: by the
    name of a rule, how often in a row its evaluation has failed, and why."""

    def __init__(self, store: Store, find: Find | None) -> None:
        self.failures: dict[str, int] = {}
        self.problems: dict[str, Note] = {}
        self._find = find
        self._cursor = store.cursor()
        self._pool = ThreadPoolExecutor(1, "alerts asked")
        self._running: Future[tuple[Answer, float]] | None = None
        self._question = Running()
        self._last: dict[tuple[str, str], datetime] = {}
        self._rest_until = 0.0

    def use(self, store: Store) -> None:
        """From now on, ask `store`, another generation of the database."""
        self._stop()
        self._cursor.close()
        self._cursor = store.cursor()
        self.forget()

    def close(self) -> None:
        self._stop()
        self._pool.shutdown()
        self._cursor.close()

    def forget(self) -> None:
        """Forget when rules were asked, so that each is due."""
        self._last.clear()

    def _stop(self) -> None:
        if self._running is not None:
            self._question.stop("the consumer stops")
            self._running.exception()
            self._running = None

    @property
    def busy(self) -> bool:
        return self._running is not None

    def start(self, rules: Iterable[Rule], moment: Moment, *, at_once: bool = False) -> bool:
        """Start to ask the rule that is due for longest. Returns whether one was started. `at_once`: without rest."""
        if self._find is None or self.busy or (not at_once and time.monotonic() < self._rest_until):
            return False
        on_tables = [rule for rule in rules if rule.expr.kind in _ON_TABLES]
        due = [(waited, rule) for rule in on_tables if (waited := self._waited(rule, moment)) >= 1]
        if not due:
            return False
        _, rule = max(due, key=lambda pair: pair[0])
        at = _clock(rule, moment)
        assert at is not None
        self._last[rule.name, rule.version] = at
        self._question = Running()
        limit = rule.expr.timeout if isinstance(rule.expr, Sql) else _LIMIT
        self._running = self._pool.submit(self._ask, self._cursor, self._question, rule, moment, limit)
        return True

    def _waited(self, rule: Rule, moment: Moment) -> float:
        """For how many of its intervals the rule has not been asked."""
        at = _clock(rule, moment)
        if at is None:
            return 0.0
        last = self._last.get((rule.name, rule.version))
        return float("inf") if last is None else (at - last) / rule.every

    def answer(self, timeout_s: float = 0.0) -> Answer | None:
        """The answer of the rule that was asked; None if it is not there within `timeout_s`."""
        if self._running is None:
            return None
        if not wait([self._running], max(0.0, timeout_s)).done:
            return None
        answer, seconds = self._running.result()
        self._running = None
        self._rest_until = time.monotonic() + _RESTS * seconds
        if answer.problem is None:
            self.failures.pop(answer.rule.name, None)
            self.problems.pop(answer.rule.name, None)
        else:
            self.failures[answer.rule.name] = self.failures.get(answer.rule.name, 0) + 1
            self.problems[answer.rule.name] = answer.problem
        return answer

    def _ask(
        self, cursor: Cursor, question: Running, rule: Rule, moment: Moment, limit: timedelta
    ) -> tuple[Answer, float]:
        started = time.monotonic()
        answer = self._answered(cursor, question, rule, moment, limit)
        return answer, time.monotonic() - started

    def _answered(self, cursor: Cursor, question: Running, rule: Rule, moment: Moment, limit: timedelta) -> Answer:
        assert self._find is not None
        at = moment.now
        try:
            question.enter(cursor, limit.total_seconds())
            cursor.begin()
            moment = replace(moment, clock=data_clock(cursor))
            at = _clock(rule, moment) or moment.now
            return Answer(rule, at, tuple(self._find(cursor, rule, moment)))
        except Exception as error:  # whatever a rule does, the others are asked
            if question.stopped is not None:
                seconds = f"{limit.total_seconds():g}"
                return Answer(rule, at, problem=note("it took longer than {seconds} s", seconds=seconds))
            _logger.warning("alert rule %s: %s", rule.name, error)
            return Answer(
                rule, at, problem=of_error(error) if str(error) else note("{words}", words=type(error).__name__)
            )
        finally:
            question.leave()
            cursor.end()


def _clock(rule: Rule, moment: Moment) -> datetime | None:
    return moment.now if follows_the_wall_clock(rule) else moment.clock


def data_clock(reading: Reading) -> datetime | None:
    """The data's clock, aware; None before the first event."""
    [(clock,)] = reading.rows("SELECT data_clock FROM ledger")
    return None if clock is None else clock.replace(tzinfo=UTC)
