"""`tail`: what it shows, where it begins, how it ends; on both logs."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from coupon_ledger.ledger.codec import decode, encode_row
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.reports.text import text_width
from scripts.examples import example
from tests.command_line import (
    DATABASE,
    Data,
    Ran,
    coupon_event,
    done,
    facts,
    finish,
    ledger,
    ndjson,
    one_sentence,
    start,
    wait_until,
)

POISON = b"poison\xff"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def at(log_settings: LogSettings) -> list[str]:
    """The flags that name a fresh log, on each backend in turn."""
    flags = ["--log", log_settings.url]
    if log_settings.topic_prefix:
        flags += ["--topic-prefix", log_settings.topic_prefix]
    done("init", *flags)
    return flags


@pytest.fixture
def log(log_settings: LogSettings, at: list[str]) -> Iterator[EventLog]:
    opened = open_log(log_settings)
    yield opened
    opened.close()


def day() -> list[Data]:
    return [
        coupon_event("created", "e-1", coupon_id="c-1"),
        coupon_event("claimed", "e-2", coupon_id="c-1", campaign_id="k-2", attributes={"a": [1.5, "券"]}),
        coupon_event("used", "e-3", coupon_id="c-2", user_id="u-2"),
        {**example(ORDER, "paid"), "event_id": "e-4", "user_id": "u-2"},
    ]


def shown(*arguments: str) -> list[str]:
    """The ids of the events that these flags choose."""
    rows = done("tail", "--no-follow", "--output", "ndjson", *arguments).rows
    return [row["event"]["event_id"] if row["event"] else row["reason"] for row in rows]


def test_events_are_shown_as_they_are_in_the_log(at: list[str], log: EventLog) -> None:
    """Else an engineer could not see whether, and as what, his events arrived."""
    for event in day():
        done("publish", "-", *at, stdin=json.dumps(event).encode())
    rows = done("tail", "--no-follow", "-o", "ndjson", *at).rows
    wanted = day()
    topics = [event.pop("topic") for event in wanted]
    assert [row["topic"] for row in rows] == topics
    for row, event in zip(rows, wanted, strict=True):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row["recorded_at"])
        instant = event["occurred_at"].replace("Z", ".000000Z")
        assert row["event"] == {**event, "occurred_at": instant}
        assert row["key"] == event.get("coupon_id", event.get("order_id"))
        assert (row["reason"], row["detail"], row["value"]) == (None, None, None)
        [chunk] = log.read(
            {p: row["offset"] for p in log.partitions() if p[:2] == (row["topic"], row["partition"])}, 1, 10
        )
        assert decode(chunk.values[0])[1]["event_id"] == event["event_id"]


@pytest.mark.long
def test_events_are_chosen_by_what_they_are_about(at: list[str]) -> None:
    """Else one coupon's events would drown in a sale day."""
    done("publish", "-", *at, stdin=ndjson(day()))
    assert sorted(shown(*at)) == ["e-1", "e-2", "e-3", "e-4"]
    assert shown("--key", "c-1", *at) == ["e-1", "e-2"]
    assert shown("--topic", ORDER, *at) == ["e-4"]
    assert sorted(shown("--type", "used", "--type", "paid", *at)) == ["e-3", "e-4"]
    assert shown("--campaign", "k-2", *at) == ["e-2"]
    assert sorted(shown("--user", "u-2", *at)) == ["e-3", "e-4"]
    assert shown("--user", "u-2", "--topic", COUPON, "--key", "c-2", "--type", "used", *at) == ["e-3"]
    assert shown("--user", "nobody", *at) == []


@pytest.mark.long
def test_it_begins_where_it_is_told_to(at: list[str]) -> None:
    """Else a look at the last quarter of an hour would mean reading all that ever was."""
    for number in range(30):
        event = coupon_event("created", f"e-{number}", coupon_id=f"c-{number % 7}")
        done("publish", "-", *at, stdin=json.dumps(event).encode())
    every = [f"e-{number}" for number in range(30)]
    rows = done("tail", "--no-follow", "--from-start", "-o", "ndjson", *at).rows
    instants = {row["event"]["event_id"]: row["recorded_at"] for row in rows}
    assert sorted(instants) == sorted(every)
    assert shown(*at) == every[-10:]
    assert shown("-n", "3", *at) == every[-3:]
    assert shown("-n", "0", *at) == []
    assert shown("-n", "2", "--key", "c-0", *at) == ["e-21", "e-28"]
    assert sorted(shown("--since", "1h", *at)) == sorted(every)
    middle = instants["e-15"]
    since = shown("--since", middle, *at)
    assert sorted(since) == sorted(i for i in every if instants[i] >= middle)
    assert shown("--since", "2999-01-01T00:00:00Z", *at) == []


