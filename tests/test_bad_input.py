"""Whatever a user gets wrong ends in one clear sentence, the proper exit code, and nothing lost or half-written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS
from tests.command_line import (
    DATABASE,
    LOG,
    PATIENCE_S,
    coupon_event,
    dead_letters_told,
    done,
    ends,
    facts,
    finish,
    ledger,
    limited,
    ndjson,
    one_sentence,
    opened_log,
    start,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("home")

USAGE, REFUSED, LOG_ERROR, DATABASE_ERROR = 2, 3, 4, 5


@pytest.fixture
def initialised(home: Path) -> Path:
    done("init")
    return home


# --- lines of a published file


def line(**changes: Any) -> bytes:
    return json.dumps(coupon_event("created", "e-1") | changes).encode()


def line_with(text: str) -> bytes:
    """A valid line but for the JSON text of `attributes`."""
    return line(attributes="HERE").replace(b'"HERE"', text.encode())


NO_DECIMALS = "must be a whole number (minor units, no decimals, no quotes)"
BAD_LINES: dict[str, tuple[bytes, str, str]] = {
    "broken JSON": (b'{"topic": ', "", "not JSON (Expecting value at column 11)"),
    "no UTF-8": (b'{"topic": "caf\xe9"}', "", "not UTF-8 (invalid continuation byte at byte 15)"),
    "UTF-16": ("{}".encode("utf-16"), "", "not UTF-8 (invalid start byte at byte 1)"),
    "a list": (b"[]", "", "not a JSON object"),
    "a text": (b'"created"', "", "not a JSON object"),
    "null": (b"null", "", "not a JSON object"),
    "two objects": (b"{} {}", "", "not JSON (Extra data at column 4)"),
    "100,000 brackets": (b"[" * 100_000, "", "JSON that is nested too deeply"),
    "100,000 objects": (b'{"a":' * 100_000, "", "JSON that is nested too deeply"),
    "300 brackets in attributes": (line_with('{"a":' + "[" * 300 + "]" * 300 + "}"), "attributes", ""),
    "5 MB": (b"x" * 5_000_000, "", "longer than 4,000,000 bytes"),
    "a field twice": (line_with('{}, "event_id": "e-2"'), "event_id", "stands more than once in one object"),
    "a number of 5,000 digits": (line_with('{"a": 1' + "0" * 5000 + "}"), "", "JSON with a number of too many digits"),
    "NaN": (line_with('{"a": NaN}'), "", "not JSON (NaN is no JSON number)"),
    "infinity": (line_with('{"a": 1e400}'), "attributes", "must be JSON"),
    "unknown topic": (line(topic="coupon.event"), "topic", "'coupon.event' is none of coupon.events, order.events"),
    "topic of an output": (line(topic="coupon.alerts"), "topic", "is none of coupon.events"),
    "no topic": (line(topic=None), "topic", "is needed"),
    "a topic that is no text": (line(topic=5), "topic", ""),
    "unknown type": (line(type="redeemed"), "type", "'redeemed' is none of created, issued"),
    "no type": (line(type=None), "type", "is needed"),
    "a type that is no text": (line(type=5), "type", "5 is none of"),
    "unknown field": (line(cupon_id="c-2"), "cupon_id", "is no field of this event"),
    "amount 5.0": (line(face_value_minor=5.0), "face_value_minor", NO_DECIMALS),
    "amount 5.5": (line(face_value_minor=5.5), "face_value_minor", NO_DECIMALS),
    "amount in quotes": (line(face_value_minor="5"), "face_value_minor", NO_DECIMALS),
    "amount true": (line(face_value_minor=True), "face_value_minor", NO_DECIMALS),
    "negative amount": (line(face_value_minor=-1), "face_value_minor", "0"),
    "amount 2**53": (line(face_value_minor=2**53), "face_value_minor", "must be at most 9,007,199,254,740,991"),
    "amount 10**400": (line(face_value_minor=10**400), "face_value_minor", "must be at most 9,007,199,254,740,991"),
    "rate above 1": (line(percent_off_bp=10_001), "percent_off_bp", "must be at most 10,000"),
    "instant without zone": (line(occurred_at="2026-11-11T00:00:00"), "occurred_at", "must carry a time zone"),
    "finer than microseconds": (
        line(occurred_at="2026-11-11T00:00:00.1234567Z"),
        "occurred_at",
        "must not be finer than microseconds",
    ),
    "30 February": (line(occurred_at="2026-02-30T00:00:00Z"), "occurred_at", "day is out of range for month"),
    "no instant": (line(occurred_at="yesterday"), "occurred_at", "must be an RFC 3339 instant such as"),
    "seconds since the epoch": (line(occurred_at=1_793_404_800), "occurred_at", "must be an RFC 3339 instant"),
    "before the year 1": (line(occurred_at="0001-01-01T00:00:00+08:00"), "occurred_at", "years 1 to 9999"),
    "unknown currency": (line(currency="RMB"), "currency", "must be an ISO 4217 code such as CNY"),
    "an id of 10,000 characters": (line(coupon_id="c" * 10_000), "coupon_id", "256 characters"),
    "empty id": (line(coupon_id=""), "coupon_id", "must not be empty"),
    "half a character": (line(coupon_id="c-\ud800"), "coupon_id", ""),
    "half a character in a field's name": (line(**{"x\ud800": 1}), "", ""),
    "half a character in an id that is shown": (line(event_id="\ud800", type="gone"), "type", "'gone' is none of"),
    "an id that is a nest": (line(type=5).replace(b'"e-1"', b"[" * 400 + b"]" * 400), "type", ""),
}


@pytest.mark.long
def test_every_bad_line_is_reported_by_number_field_and_rule(initialised: Path) -> None:
    """Else a producer could not mend its events, or one of them would stop all the others."""
    good = [ndjson([coupon_event("created", f"good-{n}", coupon_id=f"c-{n}")]) for n in range(len(BAD_LINES))]
    pairs = zip((bad for bad, _, _ in BAD_LINES.values()), good, strict=True)
    (initialised / "events.ndjson").write_bytes(b"".join(bad + b"\n" + fine for bad, fine in pairs))
    ran = ledger("publish", "events.ndjson")
    assert ran.code == REFUSED and "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 7 and "more, in events.ndjson.rejected.ndjson" in ran.err
    assert f"appended {len(good)} events, refused {len(BAD_LINES)}; see events.ndjson.rejected.ndjson" in ran.err
    text = (initialised / "events.ndjson.rejected.ndjson").read_text(encoding="utf-8")
    report = [json.loads(entry) for entry in text.splitlines()]
    assert [entry["line"] for entry in report] == list(range(1, 2 * len(BAD_LINES), 2))
    for (name, (_, field, rule)), entry in zip(BAD_LINES.items(), report, strict=True):
        told = [p["rule"] for p in entry["problems"] if p["field"] == field or p["field"].startswith(field + ".")]
        assert told and any(rule in words for words in told), (name, entry["problems"])
    assert ends(INPUT_TOPICS) == len(good)
    done("consume")
    assert done("status", "--output", "json").json["dead_letters"] == 0


@pytest.mark.parametrize("bad", ["unknown type", "no UTF-8", "100,000 brackets", "5 MB", "half a character"])
def test_a_refused_line_says_why_on_the_terminal(initialised: Path, bad: str) -> None:
    """Else the reason would have to be looked for in a file."""
    content, _, rule = BAD_LINES[bad]
    ran = ledger("publish", "-", stdin=content + b"\n")
    assert ran.code == REFUSED and "Traceback" not in ran.err
    said, ended = ran.err.splitlines()
    assert said.startswith("line 1: ") and rule in said
    assert ended == "appended 0 events, refused 1; see stdin.rejected.ndjson"


def test_all_problems_of_an_event_are_named_at_once(initialised: Path) -> None:
    """Else a producer would mend one field a day."""
    ran = ledger("publish", "-", stdin=line(coupon_id="", campaign_id=None, face_value_minor=-5, currency="?", x=1))
    for field in ("coupon_id", "campaign_id", "face_value_minor", "currency", "x"):
        assert f"{field}: " in ran.err


@pytest.mark.long
def test_the_same_event_twice_counts_once(initialised: Path) -> None:
    """Else a file with repeated lines would use coupons twice."""
    events = ndjson([coupon_event("created", "e-1"), coupon_event("issued", "e-2"), coupon_event("claimed", "e-3")])
    done("publish", "-", stdin=events * 3)
    done("consume")
    row = done("state", "c-1", "--output", "json").json
    assert (row["state"], row["events"], row["violations"]) == ("claimed", 3, 0)


@pytest.mark.slow
def test_a_line_of_any_length_takes_no_more_memory_than_a_line_may(initialised: Path) -> None:
    """Else one endless line would take the machine's memory."""
    with (initialised / "endless.ndjson").open("wb") as file:
        file.truncate(200_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line() + b"\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ran = ledger("publish", "endless.ndjson")
    assert ran.code == REFUSED and "line 1: longer than 4,000,000 bytes" in ran.err
    assert "appended 1 event" in ran.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


# --- files


def test_a_file_that_cannot_be_published_is_named(initialised: Path) -> None:
    """Else a mistyped path would end in a traceback, or look like an empty file."""
    (initialised / "folder").mkdir()
    one_sentence(ledger("publish", "gone.ndjson"), USAGE, "file gone.ndjson: not there", "check the path")
    for folder in ("folder", ".", "..", "/"):
        one_sentence(ledger("publish", folder), USAGE, f"file {folder}: cannot be read (Is a directory)")
    assert ends(INPUT_TOPICS) == 0


def test_a_report_that_cannot_be_written_is_named(initialised: Path) -> None:
    """Else bad lines would be refused with no record of why."""
    (initialised / "folder").mkdir()
    for place in ("folder", "nowhere/rejects.ndjson"):
        ran = ledger("publish", "-", "--rejects", place, stdin=b"bad\n")
        one_sentence(ran, USAGE, f"report {place}: cannot be written", "--rejects")


def test_the_report_never_overwrites_the_events(initialised: Path) -> None:
    """Else `--rejects` with the wrong name would destroy the only copy of a day's events."""
    events = ndjson([coupon_event("created", "e-1")]) + b"bad\n"
    (initialised / "events.ndjson").write_bytes(events)
    (initialised / "link.ndjson").symlink_to("events.ndjson")
    for name in ("events.ndjson", "./events.ndjson", "link.ndjson"):
        one_sentence(ledger("publish", "events.ndjson", "--rejects", name), USAGE, "is the file to be published")
    assert (initialised / "events.ndjson").read_bytes() == events
    assert ends(INPUT_TOPICS) == 0


# --- settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", ["not TOML"]),
        ("[coupon-ledger]\ndatabse = 'x'", ["unknown databse", "database"]),
        ("[coupon-ledger]\npartitions = 'many'", ["setting partitions (file bad.toml)", "'many'", "whole number"]),
        ("[coupon-ledger]\nlog = 5", ["setting log (file bad.toml)", "5", "quotes"]),
        ("log = 'sqlite:///x'", ["log stands outside", "[coupon-ledger]"]),
        ("coupon-ledger = 5", ["tables"]),
    ],
)
def test_a_broken_settings_file_is_explained(home: Path, text: str, words: list[str]) -> None:
    """Else a slip in the file would be ignored, or end in a traceback."""
    (home / "bad.toml").write_text(text)
    one_sentence(ledger("init", "--config", "bad.toml"), USAGE, "bad.toml", *words)
    assert [p.name for p in home.iterdir()] == ["bad.toml"]


