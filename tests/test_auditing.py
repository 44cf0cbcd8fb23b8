"""The record of who did what over HTTP, when views repeat and when the log is away."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from coupon_ledger.api.service import auditing
from coupon_ledger.api.service.appending import Appended
from coupon_ledger.api.service.auditing import Audit, without_personal
from coupon_ledger.ledger.errors import LogUnavailable
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.operations import Operation, operation_of


class Log:
    """Takes records while it is there."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.there.set()
        self.records: list[Record] = []

    def append(self, _: str, records: Sequence[Record]) -> Future[Appended]:
        future: Future[Appended] = Future()
        if self.there.is_set():
            self.records += records
            future.set_result(Appended([None] * len(records), {}, frozenset()))
        else:
            future.set_exception(LogUnavailable("log: away"))
        return future

    def operations(self) -> list[Operation]:
        return [operation_of(record.value) for record in self.records]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "_AGAIN_S", 0.01)


def test_repeated_views_are_one_record_and_a_count() -> None:
    """Otherwise a page that refreshes itself fills the topic."""
    log, now = Log(), [0.0]
    audit = Audit(log.append, lambda: now[0])
    for _ in range(5):
        audit.view("asked", "mei", "campaigns", {"format": "json"})
    audit.view("asked", "li", "campaigns", {"format": "json"})
    now[0] = auditing.SAME_S + 1
    audit.view("asked", "mei", "campaigns", {"format": "json"})
    audit.close()
    told = sorted((one.operator, (one.details or {}).get("further", 0)) for one in log.operations())
    assert told == [("li", 0), ("mei", 0), ("mei", 0), ("mei", 4)]


def test_while_the_log_is_away_records_wait_and_a_loss_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an outage of the log leaves a gap that nobody sees."""
    monkeypatch.setattr(auditing, "MOST_WAITING", 3)
    log = Log()
    log.there.clear()
    audit = Audit(log.append)
    for n in range(5):
        audit.note("person_added", "mei", f"p-{n}")
    assert audit.lost == 2
    log.there.set()
    audit.close()
    told = log.operations()
    assert [one.subject for one in told if one.action == "person_added"] == ["p-0", "p-1", "p-2"]
    assert [one.details for one in told if one.action == "records_lost"] == [{"count": 2}]


def test_values_that_may_name_a_customer_are_not_recorded() -> None:
    given = {"coupon": "c-1", "user": "u-1", "campaign": "8", "a later parameter": "x"}
    assert without_personal(given) == {
        "coupon": "(not recorded)",
        "user": "(not recorded)",
        "campaign": "8",
        "a later parameter": "(not recorded)",
    }