@pytest.mark.long
def test_the_last_that_match_are_found_however_far_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a rare coupon's last events would not be found, or later ones of a busy partition be missed."""
    monkeypatch.setattr("coupon_ledger.cli.tail._WINDOW", 8)
    done("init")
    events = [coupon_event("created", f"e-{n}", coupon_id="rare" if n % 100 == 3 else f"c-{n}") for n in range(500)]
    for n in range(0, 500, 50):
        done("publish", "-", stdin=ndjson(events[n : n + 50]))
    assert shown("--key", "rare", "-n", "3") == ["e-203", "e-303", "e-403"]
    assert shown("--key", "rare", "-n", "9") == ["e-3", "e-103", "e-203", "e-303", "e-403"]
    # The last 40 were recorded together, on all partitions.
    assert {int(i[2:]) // 50 for i in shown("-n", "40")} == {9}


def test_what_is_no_valid_event_is_shown_with_the_reason(at: list[str], log: EventLog) -> None:
    """Else a broken producer would look like one that sends nothing, or end the tail."""
    invalid = {"type": "used", "event_id": "e-2", "occurred_at": 0, "source": "shop", "coupon_id": "c-1"}
    no_json = {**invalid, "type": "created", "event_id": "e-3", "attributes": "{no"}
    strange = {"type": "paid", "event_id": "e-4", "occurred_at": 0, "source": "shop", "order_id": "o-1"}
    log.append(
        [
            Record(COUPON, b"c-\xff", POISON),
            Record(COUPON, b"c-1", encode_row("coupon_event", invalid)),
            Record(COUPON, b"c-1", encode_row("coupon_event", no_json)),
            Record(COUPON, b"c-1", encode_row("order_event", strange)),
            Record(COUPON, b"c-1", b"\xc3\x01" + bytes(8)),
        ]
    )
    rows = done("tail", "--no-follow", "-o", "ndjson", *at).rows
    assert sorted(row["reason"] for row in rows) == [
        "invalid_event", "invalid_event", "undecodable", "unknown_schema", "wrong_topic",
    ]  # fmt: skip
    by_id = {row["event"]["event_id"]: row for row in rows if row["event"]}
    assert "user_id: is needed by used events" in by_id["e-2"]["detail"]
    assert by_id["e-3"]["event"]["attributes"] == "{no"
    [poison] = [row for row in rows if row["reason"] == "undecodable"]
    assert (poison["key"], bytes.fromhex(poison["value"])) == ("c-\\xff", POISON)
    table = done("tail", "--no-follow", *at)
    assert table.err == "" and len(table.out.splitlines()) == 7
    assert f"NOT VALID (undecodable, {COUPON} {poison['partition']} {poison['offset']})" in table.out
    assert shown("--type", "used", *at) == ["e-2"]
    assert shown("--type", "paid", *at) == []


@pytest.mark.long
def test_people_see_a_line_per_event() -> None:
    """Else nobody could follow a sale by eye, or an id could steer the terminal."""
    done("init")
    events = [
        *day(),
        coupon_event("created", "e-5", coupon_id="券-" + "x" * 30),
        coupon_event("created", "e\x1b[2J\n6"),
    ]
    for event in events:
        done("publish", "-", stdin=json.dumps(event).encode())
    zone, header, *lines = done("tail", "--no-follow").out.splitlines()
    assert zone == "times in Asia/Shanghai"
    assert header.split() == ["recorded", "at", "occurred", "at", "event", "key", "data"]
    assert len(lines) == 6
    assert " used " in lines[2] and "user_id=u-2" in lines[2] and 'attributes={"a": [1.5, "券"]}' in lines[1]
    starts = [text_width(line[: line.index("event_id=")]) for line in lines]
    assert starts[0] == starts[1] == starts[2] == starts[3] < starts[4] == starts[5]
    assert r"e\x1b[2J\n6" in lines[5]


@pytest.mark.long
def test_all_formats_say_the_same() -> None:
    """Else what a program reads would depend on how it asks."""
    done("init")
    done("publish", "-", stdin=ndjson(day()))
    rows = done("tail", "--no-follow", "-o", "ndjson").rows
    assert done("tail", "--no-follow", "-o", "json").json == rows
    read = csv.DictReader(io.StringIO(done("tail", "--no-follow", "-o", "csv").out, newline=""))
    assert [(r["offset"], json.loads(r["event"])) for r in read] == [(str(r["offset"]), r["event"]) for r in rows]


@pytest.mark.long
def test_what_was_seen_can_be_published_elsewhere() -> None:
    """Else a case seen on one log could not be tried on another."""
    done("init")
    done("publish", "-", stdin=ndjson(day()))
    again = [{"topic": row["topic"], **row["event"]} for row in done("tail", "--no-follow", "-o", "ndjson").rows]
    done("init", "--log", "sqlite:///other.db")
    assert done("publish", "-", "--log", "sqlite:///other.db", stdin=ndjson(again)).out == "appended 4 events\n"


@pytest.mark.slow
def test_a_consumer_is_left_alone() -> None:
    """Else a look at the log would make the consumer skip or repeat."""
    done("init")
    done("publish", "-", stdin=ndjson(day()))
    done("consume")
    before = facts(), Path(DATABASE).read_bytes()
    done("tail", "--no-follow", "--from-start")
    assert (facts(), Path(DATABASE).read_bytes()) == before
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-9")]))
    done("tail", "--no-follow")
    assert done("status", "--output", "json").json["lag"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "yesterday"), ["--since", "'yesterday' must be an RFC 3339 instant", "15m"]),
        (("--since", "2026-11-11T00:00:00"), ["--since", "time zone"]),
        (("--from-start", "-n", "3"), ["--last", "exclude each other", "tail --help"]),
        (("--type", "ussed"), ["--type", "'ussed'"]),
        (("--topic", "coupons"), ["--topic", "'coupons'", ORDER]),
    ],
)
def test_wrong_usage_says_what_is_wrong(arguments: tuple[str, ...], words: list[str]) -> None:
    """Else a mistyped instant would show nothing, and look like a quiet day."""
    one_sentence(ledger("tail", *arguments), 2, *words)