@pytest.mark.parametrize("number", ["x", "0", "-1", "4.5", "", "99999999999999999999"])
def test_a_number_that_is_none_is_refused(home: Path, number: str) -> None:
    """Else a log would be made with partitions that nobody asked for."""
    one_sentence(ledger("init", "--partitions", number), USAGE, "partitions (flag)", repr(number), "whole number")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("redis://127.0.0.1", "unknown scheme; use sqlite:///path, kafka://host:port"),
        ("log.db", "unknown scheme"),
        ("", "is empty"),
        ("sqlite:///", "no path"),
        ("kafka://", "is not host:port"),
        ("kafka://broker", "'broker' is not host:port"),
    ],
)
@pytest.mark.parametrize("command", ["init", "consume", "publish"])
def test_an_address_that_is_none_is_refused(home: Path, command: str, address: str, word: str) -> None:
    """Else events would land where nobody looks for them."""
    if command == "consume":
        done("init")
    arguments = ["publish", "-"] if command == "publish" else [command]
    one_sentence(ledger(*arguments, "--log", address), USAGE, word)


# --- the log


@pytest.fixture
def events_file(home: Path) -> Path:
    path = home / "events.ndjson"
    path.write_bytes(ndjson([coupon_event("created", "e-1"), coupon_event("issued", "e-2")]))
    return path


