"""Repair: dead letters taken in again or settled, corrections from a file, and who did what.

A ledger that was mended is played by one that was not: `older` decodes fewer messages than the real one.
"""

from __future__ import annotations

import base64
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from benchmarks.chaos import differences, fill, records, state
from coupon_ledger.consumers import discards
from coupon_ledger.consumers.discards import Signed, discard
from coupon_ledger.consumers.replay import Repairs, Replay, replay
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger import operations, validity
from coupon_ledger.ledger.codec import encode_row
from coupon_ledger.ledger.columns import Decoded, Undecodable, decode_columns
from coupon_ledger.ledger.errors import InvalidEvent, LogUnavailable
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.sqlite_log import SqliteLog
from coupon_ledger.ledger.topics import COUPON, DEAD_LETTERS, OPERATIONS
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.dead_letters import Chosen
from coupon_ledger.projections.ownership import owner
from tests.command_line import (
    DATABASE,
    PATIENCE_S,
    coupon_event,
    done,
    ends,
    facts,
    finish,
    ledger,
    ndjson,
    one_sentence,
    opened_log,
    start,
    wait_until,
)
from tests.fake_registry import fake_registry
from tests.histories import history
from tests.owners import owning

Data = dict[str, Any]
Decode = Callable[[Sequence[bytes]], tuple[list[Decoded], list[Undecodable]]]

SEED = 20261111
BY = Signed("mei", "schema v2 is deployed")
POISON = b"\xc3\x01 nobody knows this"
_STRANGE = b"\xc3\x01unknown!"


def older(fails: Callable[[bytes], bool]) -> Decode:
    """A ledger to which these messages are of an unknown schema."""
    return lambda messages: decode_columns([_STRANGE + m[10:] if fails(m) else m for m in messages])


def consume(log: EventLog, database: Path, decode: Decode = decode_columns, batch_size: int = 500) -> None:
    create_database(database)
    with open_database(database) as store, patch.object(validity, "decode_columns", decode):
        for _ in Consumer(log, store, outlet=log, batch_size=batch_size).run():
            pass


@contextmanager
def logged(settings: LogSettings, given: Sequence[Record]) -> Iterator[EventLog]:
    log = open_log(settings, create=True)
    try:
        fill(log, given)
        yield log
    finally:
        log.close()


def as_consumed_anew(log: EventLog, repaired: Path, anew: Path) -> list[str]:
    """What differs between this database and one that the log is consumed into now."""
    consume(log, anew)
    return differences(state(anew), state(repaired))


# --- replay


def dense(seed: int) -> list[Record]:
    """Few coupons, their events on all partitions, and many that repeat, conflict or come late."""
    draw = random.Random(seed)
    told = [delivery.event for delivery in history(COUPON, seed, 200 if seed else 80, keys=6, orderly=False).deliveries]
    return [Record(COUPON, bytes([draw.randrange(9)]), encode_row("coupon_event", event)) for event in told]


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))])
@pytest.mark.slow
def test_whatever_is_taken_in_again_counts_at_its_own_place(
    seed: int, sqlite_log_settings: LogSettings, tmp_path: Path
) -> None:
    """Else a repaired database would differ from every rebuild: another content would stand, or be counted twice."""
    draw = random.Random(seed)
    with logged(sqlite_log_settings, dense(seed)) as log:
        consume(log, tmp_path / "live", older(lambda _: draw.random() < 0.4), batch_size=60)
        with open_database(tmp_path / "live") as store:
            for chosen in (Chosen(partition=1), Chosen(partition=0), Chosen()):
                with patch.object(discards, "PIECE", 20):
                    replay(store, log, chosen, BY)
        assert as_consumed_anew(log, tmp_path / "live", tmp_path / "anew") == []


@pytest.mark.slow
def test_a_replay_lets_the_consumer_go_on(sqlite_log_settings: LogSettings, tmp_path: Path) -> None:
    """Else nothing would be consumed on a sale day for as long as a replay of a million takes; and nobody would see how
    far it is."""
    draw, seen = random.Random(SEED), []
    given = dense(0)
    with logged(sqlite_log_settings, given[:60]) as log:
        consume(log, tmp_path / "live", older(lambda _: draw.random() < 0.5))
        log.append(given[60:])
        with open_database(tmp_path / "live") as store, patch.object(discards, "PIECE", 5):
            [(dead,)] = store.rows("SELECT count(*) FROM dead_letters")
            repairs = Repairs(store, log)
            done = repairs.ask(Replay(Chosen(), BY, progress=lambda n, total: seen.append((n, total))))
            consumer = Consumer(log, store, outlet=log, batch_size=5, between=repairs)
            steps = [len(seen) for _ in consumer.run()]
            while repairs():
                pass
            assert sum(row["records"] for row in done.result(0)) == dead > 10
        assert seen == [(min(n + 5, dead), dead) for n in range(0, dead, 5)]
        assert steps[:3] == [1, 2, 3], "a step between two batches, no more"
        assert as_consumed_anew(log, tmp_path / "live", tmp_path / "anew") == []


