"""Questions beside a running consumer: the same answers as from the file, of one committed state, for those alone who
may ask; whatever becomes of readers and owners. Real processes."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pyarrow as pa
import pytest

from coupon_ledger.api.client import asking
from coupon_ledger.api.contact import ARROW, INTERFACE, LIMIT, token_file
from coupon_ledger.api.endpoint import Endpoint
from coupon_ledger.cli.main import cli
from coupon_ledger.ledger.errors import LedgerError, StoreError
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.ownership import owner, owner_file
from coupon_ledger.questions.registry import QUESTIONS
from tests.command_line import (
    DATABASE,
    LOG,
    Ran,
    coupon_event,
    dead_letters_told,
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
from tests.conftest import ALERTS
from tests.owners import Data, Owner, owning
from tests.test_cli import POISON, commands, shop_events

pytestmark = pytest.mark.slow

ASKED = [
    ("report", "finance", "split", "--by", "kind,funder"),
    ("report", "finance", "statement"),
    ("report", "finance", "cash"),
    ("report", "expiry"),
    ("report", "roi"),
    ("report", "channels", "coupons"),
    ("report", "experiments"),
    ("report", "restated", "--known-from", "2099-01-01"),
    ("report", "segments", "rfm"),
    ("report", "cohorts", "retention"),
    ("report", "cohorts", "repurchase"),
    ("report", "funnel", "behaviour"),
    ("state", "c-1"),
    ("state", "c-404"),
    ("history", "c-1"),
    ("history", "c-4"),
    ("history", "c-404"),
    ("coupons",),
    ("coupons", "--count"),
    ("coupons", "--all", "--limit", "3"),
    ("coupons", "--code", "SAVE20"),
    ("coupons", "--channel", "app", "--type", "cash", "--since", "2026-11-11", "--until", "2026-11-12T01:00:00Z"),
    ("coupons", "--user", "u-1", "--state", "used", "--campaign", "k-1"),
    ("coupons", "expiring", "--within", "30d"),
    ("expiries",),
    ("attribution", "show"),
    ("attribution", "show", "--campaign", "k-1", "--roi", "--model", "last", "--model", "redeemed"),
    ("attribution", "show", "--explain", "o-1"),
    ("attribution", "show", "--by", "kind", "--model", "markov", "--at", "2026-11-11T00:00:05Z"),
    ("attribution", "compare", "last", "redeemed"),
    ("expire", "--dry-run", "--until", "2026-11-20"),
    ("user", "u-1"),
    ("user", "u-404"),
    ("order", "o-1"),
    ("order", "o-2"),
    ("order", "o-404"),
    ("order", "o-1", "--at", "2026-11-11T00:00:05Z"),
    ("status", "--at", "2026-11-11T00:00:05Z"),
    ("coupons", "--at-position", f"{COUPON}:0:2", "--at-position", f"{COUPON}:1:1"),
    ("campaigns",),
    ("campaigns", "show", "k-1"),
    ("campaigns", "show", "k-404"),
    ("metrics", "query", "rate-404"),
    ("metrics", "query", "used_events", "use_rate", "discount_cost_minor", "--by", "campaign", "--grain", "day"),
    ("metrics", "query", "coupon_gmv_minor", "--compare", "previous", "--since", "2026-11-11", "--where", "store="),
    ("metrics", "query", "claim_rate", "--at", "2026-11-11T00:00:05Z", "--zone", "Europe/Berlin"),
    ("metrics", "query", "use_rate", "--explain", "--limit", "2"),
    ("violations",),
    ("violations", "--count"),
    ("violations", "--code", "used_when_used", "--coupon", "c-1"),
    ("state", "c-1", "--at", "2026-11-11T00:00:03Z"),
    ("history", "c-1", "--at", "2026-11-11T08:00:03+08:00", "--known-at", "2099-01-01"),
    ("coupons", "--at", "2026-11-11T00:00:03Z"),
    ("coupons", "--count", "--at", "2026-11-11T00:00:03Z"),
    ("user", "u-1", "--at", "2026-11-11T00:00:03Z"),
    ("user", "u-404", "--at", "2026-11-11T00:00:03Z"),
    ("campaigns", "--at", "2026-11-11T00:00:03Z"),
    ("campaigns", "show", "k-1", "--at", "2026-11-11T00:00:03Z"),
    ("violations", "--at", "2026-11-11T00:00:05Z"),
    ("violations", "--count", "--at", "2026-11-11T00:00:05Z", "--scope", "coupon"),
    ("diff", "--from", "2026-11-11", "--to", "2026-11-11T00:00:04Z"),
    ("digest",),
    ("verify", "--without-log", "--deep", "--seed", "1"),
    ("dead-letters", "list"),
    ("dead-letters", "list", "--all", "--reason", "undecodable"),
    ("dead-letters", "show", COUPON, "0", "999"),
    ("dead-letters", "export"),
    ("dead-letters", "replay", "--dry-run"),
    ("dead-letters", "discard", "--dry-run", "--topic", COUPON),
    ("status",),
    ("experiment", "show", "k-404"),
    ("experiment", "people", "k-404"),
    ("experiment", "compare", "k-404"),
    ("experiment", "plan", "--active-days", "404"),
    ("experiment", "assign", "k-1", "--dry-run", "--at", "2026-11-11T00:00:00Z"),
    ("experiment", "arms", "k-404"),
    ("alerts", "list", "--state", "all"),
    ("alerts", "list", "--by", "rule", "--state", "all"),
    ("alerts", "show", "ALERT"),
    ("alerts", "show", "f404"),
    ("alerts", "history"),
    ("alerts", "stats"),
    ("alerts", "silences"),
    ("alerts", "rules", "list"),
    ("alerts", "backtest", "--from", "2026-11-10", "--to", "2026-11-13"),
]
_OF_THE_LOG = ("status", "replay", "discard")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ALERTS, "none")  # `shop` has others
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a log and a database of the day that the tests of the command line know, and the default
    alert rules in force, of which one has fired."""
    folder = tmp_path_factory.mktemp("shop")
    at = ("--log", f"sqlite:///{folder / LOG}", "--database", folder / DATABASE)
    done("init", *at)
    done("publish", "-", *at[:2], stdin=ndjson(shop_events()))
    log = opened_log(folder / LOG)
    log.append([Record(COUPON, b"c-9", POISON)])
    log.close()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(ALERTS, "defaults")
        done("consume", *at)
        yield folder