def missing(path: Path) -> None:
    """Nothing there."""


def a_folder(path: Path) -> None:
    path.mkdir()


def a_text(path: Path) -> None:
    path.write_text("just a text, and no database at all\n" * 100)


def empty(path: Path) -> None:
    path.touch()


def another_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE app (id INTEGER)")


def another_duckdb(path: Path) -> None:
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE app (id INTEGER)")


def cut_short(path: Path) -> None:
    done("init", "--database", path, "--log", f"sqlite:///{path}.log")
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (missing, "no such file; run `coupon-ledger init`"),
        (a_folder, "is a folder; name a file in it"),
        (a_text, "file is not a database"),
        (empty, "is no event log"),
        (another_sqlite, "is no event log"),
    ],
)
def test_a_log_that_is_none_is_named(
    initialised: Path, events_file: Path, make: Callable[[Path], None], word: str
) -> None:
    """Else events would be written into, or expected from, somebody else's file."""
    path = initialised / "other.db"
    make(path)
    before = content(path)
    for command in (("publish", "events.ndjson"), ("consume",), ("status",)):
        one_sentence(ledger(*command, "--log", "sqlite:///other.db"), LOG_ERROR, "log sqlite:///other.db", word)
    assert content(path) == before


def test_a_log_in_a_folder_that_is_not_there_is_named(home: Path) -> None:
    """Else SQLite's "unable to open database file" would be all that is said."""
    ran = ledger("init", "--log", "sqlite:///nowhere/log.db")
    one_sentence(ran, LOG_ERROR, "the folder", "nowhere is not there", "make it first")
    assert list(home.iterdir()) == []