@pytest.mark.long
def test_what_becomes_a_dead_letter_meanwhile_is_left_for_the_next_replay(
    sqlite_log_settings: LogSettings, tmp_path: Path
) -> None:
    """Else a replay would run for as long as a producer sends what nobody can read."""
    with logged(sqlite_log_settings, [Record(COUPON, b"c-1", POISON)] * 3) as log:
        consume(log, tmp_path / "live")
        step = Replay(Chosen(), BY)
        with open_database(tmp_path / "live") as store:
            assert step(store, log) is None
        log.append([Record(COUPON, b"c-1", POISON)] * 3)
        consume(log, tmp_path / "live")
        with open_database(tmp_path / "live") as store:
            while (rows := step(store, log)) is None:
                pass
    assert [row["records"] for row in rows] == [3]


@pytest.mark.slow
def test_replay_equals_a_rebuild(log_settings: LogSettings, tmp_path: Path) -> None:
    """On all topics, with broken records among them, on either log; and the rules across coupons with them."""
    draw = random.Random(SEED)
    with logged(log_settings, records(1_500, SEED)) as log:
        consume(log, tmp_path / "live", older(lambda _: draw.random() < 0.2))
        with open_database(tmp_path / "live") as store:
            before = store.rows("SELECT count(*) FROM dead_letters")[0][0]
            foretold = replay(store, log, Chosen(), BY, dry_run=True)
            assert store.rows("SELECT count(*) FROM dead_letters")[0][0] == before, "a dry run writes nothing"
            assert replay(store, log, Chosen(), BY) == foretold
            [(left, reasons)] = store.rows("SELECT count(*), count(DISTINCT reason) FROM dead_letters")
        assert as_consumed_anew(log, tmp_path / "live", tmp_path / "anew") == []
        [told] = operations.read(log)
    assert 0 < left < before and reasons > 1
    assert (told.operation.action, told.operation.operator, told.operation.reason) == (
        "dead_letters_replayed",
        "mei",
        "schema v2 is deployed",
    )
    details = told.operation.details or {}
    assert (details["folded"], details["dead_letters"]) == (before - left, left)
    assert len(operations.positions_in(details)) == before - left


@pytest.mark.slow
def test_in_the_wire_format_of_a_registry_it_equals_a_rebuild_too(
    sqlite_log_settings: LogSettings, tmp_path: Path
) -> None:
    """There dead letters are kept as they stand in the log, which the ledger's own codec does not read."""
    with fake_registry() as registry:
        ids = str(tmp_path / "ids.json")
        settings = replace(sqlite_log_settings, schema_registry=registry.url, schema_ids=ids)
        with logged(settings, dense(0)) as log:
            consume(log, tmp_path / "live", older(lambda m: len(m) % 3 == 0))
            with open_database(tmp_path / "live") as store:
                [(before,)] = store.rows("SELECT count(*) FROM dead_letters WHERE hex(value) LIKE '00%'")
            assert before
            flags = ("--schema-registry", registry.url, "--database", tmp_path / "live")
            with patch.dict("os.environ", {"COUPON_LEDGER_SCHEMA_IDS": ids}):
                exported = done("dead-letters", "export", *flags).rows
            assert {line["schema"] for line in exported} == {"coupon_event v3"}
            with open_database(tmp_path / "live") as store:
                replay(store, log, Chosen(), BY)
                assert store.rows("SELECT count(*) FROM dead_letters") == [(0,)]
            assert as_consumed_anew(log, tmp_path / "live", tmp_path / "anew") == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from coupon_ledger.consumers.discards import Signed
from coupon_ledger.consumers.replay import replay
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.sqlite_log import SqliteLog
from coupon_ledger.projections.dead_letters import Chosen
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store

def reached(boundary):
    if boundary == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

with open_database(Path("live")) as store:
    replay(store, open_log(LogSettings(url="sqlite:///log.db")), Chosen(), Signed("mei", "mended"), reached=reached)
"""


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["begin", "fold", "signed", "commit", "delivered"])
def test_killed_at_a_boundary_nothing_is_half_done(boundary: str, home: Path) -> None:
    """All of it or nothing, the operation included; and once, however often it is run."""
    draw = random.Random(SEED)
    with logged(LogSettings(url="sqlite:///log.db"), records(600, SEED)) as log:
        consume(log, Path("live"), older(lambda _: draw.random() < 0.2))
        before = state(Path("live"))
        killed = subprocess.run([sys.executable, "-c", _KILLED, boundary], capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if boundary in ("begin", "fold", "signed"):
            assert differences(before, state(Path("live"))) == []
            assert operations.read(log) == []
            with open_database(Path("live")) as store:
                replay(store, log, Chosen(), BY)
        # Started again, the consumer delivers what a commit left behind.
        consume(log, Path("live"))
        assert as_consumed_anew(log, Path("live"), Path("anew")) == []
        assert len(operations.read(log)) == 1


_KILLED_OWNER = """
import os, signal, sys
from coupon_ledger.cli.main import main
from coupon_ledger.consumers import discards
from coupon_ledger.consumers.replay import Replay

