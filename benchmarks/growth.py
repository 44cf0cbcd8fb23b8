"""Does it stay fast and small? Rate, memory and file size per million events; look-ups; time from append to visible.

    python -m benchmarks.growth [--events 10000000] [--sales 10] [--live 60] [--rate 1000] [--batch-size 125000]

One process consumes seeded sale days, a week apart, from a log on SQLite into an empty database. With ten of them, each
million has the same mix of events; with one (`--sales 1`), all coupons are made first and then touched all over until
its end. Users come to every sale. The last records are kept back: another process appends them at `--rate` a second for
`--live` seconds while the consumer follows. An event is visible once the transaction that folded it is committed.
`--live 1800` is the soak: it prints the memory every half minute.

Lines of JSON: one per million events (`events_per_second`, `cpu_seconds` of all threads, `memory_mb`, `database_mb`),
one for look-ups in the owner (`state_ms`, `history_ms`: p50 and p99 over 300 drawn coupons), one for the live part
(`visible_ms`: p50 and p99 over all events), one for the size beside that of a database filled from the same log anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import polars as pl

from benchmarks.run import encoded
from coupon_ledger.cli.sources.simulate import World, sale_day
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.consumers.tuning import resident, tune_process
from coupon_ledger.ledger.log import EventLog, Record, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.projections import checkpoints
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.local import Local

SEED: Final = 20261111
_MILLION: Final = 1_000_000
_OF_ONE_SALE: Final = ("campaign_id", "coupon_id", "order_id")
_TICK_S: Final = 0.01
_SAMPLE_S: Final = 30.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=10 * _MILLION)
    parser.add_argument("--sales", type=int, default=10, help="over so many sale days, a week apart")
    parser.add_argument("--live", type=float, default=60.0, help="seconds of live events; 0 leaves them out")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=125_000)
    parser.add_argument("--anew", action="store_true", help="fill a second database from the log and compare sizes")
    options = parser.parse_args()
    tune_process()
    folder = Path(tempfile.mkdtemp(prefix="coupon-ledger-growth-"))
    try:
        settings = LogSettings(url=f"sqlite:///{folder / 'log.db'}")
        upstream = Upstream(settings, (options.events, options.sales), round(options.live * options.rate), options.rate)
        database = folder / "live.duckdb"
        create_database(database)
        with open_database(database) as store:
            consume(settings, store, options.batch_size)
            tell(look_ups(store))
            if upstream.held:
                tell(live(settings, store, upstream, options.batch_size))
        if options.anew:
            tell(anew(settings, database, folder / "anew.duckdb", options.batch_size))
    finally:
        shutil.rmtree(folder)


class Upstream:
    """A process with memory of its own that fills the log except for the last records, and appends those later."""

    def __init__(self, settings: LogSettings, size: tuple[int, int], live: int, rate: int) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(
            target=_upstream, args=(settings, size, live, rate, theirs), daemon=True
        )
        child.start()
        theirs.close()
        self.held: int = self.connection.recv()

    def go_on(self) -> None:
        """Start the later appends; from now on it sends the positions that it appended, and when."""
        self.connection.send(None)


def _upstream(settings: LogSettings, size: tuple[int, int], live: int, rate: int, connection: Connection) -> None:
    held: list[Record] = []
    log = open_log(settings, create=True)
    log.create_topics()
    for topic, frame in sale_days(*size):
        held += encoded(topic, frame)
        due = len(held) - live
        if due > 0:
            log.append(held[:due])
            del held[:due]
    connection.send(len(held))
    if held:
        connection.recv()
        _append(log, held, rate, connection)
    log.close()


def sale_days(events: int, sales: int) -> Iterator[tuple[str, pl.DataFrame]]:
    """Sale days with campaigns and coupons of their own, all with the same users."""
    world = World()
    for sale in range(sales):
        start = world.start + sale * timedelta(weeks=1)
        for topic, frame in sale_day(World(events=events // sales, seed=SEED + sale, start=start)):
            own = [pl.format("s{}-{}", pl.lit(sale), name) for name in _OF_ONE_SALE if name in frame.columns]
            yield topic, frame.with_columns(own_id.alias(own_id.meta.root_names()[0]) for own_id in own)


@dataclass
class Meter:
    """Resources used since the last reading."""

    started: float
    cpu: float

    @classmethod
    def start(cls) -> Meter:
        return cls(time.perf_counter(), _cpu())

    def read(self, records: int, store: Store) -> dict[str, Any]:
        seconds, cpu = time.perf_counter() - self.started, _cpu() - self.cpu
        self.started, self.cpu = time.perf_counter(), _cpu()
        return {
            "events_per_second": round(records / seconds),
            "cpu_seconds": round(cpu, 2),
            "memory_mb": _memory(),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "database_mb": store.path.stat().st_size // _MILLION,
        }


def consume(settings: LogSettings, store: Store, batch_size: int) -> None:
    log = open_log(settings)
    meter, records, total = Meter.start(), 0, 0
    for commit in Consumer(log, store, outlet=log, batch_size=batch_size).run():
        records += commit.records
        total += commit.records
        if records >= _MILLION or not commit.lag:
            tell({"events": total, **meter.read(records, store)})
            records = 0
    log.close()


def look_ups(store: Store) -> dict[str, Any]:
    coupons = store.frame("SELECT coupon_id FROM coupons USING SAMPLE 300")["coupon_id"].to_list()
    with closing(Local(store)) as local:
        return {
            f"{question}_ms": _percentiles([_timed(lambda c=c, q=question: local.ask(q, coupon=c)) for c in coupons])  # type: ignore[misc]
            for question in ("state", "history")
        }


def live(settings: LogSettings, store: Store, upstream: Upstream, batch_size: int) -> dict[str, Any]:
    """Follow the events of another process with the consumer."""
    log = open_log(settings)
    upstream.go_on()
    appended = Appended(upstream.connection)
    consumer = Consumer(log, store, outlet=log, batch_size=batch_size, follow=True)
    waited: list[float] = []
    commits, sampled = 0, time.perf_counter()
    for _ in consumer.run():
        now = time.time()
        commits += 1
        reached = {p: account.next_offset for p, account in checkpoints.load(store).items()}
        waited += appended.visible(reached, now)
        if time.perf_counter() - sampled > _SAMPLE_S:
            sampled = time.perf_counter()
            tell({"visible": len(waited), "memory_mb": _memory(), "database_mb": store.path.stat().st_size // _MILLION})
        if len(waited) >= upstream.held:
            consumer.stop()
    log.close()
    return {
        "live_events": len(waited),
        "commits": commits,
        "visible_ms": _percentiles(waited),
        "memory_mb": _memory(),
    }


class Appended:
    """When each record was appended, as the appending process reports."""

    def __init__(self, receiver: Connection) -> None:
        self._appended: dict[TopicPartition, list[tuple[int, float]]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, args=(receiver,), daemon=True).start()

    def _listen(self, receiver: Connection) -> None:
        while True:
            try:
                positions, at = receiver.recv()
            except EOFError:
                return
            with self._lock:
                for topic, partition, offset in positions:
                    self._appended.setdefault(TopicPartition(topic, partition), []).append((offset, at))

    def visible(self, reached: dict[TopicPartition, int], now: float) -> list[float]:
        """Milliseconds from append to now for records before these positions, each once."""
        latencies: list[float] = []
        with self._lock:
            for p, appended in self._appended.items():
                latencies += [1000 * (now - at) for offset, at in appended if offset < reached.get(p, 0)]
                self._appended[p] = [(offset, at) for offset, at in appended if offset >= reached.get(p, 0)]
        return latencies


def _append(log: EventLog, held: Sequence[Record], rate: int, sender: Connection) -> None:
    time.sleep(2.0)  # by then the consumer has caught up
    started, done = time.perf_counter(), 0
    while done < len(held):
        due = min(len(held), int((time.perf_counter() - started) * rate))
        if due > done:
            at = time.time()
            positions = log.append(held[done:due])
            sender.send(([(p.topic, p.partition, p.offset) for p in positions], at))
            done = due
        time.sleep(_TICK_S)


def anew(settings: LogSettings, grown: Path, fresh: Path, batch_size: int) -> dict[str, Any]:
    create_database(fresh)
    with open_database(fresh) as store:
        log = open_log(settings)
        for _ in Consumer(log, store, outlet=log, batch_size=batch_size).run():
            pass
        log.close()
    sizes = [path.stat().st_size // _MILLION for path in (grown, fresh)]
    return {"grown_mb": sizes[0], "anew_mb": sizes[1], "ratio": round(sizes[0] / sizes[1], 2)}


def tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = quantiles(values, n=100)
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory() -> int:
    """Resident memory now, in MB."""
    return resident() >> 20


if __name__ == "__main__":
    main()
