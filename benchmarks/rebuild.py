"""How fast a history is folded into an empty database: at once, as `rebuild` does it, and batch by batch.

    python -m benchmarks.rebuild [--log embedded|kafka] [--events 1000000] [--sales 1] [--runs 3] [--batch-size 125000]

Seeded sale days (`benchmarks.growth`) in a log (embedded, or on a Kafka broker of its own with four partitions a topic)
and in an archive of it. Each run is a process of its own on an empty database, with everything in the page cache: batch
by batch from the log, at once from the log, at once from the archive, in turn. All must have the same full digest. A
run is timed from the first read to the commit; the broker's CPU is not in its `cpu_seconds_per_million`.

Lines of JSON: one per run (`events_per_second`, `cpu_seconds_per_million` of all threads, peak `memory_mb`, `load` of
the machine beforehand), then the medians and their ratios to batch by batch (`times_as_fast`, `cpu_share`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.growth import sale_days
from benchmarks.run import encoded
from coupon_ledger.consumers.bulk_load import fold_whole
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.consumers.tuning import tune_process
from coupon_ledger.ledger.archive import ArchiveLog
from coupon_ledger.ledger.archiver import Archiver
from coupon_ledger.ledger.log import LogReader
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.progress import ignore
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.digest import digests
from tests import kafka_broker

_WAYS: Final = ("batches from the log", "at once from the log", "at once from the archive")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", choices=("embedded", "kafka"), default="embedded")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--sales", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=125_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coupon-ledger-rebuild-") as name:
        folder = Path(name)
        log = _log(folder) if options.log == "embedded" else _kafka()
        prepare(log, folder, options.events, options.sales)
        runs: list[dict[str, Any]] = []
        for run in range(options.runs):
            for way in _WAYS:
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    runs.append(process.apply(measured, (log, folder, way, options.batch_size, run == 0)))
                print(json.dumps(runs[-1]), flush=True)
        assert len({run["digest"] for run in runs if "digest" in run}) == 1, "the tables differ"
        print(json.dumps(compared(runs)))


def prepare(settings: LogSettings, folder: Path, events: int, sales: int) -> None:
    with closing(open_log(settings, create=True)) as log:
        log.create_topics()
        for topic, frame in sale_days(events, sales):
            records = encoded(topic, frame)
            for start in range(0, len(records), 50_000):
                log.append(records[start : start + 50_000])
        Archiver(log, folder / "archive").run()


def _log(folder: Path) -> LogSettings:
    return LogSettings(url=f"sqlite:///{folder / 'log.db'}")


def _kafka() -> LogSettings:
    """On a broker that ends with this process."""
    return LogSettings(url=f"kafka://{kafka_broker.session_broker().address}")


def measured(settings: LogSettings, folder: Path, way: str, batch_size: int, digest: bool) -> dict[str, Any]:
    tune_process()
    database = folder / "rebuilt.duckdb"
    load = os.getloadavg()[0]
    log: LogReader = ArchiveLog(folder / "archive") if "archive" in way else open_log(settings)
    create_database(database)
    with closing(log), open_database(database) as store:
        store.execute("SET enable_progress_bar = false")
        until = log.end_positions(log.partitions(INPUT_TOPICS))
        started, cpu = time.perf_counter(), time.process_time()
        if way == _WAYS[0]:
            records = sum(commit.records for commit in Consumer(log, store, outlet=None, batch_size=batch_size).run())
        else:
            records = fold_whole(log, store, until, ignore)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        full = {"digest": digests(store)[-1].full} if digest else {}
    figures = {
        "way": way,
        "records": records,
        "events_per_second": round(records / seconds),
        "cpu_seconds_per_million": round(cpu / records * 1e6, 2),
        "memory_mb": round(memory / 1024),
        "database_mb": round(database.stat().st_size / 1e6),
        "load": round(load, 1),
    }
    database.unlink()
    return figures | full


def compared(runs: list[dict[str, Any]]) -> dict[str, Any]:
    def of(way: str, what: str) -> float:
        return float(median(run[what] for run in runs if run["way"] == way))

    rates = {way: of(way, "events_per_second") for way in _WAYS}
    cpu = {way: of(way, "cpu_seconds_per_million") for way in _WAYS}
    return {
        "events_per_second": rates,
        "times_as_fast": {way: round(rates[way] / rates[_WAYS[0]], 2) for way in _WAYS[1:]},
        "cpu_share": {way: round(cpu[way] / cpu[_WAYS[0]], 2) for way in _WAYS[1:]},
    }


if __name__ == "__main__":
    main()
