"""Group commit: each request gets exactly its own results, whatever the log does to the group that it was in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest

from coupon_ledger.api.service import appending
from coupon_ledger.api.service.appending import Appender
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.errors import AppendFailed, LogFull, LogUnavailable
from coupon_ledger.ledger.log import EventLog, Position, Record
from coupon_ledger.ledger.topics import COUPON

WITHIN_S = 20.0


class FakeLog:
    """Notes what is appended, and answers as `answer` says. Each append waits until the gate is open."""

    def __init__(self) -> None:
        self.appends: list[list[bytes]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.closed = False
        self.answer: Callable[[Sequence[Record]], None] = lambda _: None

    def append(self, records: Sequence[Record]) -> list[Position]:
        self.entered.set()
        assert self.gate.wait(WITHIN_S)
        self.answer(records)
        start = sum(map(len, self.appends))
        self.appends.append([record.key for record in records])
        return [Position(COUPON, 0, start + n) for n in range(len(records))]

    def close(self) -> None:
        self.closed = True


def records(*names: str) -> list[Record]:
    return [Record(COUPON, name.encode(), b"") for name in names]


@contextmanager
def appending_to(log: FakeLog) -> Iterator[Appender]:
    appender = Appender(cast(EventLog, log))
    try:
        yield appender
    finally:
        log.gate.set()
        appender.close()


@contextmanager
def one_at_work(log: FakeLog) -> Iterator[Appender]:
    """One request is being appended, so that all others wait and form one group."""
    with appending_to(log) as appender:
        first = appender.append("first", records("first"))
        assert log.entered.wait(WITHIN_S)
        yield appender
        assert first.result(WITHIN_S).positions == [Position(COUPON, 0, 0)]


def test_requests_that_wait_are_appended_together() -> None:
    """Else a disk that takes 10 ms would take only a hundred single events per second."""
    log = FakeLog()
    with one_at_work(log) as appender:
        futures = [appender.append(f"caller {n}", records(f"{n}-a", f"{n}-b")) for n in range(50)]
        assert appender.waiting == 101
        log.gate.set()
        done = [future.result(WITHIN_S) for future in futures]
    assert [one.positions for one in done] == [
        [Position(COUPON, 0, 1 + 2 * n), Position(COUPON, 0, 2 + 2 * n)] for n in range(50)
    ]
    assert len(log.appends) == 2
    assert appender.waiting == 0


def test_each_request_hears_of_its_own_failures_alone() -> None:
    """Else a client would send an event again that is there, or believe one to be there that is not."""
    log = FakeLog()

    def fail(appended: Sequence[Record]) -> None:
        failures = {i: f"no {r.key.decode()}" for i, r in enumerate(appended) if r.key.startswith(b"bad")}
        too_large = {i: why for i, why in failures.items() if appended[i].key == b"bad-large"}
        if failures:
            raise AppendFailed("some failed", failures, too_large)

    log.answer = fail
    with one_at_work(log) as appender:
        whole = appender.append("a", records("a1", "a2"))
        mixed = appender.append("b", records("b1", "bad-b", "bad-large"))
        last = appender.append("c", records("bad-c", "c1"))
        log.gate.set()
        assert whole.result(WITHIN_S) == ([None, None], {}, frozenset())
        assert mixed.result(WITHIN_S) == ([None] * 3, {1: "no bad-b", 2: "no bad-large"}, frozenset({2}))
        assert last.result(WITHIN_S) == ([None, None], {0: "no bad-c"}, frozenset())


@pytest.mark.parametrize("error", [LogUnavailable("away"), LogFull("full"), RuntimeError("a fault")], ids=repr)
def test_a_log_that_fails_fails_those_who_wait_and_then_goes_on(error: Exception) -> None:
    """Else one outage would leave requests hanging, or end publishing for good."""
    log = FakeLog()

    def fail(_: Sequence[Record]) -> None:
        if log.appends:
            raise error

    log.answer = fail
    with one_at_work(log) as appender:
        waiting = [appender.append("a", records("a")), appender.append("b", records("b"))]
        log.gate.set()
        for future in waiting:
            with pytest.raises(type(error)):
                future.result(WITHIN_S)
        log.answer = lambda _: None
        assert appender.append("a", records("a")).result(WITHIN_S).positions == [Position(COUPON, 0, 1)]


def test_a_client_that_has_gone_does_not_end_publishing() -> None:
    """Else a request that is cancelled while it waits would stop the appender, and all later requests would hang."""
    log = FakeLog()
    with one_at_work(log) as appender:
        gone = appender.append("gone", records("gone"))
        stays = appender.append("stays", records("stays"))
        assert gone.cancel()
        log.gate.set()
        assert stays.result(WITHIN_S).positions == [Position(COUPON, 0, 1)]
        assert appender.append("later", records("later")).result(WITHIN_S).failures == {}
    assert log.appends == [[b"first"], [b"stays"], [b"later"]]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a log that hangs would fill the memory; one caller must not use up the room of all."""
    monkeypatch.setattr(appending, "MOST_WAITING", 10)
    monkeypatch.setattr(appending, "MOST_OF_ONE", 5)
    log = FakeLog()
    with one_at_work(log) as appender:
        kept = [appender.append("a", records(*"abcde"))]
        refused: list[Any] = []
        for caller, names in (("a", "f"), ("b", "abcdef")):
            with pytest.raises(Refusal) as error:
                appender.append(caller, records(*names))
            refused.append((error.value.status, error.value.headers))
        assert refused == [(429, {"Retry-After": "1"}), (503, {"Retry-After": "1"})]
        kept.append(appender.append("b", records("b")))
        log.gate.set()
        assert [len(future.result(WITHIN_S).positions) for future in kept] == [5, 1]


def test_closing_appends_what_waits_and_refuses_the_rest() -> None:
    """Else a restart would lose events of requests that were accepted."""
    log = FakeLog()
    with one_at_work(log) as appender:
        waits = appender.append("a", records("a"))
        closing = threading.Thread(target=appender.close)
        closing.start()
        log.gate.set()
        closing.join(WITHIN_S)
        assert waits.done() and waits.result().positions == [Position(COUPON, 0, 1)]
        assert log.closed
        with pytest.raises(Refusal) as error:
            appender.append("late", records("late"))
        assert (error.value.status, error.value.headers) == (503, {"Retry-After": "2"})