def printed(folder: Path) -> dict[str, Ran]:
    """Each command as JSON and in another format, these in turn: every format is printed from the same answer."""
    [alert] = done("alerts", "list", "--state", "all", "--database", folder / DATABASE, "-o", "json").json
    place = {"config": ("--log", f"sqlite:///{folder / LOG}", "--database", str(folder / DATABASE))}
    ran = {}
    for asked, other in zip(ASKED, cycle(("table", "ndjson", "csv")), strict=False):
        arguments = tuple(alert["alert_id"] if argument == "ALERT" else argument for argument in asked)
        flags = place["config"] if set(arguments) & set(_OF_THE_LOG) else place["config"][2:]
        for output in ("json", other) if "export" not in arguments else ():
            ran[" ".join((*arguments, output))] = ledger(*arguments, *flags, "--output", output)
        if "export" in arguments:
            ran[" ".join(arguments)] = ledger(*arguments, *flags)
    return ran


def test_every_command_prints_the_same_from_the_owner_as_from_the_file(shop: Path) -> None:
    """Else a figure would depend on whether the consumer happens to run."""
    alone = printed(shop)
    with owning("--log", f"sqlite:///{shop / LOG}", database=shop / DATABASE):
        beside = printed(shop)
    assert {name: (ran.code, ran.raw, ran.err) for name, ran in beside.items()} == {
        name: (ran.code, ran.raw, ran.err) for name, ran in alone.items()
    }
    codes = {name: ran.code for name, ran in alone.items()}
    assert {name for name, code in codes.items() if code} == {name for name in codes if "404" in name or "999" in name}


