"""The real consumer in a process of its own, as `coupon-ledger consume` runs it: timed, or killed on the way.

    python -m benchmarks.consumer_process --log URL --database PATH [--kill fold:3]

`--kill fold:3` sends SIGKILL to its own process at the third passing of that boundary. Besides the consumer's
boundaries there are `append` and `appended`, before and after the consumer's own appends. `--kill close:3` stops after
three batches and then prints "closing" to standard output, so that the parent can kill it while the database is closed.
Otherwise it ends with one line of JSON: `records`, `seconds` (from the start of `run` to its last commit) and `lag`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from coupon_ledger.consumers.runner import Boundary, Consumer
from coupon_ledger.consumers.tuning import tune_process
from coupon_ledger.ledger.log import EventLog, Position, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.projections.database import open_database

CLOSING = "closing"


class Fuse:
    """A boundary hook: sends SIGKILL at the n-th passing of the named boundary."""

    def __init__(self, boundary: str, passings: int) -> None:
        self._boundary = boundary
        self._left = passings

    def __call__(self, reached: str) -> None:
        if reached != self._boundary:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Announced:
    """A log that reports before and after each append."""

    def __init__(self, log: EventLog, reached: Boundary) -> None:
        self._log = log
        self._reached = reached

    def append(self, records: Sequence[Record]) -> list[Position]:
        self._reached("append")
        positions = self._log.append(records)
        self._reached("appended")
        return positions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--topic-prefix", default="")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=100_000)
    parser.add_argument("--kill", default="nowhere:1", metavar="BOUNDARY:N")
    options = parser.parse_args()
    boundary, _, number = options.kill.partition(":")
    batches = int(number)
    fuse = Fuse(boundary, batches)
    tune_process()
    with open_database(options.database) as store:
        opened = open_log(LogSettings(url=options.log, topic_prefix=options.topic_prefix))
        log = cast("EventLog", Announced(opened, fuse))
        consumer = Consumer(log, store, outlet=log, batch_size=options.batch_size, at_boundary=fuse)
        started = last = time.perf_counter()
        records = committed = lag = 0
        for commit in consumer.run():
            last = time.perf_counter()
            records, committed, lag = records + commit.records, committed + 1, commit.lag
            if boundary == "close" and committed == batches:
                consumer.stop()
        log.close()
        if boundary == "close":
            print(CLOSING, lag, flush=True)
    print(json.dumps({"records": records, "seconds": last - started, "lag": lag}))


if __name__ == "__main__":
    main()
