"""Runs tests of alert rules: folds the events of each into a database of its own, and compares the alerts with those
that are expected. Rules on the stream are evaluated as in a backtest, rules on the tables as the owner asks them, after
the last event.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import polars as pl

from coupon_ledger.ledger.codec import encode
from coupon_ledger.ledger.errors import RuleFailed
from coupon_ledger.ledger.log import TopicPartition
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.ledger.validity import valid_events
from coupon_ledger.ledger.words import Note, of_error
from coupon_ledger.projections.alerts.backtest import replay
from coupon_ledger.projections.alerts.rule_test_events import Timed
from coupon_ledger.projections.alerts.rule_tests import Case, Expectation, ExpectedAlert, Suite
from coupon_ledger.projections.alerts.rules import STREAMED, Rule
from coupon_ledger.projections.alerts.template_fields import ALSO
from coupon_ledger.projections.checkpoints import Completeness
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.alerts.offenders import offenders_of

_ENOUGH: Final = 1e-9
_FOREVER: Final = datetime(9999, 1, 1)


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """An alert that a rule raised. `after`: when it fired, after the start of the test; None for a rule on the tables,
    which is asked after the last event."""

    rule: str
    key: Mapping[str, str]
    after: timedelta | None
    value: float


@dataclass(frozen=True, slots=True)
class Difference:
    """An expected alert that was not raised (`missing`), one that was raised with another time or value (`different`),
    one that was not expected (`unexpected`), or a rule that could not be evaluated (`failed`, with `why`)."""

    kind: Literal["missing", "different", "unexpected", "failed"]
    expected: Expectation | None = None
    raised: RaisedAlert | None = None
    why: Note | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a test gave: it has passed if there are no differences."""

    case: Case
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        return not self.differences


def run(suite: Suite) -> Iterator[Outcome]:
    """Run the tests of a file, one after the other. There must be no problems in it."""
    with TemporaryDirectory(prefix="alerts-test-") as name:
        folder = Path(name)
        create_database(folder / "empty.duckdb")
        for case in suite.cases:
            with _store(folder) as store:
                yield _outcome(store, case)


@contextmanager
def _store(folder: Path) -> Iterator[Store]:
    """An empty database, which is removed after the block."""
    path = folder / "test" / "test.duckdb"
    path.parent.mkdir()
    shutil.copyfile(folder / "empty.duckdb", path)
    try:
        with open_database(path) as store:
            store.execute("PRAGMA disable_checkpoint_on_shutdown")
            yield store
    finally:
        shutil.rmtree(path.parent)


def _outcome(store: Store, case: Case) -> Outcome:
    _fold(store, case.events)
    cursor = store.cursor()
    try:
        raised = list(_streamed(cursor, case))
        failed: list[Difference] = []
        for rule in case.of:
            if rule.expr.kind not in STREAMED:
                try:
                    raised += _asked(cursor, rule)
                except RuleFailed as error:
                    failed.append(Difference("failed", why=of_error(error)))
    finally:
        cursor.close()
    return Outcome(case, (*failed, *differences(case.expected, raised)))


# ── From events to alerts ────────────────────────────────────────────────────────────────────────────────────


def _fold(store: Store, events: Sequence[Timed]) -> None:
    """Fold the events, each at the instant at which it was recorded, as one partition of each topic."""
    last = max(event.recorded_at for event in events).replace(tzinfo=None)
    with store.transaction():
        for topic in INPUT_TOPICS:
            mine = [timed for timed in events if timed.event.topic == topic]
            if mine:
                apply(store, topic, _frame(topic, mine))
        Completeness({TopicPartition(topic, 0): last for topic in INPUT_TOPICS}).save(store)


def _frame(topic: str, events: Sequence[Timed]) -> pl.DataFrame:
    frame, dead = valid_events(topic, [encode(timed.event) for timed in events])
    assert not dead, dead
    return frame.drop("row").with_columns(
        pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        recorded_at=pl.Series([t.recorded_at.replace(tzinfo=None) for t in events], dtype=pl.Datetime("us")),
        log_partition=pl.lit(0, pl.Int32),
        log_offset=pl.int_range(pl.len(), dtype=pl.Int64),
    )


def _streamed(cursor: Cursor, case: Case) -> Iterator[RaisedAlert]:
    rules = [rule for rule in case.of if rule.expr.kind in STREAMED]
    cursor.begin()
    try:
        found = replay(cursor, rules, _FOREVER)
    finally:
        cursor.end()
    for row in found.drop_nulls("fired_at").iter_rows(named=True):
        after = row["fired_at"].replace(tzinfo=UTC) - case.start
        yield RaisedAlert(row["rule"], _plain(json.loads(row["key"])), after, row["value"])


def _asked(cursor: Cursor, rule: Rule) -> list[RaisedAlert]:
    cursor.begin()
    try:
        return [RaisedAlert(rule.name, _plain(o.key), None, o.value) for o in offenders_of(cursor, rule)]
    finally:
        cursor.end()


def _plain(key: Mapping[str, str]) -> dict[str, str]:
    """The key with one name for the campaign, whatever the rule calls it."""
    return {ALSO.get(name, name): value for name, value in key.items()}


# ── Comparing ────────────────────────────────────────────────────────────────────────────────────────────────


def differences(expected: Sequence[Expectation], raised: Sequence[RaisedAlert]) -> Iterator[Difference]:
    """How the alerts differ from those expected. Each alert answers one expectation at most, and as many expectations
    are answered as possible."""
    answers = _matched(expected, raised)
    rest = [alert for number, alert in enumerate(raised) if number not in answers.values()]
    for number, wanted in enumerate(expected):
        if number in answers:
            continue
        near = next((alert for alert in rest if _is_about(alert, wanted.alert)), None)
        if near is None:
            yield Difference("missing", wanted)
        else:
            rest.remove(near)
            yield Difference("different", wanted, near)
    yield from (Difference("unexpected", raised=alert) for alert in rest)


def _matched(expected: Sequence[Expectation], raised: Sequence[RaisedAlert]) -> dict[int, int]:
    """A largest matching, found by augmenting paths (Kuhn): by number of an expectation, that of its alert."""
    fitting = [[n for n, alert in enumerate(raised) if _fits(alert, wanted.alert)] for wanted in expected]
    taken: dict[int, int] = {}

    def take(wanted: int, tried: set[int]) -> bool:
        for alert in fitting[wanted]:
            if alert not in tried:
                tried.add(alert)
                if alert not in taken or take(taken[alert], tried):
                    taken[alert] = wanted
                    return True
        return False

    for wanted in range(len(expected)):
        take(wanted, set())
    return {wanted: alert for alert, wanted in taken.items()}


def _is_about(alert: RaisedAlert, wanted: ExpectedAlert) -> bool:
    """Whether the alert is of the same rule, and has the parts of the key that are named."""
    return alert.rule == wanted.rule and _plain(wanted.key).items() <= dict(alert.key).items()


def _fits(alert: RaisedAlert, wanted: ExpectedAlert) -> bool:
    in_time = True
    if alert.after is not None and wanted.has_time:
        earliest, latest = wanted.between or (wanted.fired, wanted.fired)
        assert earliest is not None and latest is not None
        in_time = earliest <= alert.after <= latest
    same = wanted.value is None or math.isclose(alert.value, wanted.value, rel_tol=_ENOUGH, abs_tol=_ENOUGH)
    return in_time and same and _is_about(alert, wanted)