def test_every_command_that_reads_is_compared() -> None:
    """A new question without a line in `ASKED` would go untested through the endpoint."""
    others = "ack act assign missed note resolve silence unsilence test"
    of_files = {"dead-letters", "metrics list", "metrics show", "alerts rules check", "alerts rules defaults"}
    of_files |= {"alerts rules show"} | {f"alerts {name}" for name in others.split()}
    of_the_log = {f"attribution models{name}" for name in ("", " list", " show", " define")}
    reading = {" ".join(path) for path in commands(cli)} - of_files - of_the_log
    working = (
        "init config publish import simulate consume tail archive restore backup restore-db doctor rebuild correct"
    )
    other = f"{working} detect operations review segments schemas completion"
    asked = {" ".join(a for a in arguments if not a.startswith("-")) for arguments in ASKED}
    missing = {n for n in reading if n.split()[0] not in other.split() and not any(a.startswith(n) for a in asked)}
    assert missing == set()


def test_raw_bytes_come_through_the_owner(shop: Path) -> None:
    at = ("--database", str(shop / DATABASE))
    with owning("--log", f"sqlite:///{shop / LOG}", database=shop / DATABASE):
        [letter] = done("dead-letters", "list", *at, "-o", "json").json
        place = [str(letter[n]) for n in ("topic", "partition", "offset")]
        assert done("dead-letters", "show", *place, *at, "--raw").raw == POISON


# --- who may ask


@pytest.fixture(scope="module")
def asked(shop: Path) -> Iterator[Owner]:
    with owning("--log", f"sqlite:///{shop / LOG}", database=shop / DATABASE) as running:
        yield running


def test_only_its_user_can_read_the_token(asked: Owner, shop: Path) -> None:
    """Else everybody on the machine could read the whole ledger."""
    file = token_file(shop / DATABASE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text()) >= 43
    assert asked.token not in owner_file(shop / DATABASE).read_text()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer \xe9"}, 401),
        ({"Authorization": "{token}"}, 401),
        ({"Authorization": "Basic {token}"}, 401),
        ({"Authorization": "Bearer {token}", "Host": "ledger.example:{port}"}, 421),
        ({"Authorization": "Bearer {token}", "Host": "127.0.0.1.example:{port}"}, 421),
        ({"Authorization": "Bearer {token}", "Host": "127.0.0.1:1"}, 421),
        ({"Authorization": "Bearer {token}", "Host": "127.0.0.1"}, 421),
        ({"Authorization": "Bearer {token}", "Origin": "https://evil.example"}, 403),
        ({"Authorization": "Bearer {token}", "Origin": "null"}, 403),
        ({"Authorization": "Bearer {token}", "Origin": "http://127.0.0.1:1"}, 403),
        ({"Authorization": "Bearer {token}", "Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Authorization": "Bearer {token}", "Host": "localhost:{port}"}, 200),
        ({"Authorization": "Bearer {token}"}, 200),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/v1/summary", "/metrics", "/v1/openapi.json"])
def test_strangers_and_foreign_pages_are_refused(asked: Owner, headers: dict[str, str], status: int, path: str) -> None:
    """Else another user, or any web page in the user's browser (also by a name that it makes point here), could read
    the ledger."""
    port = asked.address.partition(":")[2]
    filled = {k: v.format(token=asked.token, port=port) for k, v in headers.items()}
    reply = asked.get(path, filled)
    assert reply.status == status
    if status != 200:
        assert set(reply.json) == {"error", "exit_code"}
    assert "access-control-allow-origin" not in reply.headers