@pytest.mark.long
def test_missing_topics_are_named(initialised: Path, events_file: Path) -> None:
    """Else a wrong prefix would look like a log without events."""
    for command in (("publish", "events.ndjson"), ("consume",), ("status",), ("simulate", "--events", "10")):
        ran = ledger(*command, "--topic-prefix", "staging.")
        one_sentence(ran, LOG_ERROR, "staging.coupon.events", "run `coupon-ledger init`")


@pytest.fixture
def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"kafka://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.slow
def test_a_broker_that_is_not_up_is_named(initialised: Path, events_file: Path, free_address: str) -> None:
    """Else a user would wait for ever, or read kafka-python's debris."""
    commands = (("init",), ("publish", "events.ndjson"), ("consume",), ("status",))
    processes = []
    for number, command in enumerate(commands):  # at once, and so each with a database of its own
        shutil.copy(DATABASE, f"{number}.duckdb")
        environment = {**os.environ, "COUPON_LEDGER_DATABASE": f"{number}.duckdb"}
        processes.append(start(*command, "--log", free_address, env=environment))
    for process in processes:
        one_sentence(finish(process), LOG_ERROR, f"log {free_address}: cannot connect", "check the address")
    # What was not appended there can go here.
    assert done("publish", "events.ndjson").out == "appended 2 events\n"