def test_a_log_that_is_not_there_is_named() -> None:
    """Else an empty answer would be taken for an empty log."""
    one_sentence(ledger("tail"), 4, "log")


# ── Following ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("output", ["table", "ndjson", "json"])
def test_later_events_are_shown_and_ctrl_c_ends_quietly(at: list[str], home: Path, output: str) -> None:
    """Else a look at the stream would end in a traceback, or hold back what has come."""
    done("publish", "-", *at, stdin=ndjson([coupon_event("created", "e-1")]))
    with (home / "seen").open("wb") as seen:
        follower = start("tail", "--output", output, *at, stdout=seen)
        try:
            wait_until(lambda: b"e-1" in (home / "seen").read_bytes(), "the first event")
            done("publish", "-", *at, stdin=ndjson([coupon_event("issued", "e-2")]))
            wait_until(lambda: b"e-2" in (home / "seen").read_bytes(), "the second event")
            follower.send_signal(signal.SIGINT)
            ran = finish(follower)
        finally:
            follower.kill()
    assert (ran.code, ran.err) == (0, "")
    if output == "json":
        assert len(json.loads((home / "seen").read_text())) == 2


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_although_nothing_comes() -> None:
    """Else `coupon-ledger tail | head -3` would hang until the next event, at night for hours."""
    done("init")
    done("publish", "-", stdin=ndjson(day()))
    follower = start("tail")
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline().startswith(b"times in ")
        follower.stdout.close()
        follower.stdout = None
        ran: Ran = finish(follower)
    finally:
        follower.kill()
    assert (ran.code, ran.err) == (0, "")