def test_two_host_names_are_refused(asked: Owner) -> None:
    """Else which of them counts would be a matter of luck."""
    host, _, port = asked.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        lines = ["GET /v1/summary HTTP/1.1", f"Host: {asked.address}", "Host: evil.example"]
        lines += [f"Authorization: Bearer {asked.token}", "Connection: close", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert re.match(rb"HTTP/1.1 4\d\d ", connection.recv(1000))


CHUNKED: Final = "GET /v1/state HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n"
MALFORMED: Final = {
    "a bad chunk": [CHUNKED + "zz\r\n"],
    "a bad chunk behind the answer": [CHUNKED, "zz\r\n"],
    "a bad chunk behind a good one": [CHUNKED + "1\r\na\r\n", "zz\r\n"],
    "no request": ["nonsense\r\n\r\n"],
    "a bad header": ["GET / HTTP/1.1\r\nHost {address}\r\n\r\n"],
    "another encoding": ["GET / HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: gzip\r\n\r\n"],
    "more than was told": ["GET / HTTP/1.1\r\nHost: {address}\r\nContent-Length: 1\r\n\r\nabc\r\n\r\n"],
    "another protocol": [
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    ],
}


def test_malformed_requests_of_strangers_write_nothing_into_the_log(tmp_path: Path) -> None:
    """Else anybody on the machine could fill the owner's log, and hide in it what matters."""
    done("init")
    done("publish", "-", stdin=ndjson(shop_events()))
    done("consume")
    with (tmp_path / "told").open("wb") as told, owning(stderr=told) as running:
        for pieces in MALFORMED.values():
            for _ in range(3):
                assert re.match(rb"HTTP/1.1 4\d\d |HTTP/1.1 501 ", _sent(running, pieces))
        assert running.get("/v1/health", {}).json == {"status": "ok"}
        assert len(running.answer("state", coupon="c-1")["rows"]) == 1
    assert Ran(0, b"", (tmp_path / "told").read_text()).said == ""


def _sent(running: Owner, pieces: list[str]) -> bytes:
    """What comes back for these pieces, sent one after the other, until the connection is closed."""
    host, _, port = running.address.partition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection, suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece.format(address=running.address).encode())
            answer += connection.recv(10_000)
        while more := connection.recv(10_000):
            answer += more
    return answer


def test_it_listens_on_loopback_alone(asked: Owner) -> None:
    """Else the network could try tokens."""
    port = int(asked.address.partition(":")[2])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [a for a in listening if a.endswith(f":{port:04X}") and not a.startswith("0100007F")] == []


def test_health_needs_no_token_and_says_nothing(asked: Owner) -> None:
    assert asked.get("/v1/health", {}).json == {"status": "ok"}
    assert asked.get("/v1/health", {"Host": "evil.example"}).status == 421
    assert asked.get("/v1/health", {"Origin": "http://evil.example"}).status == 403


# --- what others get


def test_json_says_of_which_state_it_is(asked: Owner) -> None:
    """Else nobody could tell two answers' order, or what they do not know yet."""
    answer = asked.answer("state", coupon="c-1")
    [summary] = asked.answer("summary")["rows"]
    assert answer["as_of"]["commits"] == summary["commits"] == 1
    assert answer["as_of"]["data_clock"] == summary["data_clock"]
    assert sum(p["next_offset"] for p in answer["as_of"]["positions"]) == summary["read"]
    [row] = answer["rows"]
    assert (row["coupon_id"], row["state"], row["used_at"]) == ("c-1", "used", "2026-11-11T00:00:04.000005Z")
    events = asked.answer("history", coupon="c-1")["rows"]
    assert events[0]["data"]["attributes"] == {"batch": [1, 2.5], "新": True}
    letter = asked.answer("dead-letters")["rows"][0]
    place = {n: letter[n] for n in ("topic", "partition", "offset")}
    assert asked.answer("dead-letter", **place)["rows"][0]["value"] == POISON.hex()