def drop_head(before: int) -> None:
    """As retention would: the records before that offset are gone, in every partition."""
    with closing(sqlite3.connect(LOG)) as connection, connection:
        connection.execute("DROP TRIGGER records_never_go")
        connection.execute('DELETE FROM records WHERE "offset" < ?', (before,))


@pytest.mark.slow
def test_a_log_that_forgot_what_is_needed_stops_the_consumer(initialised: Path) -> None:
    """Else events would be skipped in silence, and every figure after that would be wrong."""
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1")]))
    done("consume")
    before = facts()
    done("publish", "-", stdin=ndjson(coupon_event("issued", f"e-{n}") for n in range(2, 12)))
    drop_head(before=5)
    one_sentence(
        ledger("consume"),
        LOG_ERROR,
        "coupon.events partition",
        "next offset is 1",
        "holds 5 to 11",
        "nothing is skipped",
    )
    assert facts() == before
    assert done("state", "c-1", "--output", "json").json["events"] == 1


@pytest.mark.slow
def test_a_log_shorter_than_the_database_stops_the_consumer(initialised: Path) -> None:
    """Else a database would wait for ever on a log that it does not belong to."""
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1"), coupon_event("issued", "e-2")]))
    done("consume")
    before = facts()
    done("init", "--log", "sqlite:///other.db")
    ran = ledger("consume", "--log", "sqlite:///other.db")
    one_sentence(ran, LOG_ERROR, "not the log that database", "name the right log with --log")
    assert facts() == before
    done("publish", "-", stdin=ndjson([coupon_event("claimed", "e-3")]))
    assert done("consume").out.startswith("consumed 1 record ")


# --- the database

READING = (("state", "c-1"), ("coupons",), ("digest",), ("status",), ("dead-letters", "list"))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (missing, "not there; make it with `coupon-ledger init`"),
        (a_folder, "a folder; name a file in it"),
        (a_text, "not a DuckDB file; name another with --database"),
        (empty, "not a DuckDB file; name another with --database"),
        (another_duckdb, "a DuckDB file, but not one of coupon-ledger; name another with --database"),
        (cut_short, ""),
    ],
)
def test_a_database_that_is_none_is_named(initialised: Path, make: Callable[[Path], None], word: str) -> None:
    """Else tables would be written into, or expected from, somebody else's file."""
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1")]))
    path = initialised / "other.duckdb"
    make(path)
    before = content(path)
    commands = [*READING, ("consume",)] + ([] if make is missing else [("init",)])
    for command in commands:
        ran = ledger(*command, "--database", "other.duckdb")
        one_sentence(ran, DATABASE_ERROR, "database other.duckdb", word)
    assert content(path) == before
    assert not (initialised / "other.duckdb.owner").exists()
    assert not list(initialised.glob("*.new-*"))


@pytest.mark.long
def test_a_database_of_a_newer_version_is_not_touched(initialised: Path) -> None:
    """Else an old program would write old rules into new tables."""
    with duckdb.connect(DATABASE) as connection:
        connection.execute("UPDATE ledger SET version = 99")
    before = content(initialised / DATABASE)
    for command in (*READING, ("consume",), ("init",)):
        one_sentence(ledger(*command), DATABASE_ERROR, "version 99", "use that newer coupon-ledger")
    assert content(initialised / DATABASE) == before


def test_a_database_of_an_older_version_names_the_way_on(initialised: Path) -> None:
    """Else someone who upgraded would not know that the log can rebuild everything."""
    with duckdb.connect(DATABASE) as connection:
        connection.execute("UPDATE ledger SET version = 0")
    one_sentence(ledger("consume"), DATABASE_ERROR, "version 0", "coupon-ledger rebuild")


