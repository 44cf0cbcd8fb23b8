"""What it costs when much hangs on one key: processor time by size, for a cluster of each kind.

    python -m benchmarks.clustered [--kind coupon|campaign|order|user|paths|aliases] [--sizes 10000,20000,40000]

Each cluster (`tests/clusters.py`) is a log of its own with nothing else in it.

Measured for each: consuming it; then, each in a batch of its own, an event later than all others, a late one, and a
repeated one; every audit; and the rebuild from the log. Seconds of processor time over all threads; peak memory. A cost
that grows no faster than n log n a little more than doubles when the size doubles.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from benchmarks.run import encoded
from coupon_ledger.consumers.bulk_load import fold_whole
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.consumers.tuning import tune_process
from coupon_ledger.ledger.log import EventLog
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.progress import ignore
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store
from coupon_ledger.questions import audits
from coupon_ledger.questions.local import Local
from tests.clusters import KINDS, Made, followers

SIZES: Final = "10000,20000,40000"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--sizes", default=SIZES)
    options = parser.parse_args()
    for kind in options.kind or KINDS:
        print(f"\n{kind}")
        rows = []
        for size in map(int, options.sizes.split(",")):
            with multiprocessing.get_context("spawn").Pool(1) as process:
                rows.append({"size": size, **process.apply(measured, (kind, size))})
            if len(rows) == 1:
                print("| " + " | ".join(rows[0]) + " |\n" + "|---:" * len(rows[0]) + "|")
            print("| " + " | ".join(str(value) for value in rows[-1].values()) + " |", flush=True)


def measured(kind: str, size: int) -> dict[str, Any]:
    """Seconds of processor time per step, and megabytes."""
    tune_process()
    made = list(KINDS[kind](size))
    with tempfile.TemporaryDirectory(prefix="coupon-ledger-clustered-") as name:
        folder = Path(name)
        log = open_log(LogSettings(url=f"sqlite:///{folder / 'log.db'}", partitions=1), create=True)
        log.create_topics()
        append(log, made)
        create_database(folder / "live.duckdb")
        figures: dict[str, Any] = {}
        with closing(log):
            with open_database(folder / "live.duckdb") as store:
                figures["consume"] = spent(consume, log, store)
                for step, rows in followers(made).items():
                    append(log, rows)
                    figures[step] = spent(consume, log, store)
            with open_database(folder / "live.duckdb", read_only=True) as store:
                figures |= time_questions(kind, store)
            create_database(folder / "anew.duckdb")
            with open_database(folder / "anew.duckdb") as store:
                ends = log.end_positions(log.partitions(INPUT_TOPICS))
                figures["rebuild"] = spent(fold_whole, log, store, ends, ignore)
        figures["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return figures


def time_questions(kind: str, store: Store) -> dict[str, Any]:
    """All audits, the two slowest audits, and a history."""
    each = {name: spent(audits.run, store, name, 10) for name in audits.AUDITS}
    slowest = sorted(each, key=lambda name: -each[name])[:2]
    figures: dict[str, Any] = {"audits": round(sum(each.values()), 2)}
    figures["slowest audits"] = ", ".join(f"{name} {each[name]}" for name in slowest)
    if kind == "coupon":
        with closing(Local(store)) as local:
            figures["history"] = spent(lambda: [*local.ask("history", coupon="c").frames])
    return figures


def append(log: EventLog, made: Iterable[Made]) -> None:
    for topic, frame in made:
        records = encoded(topic, frame)
        for at in range(0, len(records), 10_000):
            log.append(records[at : at + 10_000])


def consume(log: EventLog, store: Store) -> None:
    for _ in Consumer(log, store, outlet=log, batch_size=250_000).run():
        pass


def spent(work: Callable[..., object], *arguments: object) -> float:
    started = time.process_time()
    work(*arguments)
    return round(time.process_time() - started, 2)


if __name__ == "__main__":
    main()