@pytest.mark.parametrize(
    ("path", "parameters", "status", "words"),
    [
        ("/v1/coupons", {"campain": "k-1"}, 422, "campain"),
        ("/v1/coupons", {"limit": "many"}, 422, "limit"),
        ("/v1/state", {}, 422, "coupon"),
        ("/v1/state", {"coupon": "c-404"}, 404, "c-404"),
        ("/v1/nothing", {}, 404, "Not Found"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(
    asked: Owner, path: str, parameters: Data, status: int, words: str
) -> None:
    """Else a mistyped filter would silently let everything pass."""
    reply = asked.get(path, **parameters)
    assert reply.status == status and words in reply.json["error"]


def test_every_question_and_parameter_is_in_the_interface_description(asked: Owner) -> None:
    paths = asked.get("/v1/openapi.json").json["paths"]
    for name, question in QUESTIONS.items():
        described = {p["name"] for p in paths[f"/v1/{name}"]["get"].get("parameters", [])}
        assert described == set(question.parameters)


def test_columns_and_rows_say_the_same(asked: Owner) -> None:
    reply = asked.get("/v1/coupons", {**asked.headers, "Accept": ARROW})
    reader = pa.ipc.open_stream(reply.body)
    assert json.loads(reader.schema.metadata[b"as_of"])["commits"] == 1
    ids = reader.read_all()["coupon_id"].to_pylist()
    assert ids == [row["coupon_id"] for row in asked.answer("coupons")["rows"]]


def test_a_question_that_is_too_long_for_an_address_is_posted(asked: Owner, shop: Path) -> None:
    """Else what a correction of many coupons would do could not be asked beside the consumer."""
    ids = [*(f"c-{n}" for n in range(20_000)), "c-1"]
    with asking(shop / DATABASE) as source:
        there = {row["coupon_id"] for frame in source.ask("histories", coupons=ids).frames for row in frame.to_dicts()}
    assert "c-1" in there


def test_a_question_of_the_past_tells_how_far_it_is(asked: Owner, shop: Path) -> None:
    """Else nobody could tell a long question from one that hangs; and an answer is the same either way."""
    seen: list[tuple[int, int]] = []
    at = {"at": datetime(2026, 11, 11, tzinfo=UTC)}
    with asking(shop / DATABASE, lambda done, total: seen.append((done, total)), limit_s=900) as source:
        followed = [frame.to_dicts() for frame in source.ask("coupons", **at).frames]
        assert [done for done, _ in seen] == sorted(done for done, _ in seen) and all(d <= t for d, t in seen)
        with pytest.raises(LedgerError, match="is none") as refused:
            source.ask("coupons", positions="nowhere")
    with asking(shop / DATABASE) as source:
        assert followed == [frame.to_dicts() for frame in source.ask("coupons", **at).frames]
    assert max(done for done, _ in seen) > 0 and seen[-1][0] == seen[-1][1]
    assert refused.value.exit_code == 2
    refusal = asked.get("/v1/coupons", {**asked.headers, LIMIT: "soon"})
    assert refusal.status == 422 and "seconds" in refusal.json["error"]


def test_a_diff_tells_how_far_it_is(asked: Owner, shop: Path) -> None:
    seen: list[tuple[int, int]] = []
    with asking(shop / DATABASE, lambda done, total: seen.append((done, total)), limit_s=900) as source:
        coupons = sum(f.height for f in source.ask("diff", from_at=datetime(2026, 1, 1, tzinfo=UTC)).frames)
    assert coupons > 0 and seen[-1][0] == seen[-1][1]
    assert seen[-1][0] >= coupons, "each is folded again as it was"


def test_who_asks_may_say_how_long() -> None:
    """Else a long question of the past could not be asked beside the consumer at all."""
    for arguments, limit_s in ((["coupons", "--timeout", "2h"], 7200), (["diff", "--from", "1d"], None)):
        with (
            patch("coupon_ledger.api.client.asking", side_effect=StoreError("asked")) as asked,
            pytest.raises(StoreError),
        ):
            cli.main(arguments, standalone_mode=False)
        assert asked.call_args.args[2] == limit_s


# --- metrics


def test_metrics_tell_what_was_consumed(home: Path) -> None:
    """Else nobody is woken when the consumer falls behind or drops events."""
    done("init")
    with owning() as running:
        events = [coupon_event("created", "e-1"), coupon_event("created", "e-1"), coupon_event("issued", "e-2")]
        done("publish", "-", stdin=ndjson([*events, coupon_event("created", "e-1", coupon_type="gift")]))
        log = opened_log()
        log.append([Record(COUPON, b"c-9", POISON)])
        log.close()

        def outcomes() -> dict[str, float]:
            found: dict[str, float] = {}
            for line in running.get("/metrics").body.decode().splitlines():
                if line.startswith("coupon_ledger_records_total{"):
                    [(outcome, value)] = re.findall(r'outcome="(\w+)".* (\S+)$', line)
                    found[outcome] = found.get(outcome, 0) + float(value)
            return found

        wait_until(lambda: sum(outcomes().values()) == 5, "five records in the metrics")
        assert outcomes() == {"applied": 2, "repeat": 1, "conflict": 1, "dead_letter": 1}
        text = running.get("/metrics").body.decode()
    documented = Path(__file__).parent.parent.joinpath("docs", "operations.md").read_text(encoding="utf-8")
    names = re.findall(r"# HELP (coupon_ledger_\w+) \S", text)
    assert len(names) >= 12
    assert [name for name in names if f"`{name}`" not in documented] == []
    values = dict(re.findall(r"^(coupon_ledger_\w+) (\S+)$", text, re.MULTILINE))
    assert float(values["coupon_ledger_lag_seconds"]) == 0
    assert float(values["coupon_ledger_last_commit_timestamp_seconds"]) > 1.6e9
    assert float(values["coupon_ledger_database_bytes"]) > 0
    assert float(values["coupon_ledger_batch_records_count"]) >= 1


def an_event_and_poison() -> None:
    """A new log with both, and an empty database."""
    done("init")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1")]))
    log = opened_log()
    log.append([Record(COUPON, b"c-9", POISON)])
    log.close()


def test_logs_for_machines_are_one_json_object_a_line(home: Path) -> None:
    """Else what happened could not be searched."""
    an_event_and_poison()
    ran = finish(start("consume", "--log-format", "json"))
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert [line["event"] for line in lines] == ["start", "dead letters", "commit", "stop"]
    assert lines[-1]["records"] == 2 and lines[-1]["dead_letters"] == 1
    failed = finish(start("consume", "--log-format", "json", "--database", "nowhere.duckdb"))
    [line] = [json.loads(line) for line in failed.err.splitlines()]
    assert failed.code == 5 and line["event"] == "error" and "nowhere.duckdb" in line["error"]


# --- under load


def test_every_answer_is_of_one_committed_state(home: Path) -> None:
    """Else a figure could be of half a batch: money that is in one table and not yet in another."""
    done("init")
    failures: list[str] = []
    seen: dict[int, Data] = {}
    finished = threading.Event()
    with owning("--batch-size", "1000") as running:

        def ask() -> None:
            try:
                while not finished.is_set():
                    check(running.answer("summary"))
                    whole = running.answer("campaign", campaign="camp-0001") if seen.get(2) else None
                    if whole:
                        check_campaign(whole)
            except Exception as error:
                failures.append(repr(error))

        def check(answer: Data) -> None:
            [row], state = answer["rows"], answer["as_of"]
            parts = [row["applied"], row["repeats"], row["conflicts"], row["dead_letters"]]
            assert row["read"] == sum(parts), answer
            assert row["commits"] == state["commits"]
            told = [(p["topic"], p["partition"], p["next_offset"]) for p in row["partitions"]]
            assert told == [(p["topic"], p["partition"], p["next_offset"]) for p in state["positions"]]
            assert sum(p["next_offset"] for p in state["positions"]) == row["read"]
            assert seen.setdefault(state["commits"], row) == row, "one commit, two states"

        def check_campaign(answer: Data) -> None:
            [row] = answer["rows"]
            assert sum(s["coupons"] for s in row["states"]) == row["coupons"]
            assert [c["statement"] for c in row["conservation"] if not c["ok"]] == []

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            assert finish(start("simulate", "--events", "20000", "--seed", "3")).code == 0
            total = ends(["coupon.events", "campaign.events", "order.events", "user.events"])
            wait_until(lambda: failures != [] or any(r["read"] == total for r in seen.copy().values()), "the end")
        finally:
            finished.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert len(seen) > 5, "no answer in between"
    live = facts()
    done("init", "--database", "again.duckdb")
    done("consume", "--database", "again.duckdb")
    assert facts("again.duckdb") == live


def test_readers_that_go_away_or_stall_hold_nothing_up(home: Path) -> None:
    """Else one laptop that is closed would stop the consumer, or use up what others need."""
    done("init")
    done("simulate", "--events", "150000", "--seed", "5")
    done("consume")
    with owning() as running:
        stalled = [_asks_and_reads_little(running, "/v1/coupons") for _ in range(10)]
        killed = [start("coupons", "--output", "ndjson") for _ in range(4)]
        for process in killed:
            assert process.stdout is not None and process.stdout.read(100)
            process.send_signal(signal.SIGKILL)
            finish(process)
        before = running.answer("summary")["rows"][0]["commits"]
        done("publish", "-", stdin=ndjson([coupon_event("created", "e-1", coupon_id="new-1")]))
        wait_until(lambda: running.answer("summary")["rows"][0]["commits"] > before, "a commit beside stalled readers")
        assert done("state", "new-1", "-o", "json").json["state"] == "created"
        assert all(connection.fileno() > 0 for connection in stalled)
        running_now = re.search(r"^coupon_ledger_questions_running (\S+)$", running.get("/metrics").body.decode(), re.M)
        assert running_now and float(running_now[1]) == 0
        for connection in stalled:
            connection.close()


def test_too_many_questions_are_told_to_come_again(home: Path) -> None:
    """Else a burst would bring the consumer down instead of waiting."""
    done("init")
    done("simulate", "--events", "60000", "--seed", "5")
    done("consume")
    with owning() as running:
        stalled = [_asks_and_reads_little(running, "/v1/coupons") for _ in range(64)]
        reply = running.get("/v1/summary")
        assert reply.status == 503 and reply.headers["Retry-After"] == "1"
        waiting = start("coupons", "--count", "--output", "json")
        for connection in stalled:
            connection.close()
        ran = finish(waiting)
        assert ran.code == 0 and sum(row["coupons"] for row in ran.json) > 15_000


def _asks_and_reads_little(running: Owner, path: str) -> socket.socket:
    """A reader that takes the head of the answer and then nothing more."""
    host, _, port = running.address.partition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = f"GET {path} HTTP/1.1\r\nHost: {running.address}\r\nAuthorization: Bearer {running.token}\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    return connection


# --- owners that come and go


def test_what_a_killed_owner_left_is_coped_with(home: Path) -> None:
    """Else after a crash nobody could ask until somebody tidied up."""
    done("init")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1")]))
    done("consume")
    with owning() as running:
        running.process.kill()
        running.process.wait()
    old = token_file(home / DATABASE).read_text()
    assert owner(home / DATABASE)["pid"] == running.process.pid
    assert done("state", "c-1", "-o", "json").json["state"] == "created"
    with owning() as running:
        assert running.token != old
        assert stat.S_IMODE(token_file(home / DATABASE).stat().st_mode) == 0o600
        assert done("state", "c-1", "-o", "json").json["state"] == "created"
        assert running.get("/v1/summary", {"Authorization": f"Bearer {old}"}).status == 401
    assert not token_file(home / DATABASE).exists() and not owner_file(home / DATABASE).exists()


def test_it_can_be_stopped_as_soon_as_it_can_be_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a quick restart would leave a token and an owner behind that is none."""
    done("init")
    enter, outside = Endpoint.__enter__, signal.getsignal(signal.SIGTERM)
    heard: list[bool] = []

    def entered(self: Endpoint) -> Endpoint:
        heard.append(signal.getsignal(signal.SIGTERM) is not outside)
        return enter(self)

    monkeypatch.setattr(Endpoint, "__enter__", entered)
    done("consume")
    assert heard == [True]


def test_a_planted_token_file_is_not_written_through(home: Path) -> None:
    """Else somebody who can write to the folder would read the token, or have another file overwritten."""
    done("init")
    (home / "precious").write_text("precious")
    token_file(home / DATABASE).symlink_to(home / "precious")
    with owning():
        assert not token_file(home / DATABASE).is_symlink()
        assert stat.S_IMODE(token_file(home / DATABASE).stat().st_mode) == 0o600
    assert (home / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"interface": INTERFACE + 1, "release": "9.9", "url": "http://127.0.0.1:1"}, ["another version", "9.9"]),
        ({"interface": None, "because": "the extra is missing"}, ["answers no questions", "the extra is missing"]),
    ],
)
def test_an_owner_that_cannot_be_asked_is_named_with_the_remedy(home: Path, said: Data, words: list[str]) -> None:
    done("init")
    with owning() as running:
        file = owner_file(home / DATABASE)
        file.write_text(json.dumps(json.loads(file.read_text()) | said))
        one_sentence(finish(start("coupons")), 5, f"process {running.process.pid}", *words)


def test_without_the_extra_it_consumes_and_says_what_is_missing(home: Path) -> None:
    """Else a small installation could not consume, or whoever asks would wonder why nobody answers."""
    an_event_and_poison()
    without = (
        "import sys; sys.modules['fastapi'] = None; from coupon_ledger.cli.main import main;"
        "main(['consume', '--follow'])"
    )
    process = subprocess.Popen([sys.executable, "-c", without], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: owner(home / DATABASE).get("interface", 0) is None, "an owner")
        one_sentence(ledger("state", "c-1"), 5, "answers no questions", "coupon-ledger[service]")
        wait_until(lambda: dead_letters_told() == 1, "a commit")
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    finally:
        process.kill()
    assert ran.code == 0 and ran.out.startswith("consumed 2 records")
    [warning, _] = ran.err.splitlines()
    assert warning.startswith("warning: no questions are answered") and "coupon-ledger[service]" in warning
    assert done("state", "c-1", "-o", "json").json["state"] == "created"


def test_a_taken_port_is_named(home: Path) -> None:
    done("init")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        one_sentence(ledger("consume", "--port", port), 2, f"port {port}", "--port")
    assert not owner_file(home / DATABASE).exists()
    with owning("--port", port) as running:
        assert running.address == f"127.0.0.1:{port}"


@pytest.mark.parametrize("kept", [0, 40, 0.5, -1])
def test_an_owner_that_ends_while_it_answers_is_told(home: Path, kept: float) -> None:
    """Else a command would hang, or print half an answer as if it were whole."""
    done("init")
    done("simulate", "--events", "5000", "--seed", "5")
    done("consume")
    with owning() as running:
        reply = running.get("/v1/coupons", {**running.headers, "Accept": ARROW})
        sent = reply.body[: int(kept * len(reply.body)) if isinstance(kept, float) else kept]
        with _dying_owner(sent, len(reply.body)) as url:
            file = owner_file(home / DATABASE)
            file.write_text(json.dumps(json.loads(file.read_text()) | {"url": url}))
            ran = finish(start("coupons", "--output", "ndjson"))
    one_sentence(ran, 5, "its owner ended", "run the command again")


@contextmanager
def _dying_owner(body: bytes, announced: int) -> Iterator[str]:
    """Something that says that it is well, begins an answer, and is gone."""
    head = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"

    def serve() -> None:
        for answer in (head.format(0).encode(), head.format(announced).encode() + body):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()