@pytest.mark.slow
def test_a_database_damaged_on_disk_is_named_wherever_the_damage_lies(initialised: Path) -> None:
    """Else a bad disk would show as a traceback, and nobody would think of the log that holds everything."""
    done("simulate", "--events", "30000")
    done("consume")
    before = facts()
    whole = (initialised / DATABASE).read_bytes()
    damaged = []
    for tenth in range(4, 10):
        at = tenth * len(whole) // 10
        name = f"damaged-{tenth}.duckdb"
        (initialised / name).write_bytes(whole[:at] + bytes(255 - b for b in whole[at : at + 64]) + whole[at + 64 :])
        damaged.append((name, start("digest", "--database", name)))
    ended = [(name, finish(process)) for name, process in damaged]
    assert any(ran.code for _, ran in ended), "some of the damage lies where it is read"
    for name, ran in ended:
        if ran.code:
            one_sentence(ran, DATABASE_ERROR, f"database {name}: damaged on disk", "coupon-ledger rebuild")
    done("init", "--database", "new.duckdb")
    done("consume", "--database", "new.duckdb")
    assert facts("new.duckdb") == before


@dataclass
class Follower:
    process: subprocess.Popen[bytes]

    def has_consumed(self, batches: int) -> None:
        wait_until(lambda: self.process.poll() is not None or dead_letters_told() == batches, f"batch {batches}")
        assert self.process.poll() is None


@pytest.fixture
def follower(initialised: Path) -> Iterator[Follower]:
    """A consumer that owns the database, in a process of its own."""
    log = opened_log()
    log.append([Record(COUPON, b"poison", b"\x00")])
    log.close()
    process = start("consume", "--follow")
    running = Follower(process)
    try:
        running.has_consumed(1)
        yield running
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.slow
def test_a_second_consumer_is_told_who_owns_the_database(follower: Follower) -> None:
    """Else two consumers would fold over each other, or nobody would know which process to stop."""
    owner = f"in use by process {follower.process.pid} ('coupon-ledger consume --follow', since 20"
    one_sentence(ledger("consume"), DATABASE_ERROR, f"database {DATABASE}: {owner}", "wait for it or stop it")
    follower.process.send_signal(signal.SIGTERM)
    assert finish(follower.process).code == 0
    assert done("coupons", "--count").out == "nothing found\n"


@pytest.mark.slow
def test_what_a_killed_consumer_left_behind_does_not_block(follower: Follower) -> None:
    """Else a crash at night would need somebody to delete a file by hand."""
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1")]))
    follower.process.kill()
    follower.process.wait(timeout=PATIENCE_S)
    stale = Path(DATABASE + ".owner")
    assert json.loads(stale.read_text())["pid"] == follower.process.pid
    done("coupons")
    done("consume")
    assert done("state", "c-1", "--output", "json").json["state"] == "created"
    assert not stale.exists()


@pytest.mark.slow
def test_a_stale_owner_is_not_blamed_for_another_process(initialised: Path) -> None:
    """Else an operator would look for a process that is long gone."""
    Path(DATABASE + ".owner").write_text('{"pid": 1, "command": "gone", "since": "long ago"}')
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, DATABASE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    one_sentence(ledger("consume"), DATABASE_ERROR, f"in use by process {holder.pid};")
    holder.communicate(timeout=PATIENCE_S)
    done("consume")


# --- no room


def sale(number: int) -> bytes:
    return ndjson(
        coupon_event(kind, f"{kind}-{n}", coupon_id=f"c-{n}", occurred_at=f"2026-11-11T00:00:0{second}Z")
        for n in range(number)
        for second, kind in enumerate(("created", "issued", "claimed", "used"))
    )


