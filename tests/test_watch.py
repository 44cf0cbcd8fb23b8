"""`status --watch`: what changes between the looks, until it is told to stop."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coupon_ledger.cli.watch import _rates
from tests.command_line import (
    DATABASE,
    Data,
    coupon_event,
    done,
    finish,
    ledger,
    ndjson,
    one_sentence,
    start,
    wait_until,
)
from tests.owners import owning

pytestmark = pytest.mark.slow


def publish(first: int, number: int) -> None:
    events = (coupon_event("created", f"e-{n}", coupon_id=f"c-{n}") for n in range(first, first + number))
    done("publish", "-", stdin=ndjson(events))


@contextmanager
def watching(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[Callable[[Data], bool]], Data]]]:
    """The process, and what waits for a look of some kind. It must end well when it is interrupted."""
    with Path("watch.ndjson").open("wb") as told:
        process = start("status", "--watch", "0.1", "--output", "ndjson", *arguments, stdout=told)
    seen = 0

    def look(wanted: Callable[[Data], bool]) -> Data:
        nonlocal seen
        found: list[Data] = []

        def there() -> bool:
            nonlocal seen
            assert process.poll() is None
            for line in Path("watch.ndjson").read_text().splitlines(keepends=True)[seen:]:
                if line.endswith("\n"):
                    seen += 1
                    found.extend([json.loads(line)] if wanted(json.loads(line)) else [])
            return bool(found)

        wait_until(there, "the look")
        return found[0]

    try:
        yield process, look
        process.send_signal(signal.SIGINT)
        ran = finish(process)
        assert (ran.code, ran.err) == (0, "")
    finally:
        if process.stderr is not None and not process.stderr.closed:
            process.kill()
            finish(process)


def test_it_tells_what_is_behind_and_what_is_done(home: Path) -> None:
    done("init")
    publish(0, 10)
    with watching() as (_, look):
        assert look(lambda row: row["lag"] == 10)["events_per_s"] is None
        done("consume")
        row = look(lambda row: row["lag"] == 0)
        assert row["applied"] == 10
        assert row["events_per_s"] > 0 > row["lag_per_s"]
        assert row["commits"] == 1


def test_it_outlives_the_owner_and_what_comes_after_it(home: Path) -> None:
    done("init")
    with watching() as (_, look):
        with owning():
            publish(0, 5)
            look(lambda row: row["applied"] == 5)
        Path(DATABASE).rename("aside")
        look(lambda row: "not there" in (row["error"] or ""))
        Path("aside").rename(DATABASE)
        assert look(lambda row: not row["error"])["applied"] == 5


def test_for_people_and_where_there_is_nothing_to_watch(home: Path) -> None:
    done("init")
    one_sentence(ledger("status", "--watch", "--log", "sqlite:///no.db"), 4, "no.db")
    process = start("status", "--watch", "0.1")
    assert process.stdout is not None
    for line in process.stdout:
        if b"Ctrl-C ends it" in line:
            break
    process.send_signal(signal.SIGTERM)
    ran = finish(process)
    assert (ran.code, ran.err) == (0, "")


def test_rates_are_of_the_last_looks() -> None:
    assert _rates([(0.0, 0, 100)]) == {"events_per_s": None, "lag_per_s": None, "eta_s": None}
    assert _rates([(0.0, 0, 100), (2.0, 50, 60)]) == {"events_per_s": 25.0, "lag_per_s": -20.0, "eta_s": 3}
    assert _rates([(0.0, 0, 0), (2.0, 50, 60)]) == {"events_per_s": 25.0, "lag_per_s": 30.0, "eta_s": None}
