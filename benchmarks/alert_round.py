"""How long a round of the owner's work with alerts takes: after a commit with nothing new, and with 100 open alerts.

    python -m benchmarks.alert_round

Rounds in which time passes (one a second) are measured apart: these look at every open alert.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from coupon_ledger.consumers.alerts.work import AlertWork
from tests.alert_owner import Box, Place, append, claim, farm

ROUNDS: Final = 2_000
TICKS: Final = 20


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name))
        with closing(place.log):
            append(place.log, [claim(0, "other")])
            _measure(place, "no alert")
            append(place.log, [event for n in range(100) for event in farm(f"d-{n}", 10 + 3 * n)])
            _measure(place, "100 open alerts")


def _measure(place: Place, what: str) -> None:
    with place.owner(messages=Box("pager")) as owner:
        work = owner.alert_work
        assert work is not None
        for _ in owner.run():
            started = time.perf_counter()
        print(
            f"{'all rounds until everything is told, ' + what:<50}{1_000 * (time.perf_counter() - started):>10.1f} ms"
        )
        _report(f"nothing new, {what}", _rounds(work))
        _report(f"time passes, {what}", _ticks(work))


def _rounds(work: AlertWork) -> list[float]:
    work._tick_at = time.monotonic() + 3_600
    return [_seconds(work) for _ in range(ROUNDS)]


def _ticks(work: AlertWork) -> list[float]:
    seconds = []
    for _ in range(TICKS):
        work._tick_at = 0.0
        seconds.append(_seconds(work))
    return seconds


def _seconds(work: AlertWork) -> float:
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    assert not work._pause_until, "the round failed"
    return seconds


def _report(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    median, late = statistics.median(ordered), ordered[int(0.99 * len(ordered))]
    print(f"{what:<50}{1_000 * median:>10.3f} ms median {1_000 * late:>10.3f} ms at the 99th percentile")


if __name__ == "__main__":
    main()