@pytest.fixture
def undisturbed(home: Path) -> str:
    """The facts of the sale in a run without trouble."""
    at = ("--log", "sqlite:///undisturbed.db")
    (home / "sale.ndjson").write_bytes(sale(6_000))
    done("init", *at, "--database", "undisturbed.duckdb")
    done("publish", "sale.ndjson", *at)
    done("consume", *at, "--database", "undisturbed.duckdb")
    return facts("undisturbed.duckdb")


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_full_disk_under_the_log_loses_nothing(home: Path, undisturbed: str, share: float) -> None:
    """Else a full disk would leave a part of a batch, or a log that cannot be used any more."""
    done("init")
    limit = int(share * (home / "undisturbed.db").stat().st_size)
    ran = limited("publish", "sale.ndjson", file_bytes=limit)
    assert ran.code == LOG_ERROR and "Traceback" not in ran.err
    *told, error = ran.err.splitlines()
    assert error.startswith(f"error: log sqlite:///{LOG}: no room to append") and "free space" in error
    kept = ends(INPUT_TOPICS)
    assert kept % 10_000 == 0 and kept < 24_000, "whole batches only"
    assert told == ([f"appended {kept:,} events, then the log failed; publish the same again"] if kept else [])
    done("publish", "sale.ndjson")
    done("consume")
    assert facts() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_a_full_disk_under_the_database_loses_nothing(home: Path, undisturbed: str, share: float) -> None:
    """Else a full disk would leave rows without their offsets, and counts that are wrong for ever."""
    done("init")
    done("publish", "sale.ndjson")
    empty_size = (home / DATABASE).stat().st_size
    full_size = (home / "undisturbed.duckdb").stat().st_size
    limit = int(empty_size + share * (full_size - empty_size))
    ran = limited("consume", "--batch-size", "5000", file_bytes=limit)
    one_sentence(
        ran, DATABASE_ERROR, f"database {DATABASE}: the disk is full", "free space", "nothing was half-written"
    )
    status = done("status", "--output", "json").json
    assert status["read"] == status["applied"] + status["repeats"] == 24_000 - status["lag"]
    assert not Path(DATABASE + ".owner").exists()
    done("consume")
    assert facts() == undisturbed


@pytest.mark.slow
def test_a_full_disk_under_the_report_loses_nothing(initialised: Path) -> None:
    """Else lines would be refused and nobody could say which."""
    bad = b'{"topic": "coupon.events", "type": "lost"}\n' * 60_000
    (initialised / "events.ndjson").write_bytes(ndjson([coupon_event("created", "e-1")]) + bad)
    ran = limited("publish", "events.ndjson", file_bytes=2_000_000)
    assert ran.code == USAGE and "Traceback" not in ran.err
    assert "report events.ndjson.rejected.ndjson: cannot be written (File too large)" in ran.err.splitlines()[-1]
    again = ledger("publish", "events.ndjson")
    assert again.code == REFUSED and "appended 1 event, refused 60,000" in again.err


# --- no permission


def unwritable(folder: Path) -> None:
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere (root)")


def test_a_folder_without_permission_is_named(home: Path) -> None:
    """Else a service under the wrong user would end in a traceback."""
    folder = home / "locked"
    folder.mkdir()
    unwritable(folder)
    ran = ledger("init", "--log", "sqlite:///locked/log.db")
    one_sentence(ran, LOG_ERROR, "locked/log.db", "permissions")
    ran = ledger("init", "--database", "locked/x.duckdb")
    assert (ran.code, "Traceback" in ran.err) == (DATABASE_ERROR, False)
    folder.chmod(0o755)


def test_a_log_that_may_only_be_read_is_named(initialised: Path, events_file: Path) -> None:
    """Else a publisher under the wrong user would not know why nothing arrives."""
    (initialised / LOG).chmod(0o444)
    if os.access(initialised / LOG, os.W_OK):
        pytest.skip("this user may write anywhere (root)")
    one_sentence(ledger("publish", "events.ndjson"), LOG_ERROR, f"log sqlite:///{LOG}", "permissions")
