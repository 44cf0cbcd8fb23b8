"""An event that cannot be folded becomes a dead letter; everything else goes on."""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.codec import encode_row
from coupon_ledger.ledger.events import parse_event
from coupon_ledger.ledger.log import TopicPartition
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS
from coupon_ledger.projections import checkpoints
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live import apply
from tests.command_line import coupon_event, done, facts, ledger, ndjson
from tests.test_whole import MemoryLog, by_table

pytestmark = pytest.mark.long

GRACE = timedelta(minutes=15)
_onward = apply.onward


class Killed(BaseException):
    pass


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let folding these events raise an error."""

    def fail(ids: set[str], error: Exception | None = None) -> None:
        def onward(on: Any, rows: pl.DataFrame, events: pl.DataFrame, conflicts: pl.DataFrame) -> Any:
            if ids & set(events["event_id"].to_list()):
                raise error or ValueError("two and two are five")
            return _onward(on, rows, events, conflicts)

        monkeypatch.setattr(apply, "onward", onward)

    return fail


def small_log() -> MemoryLog:
    """Ten coupons with four events each, in three partitions; one event is delivered twice, some come late."""
    records: dict[TopicPartition, list[tuple[int, int, bytes, bytes]]] = {
        TopicPartition(topic, p): [] for topic in INPUT_TOPICS for p in range(3)
    }
    kinds = ["created", "claimed", "issued", "used"]  # claimed stands before issued in the log
    told = [(kind, n) for kind in kinds for n in range(10)] + [("issued", 3)]
    for place, (kind, n) in enumerate(told):
        at = f"2026-11-11T00:{len(kind):02}:{n:02}Z"
        event = coupon_event(kind, f"{kind}-{n}", coupon_id=f"c-{n}", occurred_at=at)
        event.pop("topic")
        value = encode_row("coupon_event", parse_event(COUPON, event).model_dump())
        partition = records[TopicPartition(COUPON, n % 3)]
        partition.append((len(partition), 1_794_000_000_000_000 + place, f"c-{n}".encode(), value))
    return MemoryLog(records)


POISONED: Final = {"issued-3", "claimed-7", "used-9"}


def consumed(log: MemoryLog, file: Path, batch_size: int, kill_at: int = 0) -> Any:
    """The digests of all tables, and the dead letters of failed folds. `kill_at`: at so many steps, begin again."""
    create_database(file)
    steps = 0

    def at(_step: str) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            raise Killed

    while True:
        with open_database(file) as store:
            try:
                for _ in Consumer(log, store, outlet=None, batch_size=batch_size, grace=GRACE, at_boundary=at).run():
                    pass
            except Killed:
                continue
            for partition, account in checkpoints.load(store).items():
                account.check(partition)
            failed = store.rows(
                "SELECT topic, log_partition, log_offset, reason, detail FROM dead_letters ORDER BY ALL"
            )
            return by_table(store), [row for row in failed if row[3] == "fold_failed"]


def test_what_becomes_of_it_does_not_depend_on_batches_or_kills(tmp_path: Path, failing: Callable[..., None]) -> None:
    """Before, one failing event stopped the consumer for good, and nothing behind it was folded."""
    log = small_log()
    failing(POISONED)
    expected, failed = consumed(log, tmp_path / "large.duckdb", 5_000)
    assert len(failed) == 4, "one of them was delivered twice"
    assert {row[4] for row in failed} == {"ValueError: two and two are five"}
    assert consumed(log, tmp_path / "small.duckdb", 7, kill_at=12) == (expected, failed)


def test_a_rebuild_comes_to_the_same_and_a_replay_folds_it_later(
    home: Path, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a whole history is folded at once."""
    monkeypatch.setattr("coupon_ledger.consumers.rebuild.WORTH_IT", 1)
    done("init")
    told = [coupon_event("created", f"e-{n}", coupon_id=f"c-{n}") for n in range(20)]
    told += [coupon_event("issued", f"i-{n}", coupon_id=f"c-{n}") for n in range(20)]
    done("publish", "-", stdin=ndjson(told))
    failing({"i-7", "e-9"})
    ran = done("consume")
    assert "2 became dead letters" in ran.err
    letters = done("dead-letters", "list", "--output", "ndjson").rows
    assert [letter["reason"] for letter in letters] == ["fold_failed"] * 2
    assert done("state", "c-7", "--output", "json").json["state"] == "created"
    assert done("state", "c-9", "--output", "json").json["state"] == "issued"
    done("verify", "--deep", "--sample", "all", "--from-log")
    done("rebuild")  # every table is compared, dead letters and accounts among them
    still = done("dead-letters", "replay", "--why", "not mended yet", "--operator", "me")
    assert "0 of 2 dead letters folded; 2 left" in still.err
    monkeypatch.setattr(apply, "onward", _onward)
    mended = done("dead-letters", "replay", "--why", "mended", "--operator", "me")
    assert "2 of 2 dead letters folded" in mended.err
    done("verify")
    done("init", "--database", "fresh.duckdb")
    done("consume", "--database", "fresh.duckdb")
    assert facts() == facts("fresh.duckdb")


def test_a_rebuild_of_one_projection_says_what_to_do(home: Path, failing: Callable[..., None]) -> None:
    done("init")
    done(
        "publish", "-", stdin=ndjson([coupon_event("created", "e-1"), coupon_event("created", "e-2", coupon_id="c-2")])
    )
    failing({"e-1"})
    done("consume")
    ran = ledger("rebuild", "--projection", "coupons")
    assert ran.code == 5 and "without --projection" in ran.err


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_errors_of_the_machine_make_no_dead_letters(
    tmp_path: Path, failing: Callable[..., None], error: Exception
) -> None:
    """Else a full disk would turn good events into dead letters."""
    log = small_log()
    failing(POISONED, error)
    create_database(tmp_path / "db.duckdb")
    with open_database(tmp_path / "db.duckdb") as store:
        with pytest.raises(type(error)):
            list(Consumer(log, store, outlet=None, batch_size=5_000, grace=GRACE).run())
        assert store.rows("SELECT count(*) FROM dead_letters WHERE reason = 'fold_failed'") == [(0,)]


def test_where_every_event_fails_it_is_not_the_events(home: Path, failing: Callable[..., None]) -> None:
    """Else a release that can fold nothing would turn the log into dead letters."""
    done("init")
    ids = {f"e-{n}" for n in range(70)}
    done("publish", "-", stdin=ndjson([coupon_event("created", i, coupon_id=f"c-{i}") for i in sorted(ids)]))
    failing(ids, RuntimeError("a release that can fold nothing"))
    with pytest.raises(RuntimeError, match="a release that"):
        ledger("consume")
    assert done("dead-letters", "list", "--output", "ndjson").rows == []
