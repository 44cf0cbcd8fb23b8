"""Brokers that stop, die and come back under a consumer that follows: it waits, says so once, and goes on with nothing
lost or repeated.

A real cluster: three nodes, each broker and controller; three replicas, of which two must be in sync. Events are
appended all the while, again where they were not acknowledged. Some of them are no events, so that dead letters go
through the outage as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.ledger.codec import encode_row
from coupon_ledger.ledger.errors import AppendFailed, LogError
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON, DEAD_LETTERS
from tests import kafka_broker
from tests.command_line import done, finish
from tests.owners import Owner, owning

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PATIENCE_S = 300.0
OUTAGE_S = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[kafka_broker.Cluster]:
    if reason := kafka_broker.why_no_java():
        pytest.skip(f"needs brokers that can be stopped: {reason}")
    started = kafka_broker.java_cluster(3)
    yield started
    started.remove()


@pytest.fixture
def settings(cluster: kafka_broker.Cluster, home: Path, monkeypatch: pytest.MonkeyPatch) -> LogSettings:
    cluster.start()
    prefix = f"t{home.name[-12:]}."
    for name, value in {"LOG": f"kafka://{cluster.address}", "TOPIC_PREFIX": prefix, "REPLICATION": "3"}.items():
        monkeypatch.setenv(f"COUPON_LEDGER_{name}", value)
    done("init", "--partitions", "3")
    return LogSettings(url=f"kafka://{cluster.address}", topic_prefix=prefix, replication=3)


class Producer:
    """Appends all the time: coupons' events, and every so often what is none. Each until it is acknowledged."""

    def __init__(self, settings: LogSettings) -> None:
        self.events = self.letters = 0
        self.failure: BaseException | None = None
        self._settings = settings
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._leaving.set()
        # After a failure the brokers may stay away, and what is being appended would be waited for without end.
        self._thread.join(None if kind is None else 5.0)

    def _run(self) -> None:
        # Brokers are away for longer than a delivery may take; the records are the same when they are sent again.
        log = open_log(self._settings)
        try:
            number = 0
            while not self._leaving.is_set():
                self._append(log, [_record(number + i) for i in range(25)])
                number += 25
                self.events, self.letters = number - number // 25, number // 25
                self._leaving.wait(0.05)
        except BaseException as error:
            self.failure = error
        finally:
            log.close()

    def _append(self, log: Any, records: list[Record]) -> None:
        while records:
            try:
                log.append(records)
                return
            except AppendFailed as error:
                records = [records[i] for i in error.failures]
            except LogError:
                time.sleep(0.2)


def _record(number: int) -> Record:
    key = f"c-{number % 400}".encode()
    if number % 25 == 0:
        return Record(COUPON, key, b"no event %d" % number)
    event = {
        "event_id": f"e-{number}",
        "type": "issued",
        "occurred_at": 1_760_000_000_000_000 + number,
        "source": "test",
        "coupon_id": key.decode(),
        "channel": "app",
    }
    return Record(COUPON, key, encode_row("coupon_event", event))


def until(reached: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.1)


def read(owner: Owner) -> int:
    assert owner.process.poll() is None, finish(owner.process).err
    return int(owner.answer("summary")["rows"][0]["read"])


def goes_on(owner: Owner, producer: Producer) -> None:
    """What was appended after now is folded."""
    appended = producer.events + producer.letters
    until(lambda: producer.events + producer.letters > appended + 50 or producer.failure, "a later record")
    assert producer.failure is None
    until(lambda: read(owner) > appended + 50, "a later commit")


@contextmanager
def followed(settings: LogSettings, said: Path) -> Iterator[tuple[Owner, Producer]]:
    """A consumer follows while events flow; at the end all that was acknowledged must be there, once."""
    with said.open("wb") as stderr, owning(stderr=stderr) as owner:
        with Producer(settings) as producer:
            goes_on(owner, producer)
            yield owner, producer
            goes_on(owner, producer)
        assert producer.failure is None
        until(lambda: done("status", "--output", "json").json["lag"] == 0, "the last record")
        until(lambda: owner.answer("summary")["rows"][0]["outbox"] == 0, "the last dead letter")
    summary = done("status", "--output", "json").json
    assert summary["lag"] == 0
    assert summary["applied"] == producer.events, "an event is lost or counted twice"
    assert summary["read"] == sum(summary[name] for name in ("applied", "repeats", "conflicts", "dead_letters"))
    # What was sent again without need is there twice in the log; each is accounted for.
    assert summary["dead_letters"] >= producer.letters
    log = open_log(settings)
    try:
        told = sum(log.end_positions(log.partitions([DEAD_LETTERS])).values())
    finally:
        log.close()
    assert told >= summary["dead_letters"]
    done("verify")
    live = done("digest", "--output", "json").json
    done("init", "--database", "fresh.duckdb")
    done("consume", "--database", "fresh.duckdb")
    assert done("digest", "--output", "json", "--database", "fresh.duckdb").json == live


def restart(broker: kafka_broker.JavaBroker) -> None:
    broker.stop()
    broker.start()


def test_a_broker_is_restarted(cluster: kafka_broker.Cluster, settings: LogSettings, home: Path) -> None:
    """A change of leaders is everyday life: it ended the consumer in four of five restarts."""
    with followed(settings, home / "said") as (owner, producer):
        restart(cluster.brokers[0])
        goes_on(owner, producer)


@pytest.mark.soak
def test_a_rolling_restart_a_kill_and_an_outage(
    cluster: kafka_broker.Cluster, settings: LogSettings, home: Path
) -> None:
    with followed(settings, home / "said") as (owner, producer):
        for broker in cluster.brokers:
            restart(broker)
            goes_on(owner, producer)
        cluster.brokers[1].kill()
        goes_on(owner, producer)  # two of three are enough
        cluster.brokers[1].start()
        goes_on(owner, producer)
        for broker in cluster.brokers:
            broker.kill()
        before = (home / "said").read_text().count("Waiting for it")
        until(lambda: (home / "said").read_text().count("Waiting for it") > before, "that the consumer waits")
        files = []
        for _ in range(int(OUTAGE_S)):
            time.sleep(1)  # how long it lasts is what is tested
            files.append(len(list(Path(f"/proc/{owner.process.pid}/fd").iterdir())))
        # Some eight a second are refused, and every few seconds all of them are closed.
        assert min(files[len(files) // 2 :]) < 100, f"sockets of refused connections pile up: {files}"
        said = (home / "said").read_text()
        assert said.count("Waiting for it") == before + 1, said
        [line] = [line for line in said.splitlines() if "Waiting for it" in line][before:]
        assert all(f"no connection to {broker.address} (Connection refused)" in line for broker in cluster.brokers)
        cluster.start()
        goes_on(owner, producer)
    said = (home / "said").read_text()
    assert said.count("Waiting for it") == said.count("the log answers again after")
    assert said.count("records wait to be appended") == said.count("all is appended again")
    assert "Traceback" not in said