discards.PIECE = 40
begin, passed = Replay.__init__, []

def reached(boundary):
    if boundary == sys.argv[1]:
        passed.append(boundary)
        if len(passed) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

Replay.__init__ = lambda self, *a, **options: begin(self, *a, **{**options, "reached": reached})
main(["consume", "--follow", "--log", "sqlite:///log.db", "--database", "live", "--batch-size", "100"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("boundary", [("begin", 2), ("fold", 1), ("signed", 2), ("commit", 1), ("delivered", 1)])
def test_an_owner_killed_while_it_replays_loses_nothing_and_counts_nothing_twice(
    boundary: tuple[str, int], home: Path
) -> None:
    """Piece by piece, with records that come meanwhile; then the same repair again, by the next owner."""
    draw = random.Random(SEED)
    where = ("--database", "live", "--log", "sqlite:///log.db")
    repair = ("dead-letters", "replay", "--why", "mended", *where)
    with logged(LogSettings(url="sqlite:///log.db"), records(600, SEED)) as log:
        consume(log, Path("live"), older(lambda _: draw.random() < 0.2))
        with open_database(Path("live")) as store:
            [(letters,)] = store.rows("SELECT count(*) FROM dead_letters")
        assert letters > 2 * 40
        name, passing = boundary
        process = subprocess.Popen([sys.executable, "-c", _KILLED_OWNER, name, str(passing)], stderr=subprocess.PIPE)
        wait_until(lambda: owner(Path("live")).get("pid") == process.pid, "the owner")
        asking = start(*repair)
        log.append(records(200, SEED + 1))
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == -signal.SIGKILL, said
        ran = finish(asking)
        if ran.code:  # else it was done without an owner
            one_sentence(ran, 5, "live")
        with owning(*where[2:], database="live") as asked:
            asked.answer("summary")
            again = ledger(*repair)
            assert again.code == 0 or "none of these is there" in again.err, again.err
            log.append(records(100, SEED + 2))
        done("consume", *where)
        assert as_consumed_anew(log, Path("live"), Path("anew")) == []
        done("verify", *where)
        # The operations name each record once, whatever was repeated.
        told = [o.operation for o in operations.read(log) if o.operation.action == "dead_letters_replayed"]
        positions = [p for one in told for p in operations.positions_in(one.details or {})]
        assert len(positions) == len(set(positions)) > 0


# --- the commands


@pytest.fixture(scope="module")
def half_read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    events = [
        coupon_event("created", "e-1", face_value_minor=500, currency="CNY"),
        coupon_event("issued", "e-2", occurred_at="2026-11-11T00:00:01Z"),
        coupon_event("claimed", "e-3", occurred_at="2026-11-11T00:00:02Z"),
        coupon_event("used", "e-4", occurred_at="2026-11-11T00:00:03Z", source="till-2"),
    ]
    folder = tmp_path_factory.mktemp("half-read")
    with chdir(folder):
        done("init")
        done("publish", "-", stdin=ndjson(events))
        log = opened_log()
        log.append([Record(COUPON, b"c-1", POISON)])
        consume(log, folder / DATABASE, older(lambda m: b"till-2" in m))
        log.close()
    return folder


@pytest.fixture
def shop(half_read: Path, home: Path) -> Path:
    """A used coupon, consumed by an older ledger that could not read its use; and a record that nobody can read."""
    return shutil.copytree(half_read, home, dirs_exist_ok=True)


def offsets(*arguments: str) -> list[int]:
    return [row["offset"] for row in done("dead-letters", "list", "-o", "ndjson", *arguments).rows]


def account() -> Data:
    [read] = [p for p in done("status", "-o", "json").json["partitions"] if p["read"]]
    assert read["read"] == sum(read[n] for n in ("applied", "repeats", "conflicts", "dead_letters"))
    return {name: read[name] for name in ("applied", "dead_letters")}


@pytest.mark.slow
def test_what_a_mended_ledger_can_read_is_folded_and_the_rest_stays(shop: Path) -> None:
    """Else a deploy behind its producers would lose their events, or need a rebuild of all."""
    assert done("state", "c-1", "-o", "json").json["state"] == "claimed"
    dry = done("dead-letters", "replay", "--dry-run")
    assert "1 of 2 dead letters would be folded; 1 would stay" in dry.err
    assert done("state", "c-1", "-o", "json").json["state"] == "claimed"
    assert account() == {"applied": 3, "dead_letters": 2}
    one_sentence(ledger("dead-letters", "replay"), 2, "--why")
    ran = done("dead-letters", "replay", "--why", "v2 is deployed", "--operator", "mei", "-o", "json")
    [row] = ran.json
    assert (row["records"], row["applied"], row["dead_letters"]) == (2, 1, 1)
    assert done("state", "c-1", "-o", "json").json["state"] == "used"
    assert account() == {"applied": 4, "dead_letters": 1}
    assert offsets() == [4]
    one_sentence(ledger("dead-letters", "replay", "--reason", "wrong_topic", "--why", "w"), 1, "--all")
    [told] = done("operations", "-o", "json").json
    assert (told["action"], told["operator"], told["reason"]) == ("dead_letters_replayed", "mei", "v2 is deployed")


CHOICES = {
    ("--topic", COUPON): 2,
    ("--topic", "order.events"): 0,
    ("--partition", "99"): 0,
    ("--offset", "4"): 1,
    ("--reason", "unknown_schema"): 2,
    ("--since", "1h"): 2,
    ("--until", "1h"): 0,
}


@pytest.mark.slow
def test_dead_letters_are_chosen_by_place_reason_and_time(shop: Path) -> None:
    """Else whoever settles one kind would settle the others with it."""
    for choice, chosen in CHOICES.items():
        assert len(offsets(*choice)) == chosen, choice
        if chosen:
            rows = done("dead-letters", "discard", *choice, "--dry-run", "-o", "json").json
            assert sum(row["records"] for row in rows) == chosen, choice
        else:
            one_sentence(ledger("dead-letters", "discard", *choice, "--dry-run"), 1, "none of these is open")
    assert len(offsets()) == 2, "a dry run writes nothing"


@pytest.mark.slow
def test_what_was_discarded_is_hidden_and_never_gone(shop: Path) -> None:
    """Else the list would fill until nobody reads it; or a settled record would be lost, or come back by a rebuild."""
    one_sentence(ledger("dead-letters", "discard", "--why", "w"), 2, "name which")
    one_sentence(ledger("dead-letters", "discard", "--offset", "4"), 2, "--why")
    done("dead-letters", "discard", "--offset", "4", "--why", "a load test", "--operator", "mei")
    assert offsets() == [3]
    hidden = {row["offset"]: row for row in done("dead-letters", "list", "--all", "-o", "ndjson").rows}
    assert (hidden[4]["discarded_by"], hidden[4]["discarded_because"]) == ("mei", "a load test")
    assert hidden[3]["discarded_by"] is None
    status = done("status", "-o", "json").json
    assert (status["dead_letters"], status["dead_letters_open"]) == (2, 1)
    assert "2 dead letters, 1 of them discarded" in done("status").out
    partition = str(hidden[4]["partition"])
    assert done("dead-letters", "show", COUPON, partition, "4", "--raw").raw == POISON
    shown = done("dead-letters", "show", COUPON, partition, "4", "-o", "json").json
    assert shown["discarded_by"] == "mei"
    one_sentence(ledger("dead-letters", "discard", "--offset", "4", "--why", "again"), 1, "none of these is open")
    done("init", "--database", "rebuilt.duckdb")
    done("consume", "--database", "rebuilt.duckdb")
    assert done("dead-letters", "list", "--database", "rebuilt.duckdb", "-o", "ndjson").rows == []
    [still] = done("dead-letters", "list", "--all", "--database", "rebuilt.duckdb", "-o", "ndjson").rows
    assert still["offset"] == 4


@pytest.mark.long
def test_exported_records_are_whole(shop: Path) -> None:
    """Else nobody could see what a producer sent wrong, or send it again mended."""
    done("dead-letters", "export", "broken.ndjson")
    lines = [json.loads(line) for line in Path("broken.ndjson").read_text().splitlines()]
    assert [line["offset"] for line in lines] == [3, 4]
    assert base64.b64decode(lines[1]["value"]) == POISON and lines[1]["schema"] is None
    assert lines[0]["schema"] == "coupon_event v3" and lines[0]["read"]["event_id"] == "e-4"
    assert lines[0]["key_text"] == "c-1" and lines[0]["reason"] == "unknown_schema"
    assert done("dead-letters", "export", "--offset", "4").rows == lines[1:]
    one_sentence(ledger("dead-letters", "export", "missing/folder"), 2, "cannot be written")


@pytest.mark.long
def test_a_broken_record_is_read_up_to_where_it_breaks(home: Path) -> None:
    done("init")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1")]))
    log = opened_log()
    [chunk] = log.read(log.earliest_positions(log.partitions([COUPON])), 1)
    log.append([Record(COUPON, b"c-1", chunk.values[0][:-25])])
    log.close()
    done("consume")
    [line] = done("dead-letters", "export").rows
    assert line["read"]["event_id"] == "e-1" and "coupon_type" not in line["read"]


@pytest.mark.slow
def test_an_owner_is_asked_to_repair(shop: Path) -> None:
    """Else a repair would need the consumer stopped, on a sale day. It goes on with accounts that are right."""
    with owning() as asked:
        dry = done("dead-letters", "replay", "--dry-run", "-o", "json").json
        assert done("dead-letters", "replay", "--why", "mended", "-o", "json").json == dry
        assert done("state", "c-1", "-o", "json").json["state"] == "used"
        done("publish", "-", stdin=ndjson([coupon_event("used", "e-5", occurred_at="2026-11-11T00:00:05Z")]))
        wait_until(lambda: account()["applied"] == 5, "the next event")
        assert account() == {"applied": 5, "dead_letters": 1}
        done("dead-letters", "discard", "--offset", "4", "--why", "a load test")
        assert offsets() == []
        refused = asked.post("/v1/dead-letters/replay", offset=99, operator="mei", why="w")
        nobody = asked.post("/v1/dead-letters/replay", settled=True)
        unknown = asked.post("/v1/dead-letters/discard", headers={})
        effect = done("correct", "-", "-o", "json", stdin=ndjson([RETURNED])).json
        done("correct", "-", "--apply", "--why", "wrong till", stdin=ndjson([RETURNED]))
        wait_until(lambda: done("state", "c-1", "-o", "json").json["state"] == "claimed", "the correction")
    assert (nobody.status, unknown.status) == (422, 401)
    assert (
        "none of these is there" in json.loads(refused.body.splitlines()[-1])["error"]
        and "operator" in nobody.json["error"]
    )
    assert effect["coupons"][0]["after"] == "claimed"
    actions = [row["action"] for row in done("operations", "-o", "json").json]
    assert actions == ["correction_applied", "dead_letters_discarded", "dead_letters_replayed"]
    done("init", "--database", "anew.duckdb")
    done("consume", "--database", "anew.duckdb")
    both = [done("digest", "-o", "json", "--database", d).json[-1]["full"] for d in (DATABASE, "anew.duckdb")]
    assert both[0] == both[1]


@pytest.mark.long
def test_a_log_that_takes_nothing_loses_no_repair(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who did it would be lost in an outage."""
    log = opened_log()

    def refuse(given: Sequence[Record]) -> None:
        raise LogUnavailable("log: cannot be reached")

    with open_database(shop / DATABASE) as store, monkeypatch.context() as broken:
        broken.setattr(log, "append", refuse)
        with pytest.raises(LogUnavailable, match="the repair is done"):
            discard(store, log, Chosen(offset=4), BY)
    log.close()
    assert offsets() == [3]
    assert done("operations", "-o", "json").json == []
    done("consume")
    [told] = done("operations", "-o", "json").json
    assert told["operator"] == "mei"


# --- operations


def test_operations_are_read_once_in_their_order(log_settings: LogSettings) -> None:
    """Else who did what, and when, would depend on how often a process was killed, or on the partition."""
    log = open_log(log_settings, create=True)
    log.create_topics()
    assert operations.read(log) == []
    first = operations.append(log, "rebuild_swapped", why="new disks", operator="mei", details={"generation": 2})
    operations.append(log, "rebuild_rolled_back", why="slower", operator="li", subject="live.duckdb")
    log.append([operations.record_of(first), Record(OPERATIONS, b"x", POISON)])
    told = [t.operation for t in operations.read(log)]
    log.close()
    assert [t.action for t in told] == ["rebuild_swapped", "rebuild_rolled_back"]
    assert told[0] == first
    assert (told[1].subject, told[1].details) == ("live.duckdb", None)


def test_an_operation_names_who_and_why(sqlite_log_settings: LogSettings) -> None:
    with pytest.raises(InvalidEvent, match=r"reason: must not be empty"):
        operations.operation("rebuild_swapped", why="  ", operator="mei")
    with pytest.raises(InvalidEvent, match=r"action: must be one of"):
        operations.operation("tidied_up", why="untidy", operator="mei")


@pytest.mark.long
def test_operations_are_listed_by_what_is_asked(home: Path) -> None:
    done("init")
    log = opened_log()
    for operator, action in (("mei", "rebuild_swapped"), ("li", "rebuild_swapped"), ("mei", "differences_accepted")):
        operations.append(log, action, why="because", operator=operator)
    log.close()

    def listed(*arguments: str) -> list[tuple[str, str]]:
        return [(row["operator"], row["action"]) for row in done("operations", "-o", "ndjson", *arguments).rows]

    assert listed() == [("mei", "differences_accepted"), ("li", "rebuild_swapped"), ("mei", "rebuild_swapped")]
    assert listed("--operator", "mei") == [("mei", "differences_accepted"), ("mei", "rebuild_swapped")]
    assert listed("--action", "rebuild_swapped", "--limit", "1") == [("li", "rebuild_swapped")]
    assert listed("--since", "1h") == listed() and listed("--until", "1h") == []
    assert "because" in done("operations").out


# --- corrections


RETURNED = {"coupon_id": "c-1", "type": "returned", "order_id": "o-1", "occurred_at": "2026-11-12T00:00:00Z"}


@pytest.fixture(scope="module")
def two_coupons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    events = [
        coupon_event(kind, f"{kind}-{c}", coupon_id=c, occurred_at=f"2026-11-11T00:00:0{n}Z", **values)
        for c in ("c-1", "c-2")
        for n, (kind, values) in enumerate(
            [("created", {"face_value_minor": 700, "currency": "CNY"}), ("issued", {}), ("claimed", {})]
        )
    ]
    events.append(coupon_event("used", "used-c-1", occurred_at="2026-11-11T01:00:00Z"))
    folder = tmp_path_factory.mktemp("two-coupons")
    with chdir(folder):
        done("init")
        done("publish", "-", stdin=ndjson(events))
        done("consume")
    return folder


@pytest.fixture
def sold(two_coupons: Path, home: Path) -> Path:
    """c-1: used; c-2: claimed."""
    return shutil.copytree(two_coupons, home, dirs_exist_ok=True)


@pytest.mark.long
def test_a_correction_is_shown_before_it_is_made(sold: Path) -> None:
    """Else the effect on money would be seen in the reports of the next day."""
    before = ends([COUPON])
    Path("wrong.csv").write_text(
        "coupon_id,type,order_id,reason,occurred_at\n"
        "c-1,returned,o-1,,2026-11-12T00:00:00Z\nc-2,revoked,,issued_twice,2026-11-12T00:00:00Z\n"
    )
    shown = done("correct", "wrong.csv", "-o", "json").json
    effects = {
        e["coupon_id"]: (
            *(e["before"], e["after"]),
            *(e["discount_before_minor"], e["discount_after_minor"]),
            *(e["face_value_before_minor"], e["face_value_after_minor"]),
        )
        for e in shown["coupons"]
    }
    assert effects == {"c-1": ("used", "claimed", 500, 0, 0, 700), "c-2": ("claimed", "revoked", 0, 0, 700, 0)}
    [campaign] = shown["campaigns"]
    assert (campaign["campaign_id"], campaign["coupons"], campaign["events"]) == ("k-1", 2, 2)
    assert (campaign["discount_before_minor"], campaign["discount_after_minor"]) == (500, 0)
    assert (campaign["face_value_before_minor"], campaign["face_value_after_minor"]) == (700, 700)
    table = done("correct", "wrong.csv")
    assert "used → claimed" in table.out and "nothing was appended; --apply would append 2 events" in table.err
    one_sentence(ledger("correct", "wrong.csv", "--apply"), 2, "--why")
    assert ends([COUPON]) == before and done("operations", "-o", "json").json == []
    done("correct", "wrong.csv", "--apply", "--why", "booked twice", "--operator", "mei")
    done("consume")
    for coupon, (_, after, *_) in effects.items():
        assert done("state", coupon, "-o", "json").json["state"] == after
    [told] = done("operations", "-o", "json").json
    assert (told["subject"], told["operator"], told["reason"]) == ("wrong.csv", "mei", "booked twice")
    assert (told["details"]["events"], told["details"]["coupons"]) == (2, 2)
    [money] = told["details"]["money"]
    assert money["discount_before_minor"] - money["discount_after_minor"] == 500
    event = done("history", "c-1", "-o", "ndjson").rows[-1]
    assert (event["type"], event["source"]) == ("returned", "operator")


@pytest.mark.slow
def test_applied_twice_it_is_made_once(sold: Path) -> None:
    """Else whoever is not sure whether it was done could only make it worse."""
    row = ndjson([RETURNED])
    for unknown in (False, True):  # the second time before any consumer has seen the first
        ran = done("correct", "-", "--apply", "--why", "wrong till", stdin=row)
        assert ("records of coupon.events not consumed yet: 1" in ran.err) == unknown
    done("consume")
    after = facts()
    again = done("correct", "-", "--apply", "--why", "wrong till", stdin=ndjson([RETURNED]))
    assert "appended 0 events (1 there already)" in again.err
    done("consume")
    assert facts() == after
    assert done("state", "c-1", "-o", "json").json["state"] == "claimed"
    assert done("violations", "--scope", "coupon", "-o", "json").json == []
    assert len(done("operations", "-o", "json").json) == 1


@pytest.mark.long
def test_what_would_break_rules_is_refused_all_at_once(sold: Path) -> None:
    """Else a correction would have to be corrected, coupon by coupon."""
    rows = ndjson([{**RETURNED, "coupon_id": c, "order_id": o} for c, o in
                   [("c-1", "o-9"), ("c-2", "o-1"), ("c-9", "o-1")]])  # fmt: skip
    before = ends([COUPON])
    refused = ledger("correct", "-", "--apply", "--why", "w", stdin=rows)
    assert refused.code == 3
    for words in ("c-1: ", "wrong_order", "c-2: ", "returned_when_claimed", "c-9: ", "returned_when_none", "3 rules"):
        assert words in refused.err
    assert ledger("correct", "-", stdin=rows).code == 3, "a dry run says the same"
    assert ends([COUPON]) == before and done("operations", "-o", "json").json == []
    done("correct", "-", "--apply", "--allow-violations", "--why", "as it was", stdin=rows)
    assert ends([COUPON]) == before + 3


@pytest.fixture
def sold_out(sold: Path) -> Path:
    """A stock of one, of which c-2 is the second; the order names c-1 and its discount; all that is due is told."""
    order = {"topic": "order.events", "source": "shop", "type": "paid", "user_id": "u-1", "currency": "CNY"}
    done("publish", "-", stdin=ndjson([
        {"topic": "campaign.events", "source": "plan", "type": "published", "event_id": "p", "campaign_id": "k-1",
         "occurred_at": "2026-11-01T00:00:00Z", "name": "K", "coupon_type": "cash", "quantity": 1},
        {**order, "event_id": "o-1-p", "order_id": "o-1", "occurred_at": "2026-11-11T01:00:00Z", "gross_minor": 3000,
         "net_minor": 2500, "coupon_ids": ["c-1"], "discounts": [{"kind": "coupon", "amount_minor": 500}]},
        {**order, "event_id": "o-9-p", "order_id": "o-9", "occurred_at": "2026-11-20T00:00:00Z", "gross_minor": 1,
         "net_minor": 1},
    ]))  # fmt: skip
    done("consume")
    return sold


CORRECTED: dict[str, list[dict[str, Any]]] = {
    "a use undone": [RETURNED],
    "a use that was forgotten": [
        {"coupon_id": "c-2", "type": "used", "order_id": "o-1", "user_id": "u-1", "discount_minor": 100,
         "occurred_at": "2026-11-11T02:00:00Z"},
        {"coupon_id": "c-2", "type": "returned", "order_id": "o-1", "occurred_at": "2026-11-11T03:00:00Z"},
    ],
    "a use on an order that nobody paid": [
        {"coupon_id": "c-2", "type": "used", "order_id": "o-2", "user_id": "u-1", "discount_minor": 100,
         "occurred_at": "2026-11-11T02:00:00Z"},
    ],
    "taken back before it was claimed": [
        {"coupon_id": "c-1", "type": "revoked", "reason": "twice", "occurred_at": "2026-11-11T00:00:01.5Z"},
    ],
    "a coupon that was forgotten": [
        {"coupon_id": "c-0", "type": kind, "occurred_at": f"2026-11-10T0{n}:00:00Z", **values}
        for n, (kind, values) in enumerate([
            ("created", {"campaign_id": "k-1", "coupon_type": "cash"}),
            ("issued", {"channel": "app", "user_id": "u-7"}),
        ])
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [case if n in (0, 3) else pytest.param(case, marks=pytest.mark.slow) for n, case in enumerate(CORRECTED)]
)
@pytest.mark.slow
def test_what_a_correction_changes_across_coupons_is_what_comes_of_it(case: str, sold_out: Path) -> None:
    """Else a correction would break on an order, or in a campaign, what nobody had been told of."""

    def across() -> set[tuple[str, ...]]:
        told = done("violations", "--scope", "cross", "-o", "json").json
        return {(v["violation"], v["key"], v["counterpart"], v["event_id"]) for v in told}

    before = across()
    rows = ndjson(CORRECTED[case])
    shown = done("correct", "-", "--allow-violations", "-o", "json", stdin=rows).json["across"]
    assert across() == before
    done("correct", "-", "--apply", "--allow-violations", "--why", "w", stdin=rows)
    done("consume")
    told = {change: set[tuple[str, ...]]() for change in ("comes", "goes")}
    for v in shown:
        told[v["change"]].add((v["violation"], v["key"], v["counterpart"], v["event_id"]))
    assert (told["comes"], told["goes"]) == (across() - before, before - across())
    assert any(told.values()) == (case != "a use that was forgotten")


@pytest.mark.long
def test_what_a_correction_heals_is_shown(sold: Path) -> None:
    done("publish", "-", stdin=ndjson([coupon_event("used", "again", occurred_at="2026-11-11T02:00:00Z")]))
    done("consume")
    between = {**RETURNED, "occurred_at": "2026-11-11T01:30:00Z"}
    [effect] = done("correct", "-", "-o", "ndjson", stdin=ndjson([between])).rows
    assert (effect["before"], effect["after"]) == ("used", "used")
    assert effect["healed"] == ["again used_when_used"] and effect["violations"] == []


@pytest.mark.long
def test_values_for_every_row_are_set_once(sold: Path) -> None:
    """Of a batch issued twice there is a list of coupons, no more."""
    Path("surplus.csv").write_text("coupon_id\nc-2\n")
    setting = ("--set", "type=revoked", "--set", "reason=issued_twice", "--set", "occurred_at=2026-11-12T00:00:00Z")
    [effect] = done("correct", "surplus.csv", *setting, "-o", "ndjson").rows
    assert effect["after"] == "revoked"
    one_sentence(ledger("correct", "surplus.csv"), 2, "type")
    one_sentence(ledger("correct", "surplus.csv", *setting, "--set", "colour=red"), 2, "colour")


FILES = {
    "holds no rows": b"",
    "rows that say what another one says: 1": ndjson([RETURNED, RETURNED]),
    "rows that are no events: 1": ndjson([RETURNED, {**RETURNED, "event_id": "mine"}]),
    "rows that are no events: 2": ndjson([{**RETURNED, "occurred_at": None}, {**RETURNED, "topic": "order.events"}]),
}


def test_a_file_that_says_nothing_clear_is_refused(sold: Path) -> None:
    before = ends([COUPON, OPERATIONS])
    for words, content in FILES.items():
        ran = ledger("correct", "-", "--apply", "--why", "w", stdin=content)
        assert ran.code == 2 and "Traceback" not in ran.err
        assert words in ran.err.splitlines()[-1], ran.err
    assert ends([COUPON, OPERATIONS]) == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kept", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2))])
@pytest.mark.slow
def test_cut_short_in_the_midst_of_appending_it_is_completed_by_the_same(
    sold: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Kafka an append is not all or nothing: some of it may be there, and the operation not."""
    rows = [RETURNED, {"coupon_id": "c-2", "type": "revoked", "reason": "x", "occurred_at": "2026-11-12T00:00:00Z"}]
    whole = SqliteLog.append

    def cut_short(log: SqliteLog, given: Sequence[Record]) -> None:
        whole(log, list(given)[:kept])
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(SqliteLog, "append", cut_short)
        with pytest.raises(Killed):
            ledger("correct", "-", "--apply", "--why", "w", stdin=ndjson(rows))
    done("consume")
    done("correct", "-", "--apply", "--why", "w", stdin=ndjson(rows))
    done("consume")
    assert [done("state", c, "-o", "json").json["state"] for c in ("c-1", "c-2")] == ["claimed", "revoked"]
    assert done("violations", "--scope", "coupon", "-o", "json").json == []
    assert len(done("operations", "-o", "json").json) == 1
    assert ends([DEAD_LETTERS]) == 0


@pytest.mark.slow
def test_the_commands_on_either_log(home: Path, log_settings: LogSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what was rehearsed on a laptop would not work in production."""
    monkeypatch.setenv("COUPON_LEDGER_LOG", log_settings.url)
    monkeypatch.setenv("COUPON_LEDGER_TOPIC_PREFIX", log_settings.topic_prefix)
    done("init")
    events = [coupon_event("created", "e-1"), coupon_event("issued", "e-2"), coupon_event("used", "e-3")]
    done("publish", "-", stdin=ndjson(events))
    log = open_log(log_settings)
    log.append([Record(COUPON, b"c-1", POISON)])
    log.close()
    with owning():
        wait_until(lambda: len(offsets()) == 1, "the dead letter")
        done("correct", "-", "--apply", "--why", "wrong till", stdin=ndjson([RETURNED]))
        wait_until(lambda: done("state", "c-1", "-o", "json").json["state"] == "issued", "the correction")
        done("dead-letters", "replay", "--why", "mended?")
        done("dead-letters", "discard", "--reason", "unknown_schema", "--why", "nobody knows it")
        assert offsets() == []
    done("init", "--database", "anew.duckdb")
    done("consume", "--database", "anew.duckdb")
    assert done("dead-letters", "list", "--database", "anew.duckdb", "-o", "ndjson").rows == []
    actions = [row["action"] for row in done("operations", "-o", "json").json]
    assert actions == ["dead_letters_discarded", "dead_letters_replayed", "correction_applied"]


@pytest.mark.long
def test_a_correction_of_what_is_still_to_come_is_warned_of(sold: Path) -> None:
    """Else a wrong digit of a year would be seen only when `--at` and the live state say different things."""
    later = {**RETURNED, "occurred_at": "2999-01-01T00:00:00Z"}
    assert "events later than now: 1, the last one at 2999-" in done("correct", "-", stdin=ndjson([later])).err
    assert "later than now" not in done("correct", "-", stdin=ndjson([RETURNED])).err
