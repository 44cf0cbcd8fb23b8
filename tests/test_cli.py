"""The command line as its users run it: every command, its formats, its exit codes."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import polars as pl
import pytest

from coupon_ledger.cli.main import COMMANDS, cli
from coupon_ledger.cli.sources import complete_journey
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.settings import OPTIONS
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS
from coupon_ledger.projections.database import open_database
from tests.command_line import (
    DATABASE,
    LOG,
    Data,
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

INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z")
COUPON_FIELDS = (
    "coupon_id state campaign_id coupon_type face_value_minor percent_off_bp min_spend_minor currency valid_from"
    " valid_until owner order_id discount_minor issue_channel claim_channel reason created_at issued_at claimed_at"
    " reserved_at used_at ended_at last_event_at events violations"
).split()
POISON = b"poison\xff"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and no settings from outside."""
    for name in ("LOG", "DATABASE", "CONFIG", "TOPIC_PREFIX", "PARTITIONS", "REPLICATION", "BATCH_SIZE"):
        monkeypatch.delenv(f"COUPON_LEDGER_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shop_events() -> list[Data]:
    """A day with every kind of thing that a reader is to show."""
    value = {"face_value_minor": 500, "min_spend_minor": 2000, "currency": "CNY"}
    validity = {"valid_from": "0001-01-01T00:00:00Z", "valid_until": "2026-12-01T08:00:00.5+08:00"}
    campaign = {"topic": "campaign.events", "type": "published", "event_id": "k-1-1", "source": "plan"}
    order = {"topic": "order.events", "type": "paid", "event_id": "o-1-1", "source": "shop", "currency": "CNY"}
    user = {"topic": "user.events", "type": "profiled", "event_id": "u-1-1", "source": "crm"}
    at = {"occurred_at": "2026-11-10T00:00:00Z"}
    return [
        {**campaign, **at, "campaign_id": "k-1", "name": "双十一", "coupon_type": "cash"},
        {**order, **at, "order_id": "o-1", "user_id": "u-1", "gross_minor": 3000, "net_minor": 2500},
        {**user, **at, "user_id": "u-1", "attributes": {"segment": "new"}},
        coupon_event("created", "c-1-1", **value, **validity, attributes={"batch": [1, 2.5], "新": True}),
        coupon_event("issued", "c-1-2", occurred_at="2026-11-11T00:00:01Z"),
        coupon_event("claimed", "c-1-3", occurred_at="2026-11-11T00:00:02Z"),
        coupon_event("reserved", "c-1-4", occurred_at="2026-11-11T00:00:03Z", user_id="u-1", order_id="o-1"),
        coupon_event("used", "c-1-5", occurred_at="2026-11-11T00:00:04.000005Z"),
        coupon_event("used", "c-1-6", occurred_at="2026-11-11T00:00:05Z", user_id="u-2", order_id="o-2"),
        coupon_event("created", "c-2-1", coupon_id="c-2"),
        coupon_event("issued", "c-2-2", coupon_id="c-2", user_id="u-2"),
        coupon_event("expired", "c-2-3", coupon_id="c-2", occurred_at="2026-11-12T00:00:00Z"),
        coupon_event("issued", "c-3-1", coupon_id="券-3", channel='wide, "quoted"\nand broken'),
        coupon_event("created", "c-4-1", coupon_id="c-4"),
        coupon_event("created", "c-4-1", coupon_id="c-4", coupon_type="gift"),
        *(coupon_event("created", f"p-{n:02}-1", coupon_id=f"p-{n:02}", campaign_id="k-2") for n in range(60)),
    ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a log and a database of that day, for reading only."""
    folder = tmp_path_factory.mktemp("shop")
    at = ("--log", f"sqlite:///{folder / LOG}")
    done("init", *at, "--database", folder / DATABASE)
    done("publish", "-", *at, stdin=ndjson(shop_events()))
    log = opened_log(folder / LOG)
    log.append([Record(COUPON, b"c-9", POISON)])
    log.close()
    done("consume", *at, "--database", folder / DATABASE)
    with open_database(folder / DATABASE, read_only=True):  # commands of this process share what DuckDB has open
        yield folder


@pytest.fixture
def at_shop(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COUPON_LEDGER_LOG", f"sqlite:///{shop / LOG}")
    monkeypatch.setenv("COUPON_LEDGER_DATABASE", str(shop / DATABASE))
    return shop


# --- finding one's way


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


EARNED = ("metrics", "report", "review", "attribution", "experiment", "segments", "expiries")


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command | None = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    return command


def test_every_command_of_what_coupons_earned_takes_days_of_a_zone() -> None:
    """Else the same day is eight hours another in the next report."""
    dated = {
        path: {option.name for option in command_at(path).params}
        for path in commands()
        if path[0] in EARNED and any(getattr(o, "metavar", None) == "INSTANT" for o in command_at(path).params)
    }
    assert {path[0] for path in dated} == set(EARNED)
    assert [path for path, options in dated.items() if "zone" not in options] == []


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_shows_an_example(path: tuple[str, ...]) -> None:
    """Else a new user reads what a command is for, and still not what to type."""
    ran = done(*path, "--help")
    assert ran.err == ""
    assert f"coupon-ledger {' '.join(path)}" in ran.out.split("Usage:")[1].split("\n", 1)[1]
    if path[0] != "import":  # a group has no options
        assert "-h, --help" in ran.out


def test_the_first_help_names_every_command_and_where_to_start() -> None:
    """Else a command would have to be known to be found."""
    text = done("--help").out
    for name, (_, line) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.MULTILINE)
    assert text.index("coupon-ledger init") < text.index("coupon-ledger consume")
    nothing = ledger()
    assert (nothing.code, nothing.out, nothing.err) == (2, "", text)


def test_an_unknown_command_suggests_those_that_may_be_meant() -> None:
    """Else a typing error sends the user back to the whole list."""
    one_sentence(ledger("stats"), 2, "no command 'stats'", "did you mean", "status", "state", "`coupon-ledger --help`")
    one_sentence(ledger("frobnicate"), 2, "no command 'frobnicate'; see `coupon-ledger --help`")
    one_sentence(ledger("dead-letters", "lst"), 2, "list")
    one_sentence(ledger("coupons", "--campain", "1"), 2, "--campaign", "`coupon-ledger coupons --help`")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("publish",), ["FILE", "publish --help"]),
        (("coupons", "--state", "gone"), ["--state", "'gone'", "'issued'"]),
        (("coupons", "--limit", "0"), ["--limit", "0"]),
        (("coupons", "--output", "xml"), ["--output", "'xml'", "'ndjson'"]),
        (("dead-letters", "show", "coupon.events", "x", "1"), ["PARTITION", "'x'"]),
    ],
)
def test_wrong_usage_says_what_and_where_to_read(arguments: tuple[str, ...], words: list[str]) -> None:
    """Else a mistyped option ends in a riddle."""
    one_sentence(ledger(*arguments), 2, *words)


def test_the_version_is_told() -> None:
    """Else a bug report cannot say what it is about."""
    assert re.fullmatch(r"coupon-ledger, version \d+\.\d+\.\d+\n", done("--version").out)


# --- init, config


@pytest.mark.long
def test_init_makes_what_is_missing_and_keeps_what_is_there(home: Path) -> None:
    """Else a second `init`, by hand or by a deployment, would fail or lose data."""
    first = done("init")
    assert "made coupon.events" in first.out and f"database {DATABASE}: made" in first.out
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1")]))
    done("consume")
    before = facts()
    second = done("init", "--partitions", "9")
    assert "topics are there" in second.out and f"database {DATABASE}: is there" in second.out
    assert facts() == before and ends(INPUT_TOPICS) == 1
    assert sorted(p.name for p in home.iterdir()) == [DATABASE, LOG]


def test_settings_come_from_flag_environment_file_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else ops could not tell why a consumer writes into that database."""
    (home / "coupon-ledger.toml").write_text(
        '[coupon-ledger]\nlog = "sqlite:///from-file"\ndatabase = "from-file"\npartitions = 7\n'
        '[kafka]\nsasl_plain_password = "hush"\nsecurity_protocol = "SASL_SSL"\n'
    )
    monkeypatch.delenv("COUPON_LEDGER_ALERT_RULES")
    monkeypatch.setenv("COUPON_LEDGER_DATABASE", "from-environment")
    monkeypatch.setenv("COUPON_LEDGER_LOG", "sqlite:///from-environment")
    monkeypatch.setenv("COUPON_LEDGER_KAFKA_SSL_PASSWORD", "hush")
    monkeypatch.setenv("COUPON_LEDGER_SCHEMA_REGISTRY_TIMEOUT", "2")
    monkeypatch.setenv("COUPON_LEDGER_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO", "ledger:hush")
    ran = done("config", "--log", "sqlite:///from-flag", "--output", "json")
    default = {option.name: option.default for option in OPTIONS}
    shown = {row["setting"]: (row["value"], row["from"]) for row in ran.json}
    assert shown == {
        "log": ("sqlite:///from-flag", "flag"),
        "database": ("from-environment", "environment COUPON_LEDGER_DATABASE"),
        "topic-prefix": ("", "default"),
        "partitions": (7, "file coupon-ledger.toml"),
        "replication": (1, "default"),
        "batch-size": (default["batch-size"], "default"),
        "grace-minutes": (15, "default"),
        "schema-registry": ("", "default"),
        "alert-rules": ("defaults", "default"),
        "ca-file": ("", "default"),
        "token": ("", "default"),
        "zone": ("Asia/Shanghai", "default"),
        "lang": ("", "default"),
        "schema-ids": (default["schema-ids"], "default"),
        "private-files": ("true", "default"),
        "instant-skew-days": (400, "default"),
        "skewed-events": ("count", "default"),
        "writer-schemas": ("", "default"),
        "kafka.sasl_plain_password": ("********", "file coupon-ledger.toml"),
        "kafka.security_protocol": ("SASL_SSL", "file coupon-ledger.toml"),
        "kafka.ssl_password": ("********", "environment COUPON_LEDGER_KAFKA_SSL_PASSWORD"),
        "schema-registry.timeout": ("2", "environment COUPON_LEDGER_SCHEMA_REGISTRY_TIMEOUT"),
        "schema-registry.basic.auth.user.info": (
            "********",
            "environment COUPON_LEDGER_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO",
        ),
    }
    assert "hush" not in done("config").out


# --- publish


@pytest.mark.long
def test_publish_appends_every_line(home: Path) -> None:
    """Else events that an upstream system handed over would be missing."""
    done("init")
    (home / "events.ndjson").write_bytes(ndjson(shop_events()))
    ran = done("publish", "events.ndjson")
    assert ran.out == f"appended {len(shop_events())} events\n"
    assert ends(INPUT_TOPICS) == len(shop_events())
    assert not (home / "events.ndjson.rejected.ndjson").exists()


def test_publish_reports_bad_lines_and_appends_the_others(home: Path) -> None:
    """Else one bad line would hold up a whole file, or vanish without a word."""
    done("init")
    good = ndjson([coupon_event("created", "e-1")]), ndjson([coupon_event("issued", "e-2")])
    bad = ndjson([coupon_event("used", "e-3", discount_minor=5.5, currency="XXQ")])
    (home / "events.ndjson").write_bytes(good[0] + b"\n   \n{broken\n" + bad + good[1])
    ran = ledger("publish", "events.ndjson")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        "line 4: not JSON (Expecting property name enclosed in double quotes at column 2)",
        "line 5: discount_minor: must be a whole number (minor units, no decimals, no quotes); "
        "currency: must be an ISO 4217 code such as CNY",
        "appended 2 events, refused 2; see events.ndjson.rejected.ndjson",
    ]
    first, second = map(json.loads, (home / "events.ndjson.rejected.ndjson").read_text().splitlines())
    assert (first["line"], first["event_id"], first["text"]) == (4, None, "{broken")
    assert (second["line"], second["event_id"]) == (5, "e-3")
    assert [p["field"] for p in second["problems"]] == ["discount_minor", "currency"]
    assert json.loads(second["text"])["event_id"] == "e-3"
    assert ends(INPUT_TOPICS) == 2


def test_only_the_first_bad_lines_are_shown_and_all_are_in_the_report(home: Path) -> None:
    """Else a wrong file would flood the terminal, or the report would stop short."""
    done("init")
    ran = ledger("publish", "-", "--rejects", "why.ndjson", stdin=b"nothing\n" * 12)
    assert ran.code == 3 and len(ran.err.splitlines()) == 7 and "and 7 more, in why.ndjson" in ran.err
    report = [json.loads(line) for line in (home / "why.ndjson").read_text().splitlines()]
    assert [entry["line"] for entry in report] == list(range(1, 13))


@pytest.mark.long
def test_strict_appends_nothing_when_a_line_is_bad(home: Path) -> None:
    """Else who wants all or nothing would get half."""
    done("init")
    many = ndjson(coupon_event("created", f"e-{n}", coupon_id=f"c-{n}") for n in range(10_050))
    ran = ledger("publish", "-", "--strict", stdin=many + b"{}\n")
    assert ran.code == 3
    assert "line 10051: topic: is needed" in ran.err
    assert "appended nothing (--strict), refused 1; see stdin.rejected.ndjson" in ran.err
    assert ends(INPUT_TOPICS) == 0
    assert done("publish", "-", "--strict", stdin=many).out == "appended 10,050 events\n"


@pytest.mark.slow
def test_the_same_file_again_changes_no_state() -> None:
    """Else a retry after a timeout would count coupons twice."""
    done("init")
    events = ndjson(shop_events())
    done("publish", "-", stdin=events)
    done("consume")
    before = facts()
    done("publish", "-", stdin=events)
    assert "consumed 75 records" in done("consume").out
    assert facts() == before
    status = done("status", "--output", "json").json
    assert (status["read"], status["lag"]) == (150, 0)
    assert status["read"] == sum(status[n] for n in ("applied", "repeats", "conflicts", "dead_letters"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "appended"),
    [
        (b"", 0),
        (b"\n\n \t\n", 0),
        (b"\xef\xbb\xbf", 0),
        (ndjson([coupon_event("created", "e-1")]).rstrip(b"\n"), 1),
        (ndjson([coupon_event("created", "e-1"), coupon_event("issued", "e-2")]).replace(b"\n", b"\r\n"), 2),
        (b"\xef\xbb\xbf" + ndjson([coupon_event("created", "e-1"), coupon_event("issued", "e-2")]), 2),
    ],
    ids=["empty", "blank", "mark only", "no last newline", "CRLF", "byte order mark"],
)
def test_files_of_every_editor_are_taken(home: Path, content: bytes, appended: int) -> None:
    """Else a file saved on Windows would be refused, or an empty export would stop a night's job."""
    done("init")
    (home / "events.ndjson").write_bytes(content)
    assert done("publish", "events.ndjson").out == f"appended {appended} event{'s' * (appended != 1)}\n"
    assert ends(INPUT_TOPICS) == appended


@pytest.mark.long
def test_amounts_ids_and_texts_come_through_unchanged(home: Path) -> None:
    """Else the ledger would hold other numbers than the shop."""
    done("init")
    event = coupon_event("created", "🎟️-" + "长" * 200, coupon_id="券/1 2", face_value_minor=2**53 - 1)
    done("publish", "-", stdin=ndjson([event]))
    done("consume")
    [step] = done("history", "券/1 2", "--output", "json").json
    assert (step["event_id"], step["data"]["face_value_minor"]) == (event["event_id"], 2**53 - 1)
    assert done("state", "券/1 2", "--output", "json").json["face_value_minor"] == 2**53 - 1


@pytest.mark.slow
def test_what_comes_through_a_pipe_is_appended_as_it_comes() -> None:
    """Else `tail -F … | coupon-ledger publish -` would keep events to itself until ten thousand have come."""
    done("init")
    process = start("publish", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    for number in (1, 2):
        process.stdin.write(ndjson([coupon_event("created", f"e-{number}")]))
        process.stdin.flush()
        wait_until(lambda number=number: ends(INPUT_TOPICS) == number, f"event {number}")  # type: ignore[misc]
    ran = finish(process)
    assert (ran.code, ran.out) == (0, "appended 2 events\n")


@pytest.mark.slow
def test_ctrl_c_while_publishing_keeps_what_was_appended() -> None:
    """Else a user who stops a pipe would see a traceback, and not know whether to start over."""
    done("init")
    process = start("publish", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(ndjson([coupon_event("created", "e-1")]))
    process.stdin.flush()
    wait_until(lambda: ends(INPUT_TOPICS) == 1, "the event")
    process.send_signal(signal.SIGINT)
    ran = finish(process)
    # A terminal shows ^C on the line where it stands: the sentence begins on the next.
    assert (ran.code, ran.err.strip()) == (130, "error: interrupted; what was committed stays")
    assert ends(INPUT_TOPICS) == 1


@pytest.mark.slow
def test_a_real_year_is_imported_and_again_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the demonstration on real data would not show what it claims. A fifth of the households: all of them are
    imported in `test_finance`, and counted in `test_complete_journey`."""
    whole = complete_journey.load()
    mine = pl.col("household_id") % 5 == 0
    theirs = {f.name: table for f in fields(whole) if "household_id" in (table := getattr(whole, f.name)).columns}
    assert len(theirs) == 4
    few = replace(whole, **{name: table.filter(mine) for name, table in theirs.items()})
    monkeypatch.setattr(complete_journey, "load", lambda: few)
    done("init")
    first = done("import", "complete-journey")
    appended = int(first.out.split()[1].replace(",", ""))
    assert appended > 90_000 and ends(INPUT_TOPICS) == appended
    done("consume")
    before = facts()
    counts = {row["state"]: row["coupons"] for row in done("coupons", "--count", "--output", "json").json}
    assert sum(counts.values()) == 20_558
    assert {r["violation"]: r["violations"] for r in done("violations", "--count", "--output", "json").json}[
        "used_when_used"
    ] == 7
    done("import", "complete-journey")
    done("consume")
    assert facts() == before
    assert done("status", "--output", "json").json["repeats"] == appended


@pytest.mark.slow
def test_a_seeded_sale_day_is_the_same_every_time(home: Path) -> None:
    """Else two people could not talk about the same synthetic data."""
    digests = []
    for name in ("one", "two"):
        at = ("--log", f"sqlite:///{name}.db")
        done("init", *at, "--database", f"{name}.duckdb")
        ran = done("simulate", "--events", "500", "--seed", "7", "--orders", *at)
        assert re.match(r"appended [\d,]+ events in ", ran.out)
        done("consume", *at, "--database", f"{name}.duckdb", "--batch-size", "200")
        digests.append(facts(f"{name}.duckdb"))
    assert digests[0] == digests[1]


# --- consume


@pytest.mark.long
def test_consume_goes_to_the_end_and_no_further() -> None:
    """Else a night's job would never end, or leave events behind."""
    done("init")
    done("publish", "-", stdin=ndjson(shop_events()))
    ran = done("consume", "--batch-size", "10")
    assert ran.out.startswith("consumed 75 records in ") and ran.said == ""
    assert done("consume").out.startswith("consumed 0 records")
    assert done("status", "--output", "json").json["lag"] == 0


@pytest.mark.slow
def test_consume_says_nothing_about_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every batch of orders with empty lists would put a library's warning of possible crashes on the terminal."""
    monkeypatch.delenv("ACERO_ALIGNMENT_HANDLING", raising=False)
    done("init")
    head = {"topic": "order.events", "type": "paid", "source": "shop", "occurred_at": "2026-11-11T00:00:00Z"}
    needs = {"user_id": "u-1", "currency": "CNY", "gross_minor": 1, "net_minor": 1}
    for batch, lists in (("e", {"lines": []}), ("f", {"channel": "app"})):
        events = [{**head, **needs, "event_id": f"{batch}-{n}", "order_id": f"o-{n}", **lists} for n in range(50)]
        done("publish", "-", stdin=ndjson(events))
        ran = finish(start("consume"))
        assert (ran.code, ran.said) == (0, "")


@pytest.mark.long
def test_consume_leaves_the_signals_as_they_were() -> None:
    """Else a program that calls the command would no longer hear Ctrl-C."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    done("init")
    done("consume")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_follower_sees_later_events_and_leaves_when_asked(number: signal.Signals) -> None:
    """Else live state would stand still, or a deployment would have to kill the consumer."""
    done("init")
    follower = start("consume", "--follow")
    log = opened_log()
    try:
        # A dead letter that the consumer appends is a sign that the batch before it is committed.
        for batch in (1, 2):
            done("publish", "-", stdin=ndjson([coupon_event("created", f"e-{batch}", coupon_id=f"c-{batch}")]))
            log.append([Record(COUPON, b"poison", POISON)])
            wait_until(lambda batch=batch: dead_letters_told() == batch, f"batch {batch}")  # type: ignore[misc]
        follower.send_signal(number)
        ran = finish(follower)
    finally:
        follower.kill()
        log.close()
    assert ran.code == 0
    assert ran.out.startswith("consumed 4 records in ")
    assert ran.said == "2 became dead letters: see `coupon-ledger dead-letters list`\n"
    assert [row["coupon_id"] for row in done("coupons", "--output", "ndjson").rows] == ["c-1", "c-2"]
    assert not Path(DATABASE + ".owner").exists()


# --- asking


def test_state_shows_where_a_coupon_stands(at_shop: Path) -> None:
    """Else the service desk could not answer the customer on the phone."""
    row = done("state", "c-1", "--output", "json").json
    assert row == {
        "coupon_id": "c-1",
        "state": "used",
        "campaign_id": "k-1",
        "coupon_type": "cash",
        "face_value_minor": 500,
        "percent_off_bp": None,
        "min_spend_minor": 2000,
        "currency": "CNY",
        "valid_from": "0001-01-01T00:00:00.000000Z",
        "valid_until": "2026-12-01T00:00:00.500000Z",
        "owner": "u-1",
        "order_id": "o-1",
        "discount_minor": 500,
        "issue_channel": "app",
        "claim_channel": "app",
        "reason": None,
        "created_at": "2026-11-11T00:00:00.000000Z",
        "issued_at": "2026-11-11T00:00:01.000000Z",
        "claimed_at": "2026-11-11T00:00:02.000000Z",
        "reserved_at": "2026-11-11T00:00:03.000000Z",
        "used_at": "2026-11-11T00:00:04.000005Z",
        "ended_at": None,
        "last_event_at": "2026-11-11T00:00:05.000000Z",
        "events": 6,
        "violations": 2,
    }
    table = done("state", "c-1").out
    assert re.search(r"^used at +2026-11-11 08:00:04.000005$", table, re.MULTILINE)
    assert re.search(r"^reason +–$", table, re.MULTILINE)


@pytest.mark.parametrize("command", ["state", "history"])
def test_an_unknown_coupon_is_said_to_be_unknown(at_shop: Path, command: str) -> None:
    """Else a mistyped id would look like a coupon without events."""
    one_sentence(ledger(command, "c-404"), 1, "coupon c-404", "check the id")


def test_history_tells_every_event_and_what_it_did(at_shop: Path) -> None:
    """Else nobody could explain how a coupon came to its state."""
    steps = done("history", "c-1", "--output", "json").json
    told = [(s["event_id"], s["type"], s["before"], s["after"], s["violations"]) for s in steps]
    assert told == [
        ("c-1-1", "created", "none", "created", []),
        ("c-1-2", "issued", "created", "issued", []),
        ("c-1-3", "claimed", "issued", "claimed", []),
        ("c-1-4", "reserved", "claimed", "reserved", []),
        ("c-1-5", "used", "reserved", "used", []),
        ("c-1-6", "used", "used", "used", ["used_when_used", "wrong_user"]),
    ]
    assert steps[0]["data"]["attributes"] == {"batch": [1, 2.5], "新": True}
    assert steps[0]["data"]["valid_until"] == "2026-12-01T00:00:00.500000Z"
    assert all(INSTANT.fullmatch(s["recorded_at"]) and INSTANT.fullmatch(s["occurred_at"]) for s in steps)
    assert [s["offset"] for s in steps] == sorted(s["offset"] for s in steps)
    table = done("history", "c-1").out
    assert (
        "used → used" in table
        and "used_when_used, wrong_user" in table
        and "discount 5.00 CNY" in done("history", "c-1", "--wide").out
    )


@pytest.mark.long
def test_the_history_of_a_coupon_with_very_many_events(home: Path) -> None:
    """All of them in a table helped nobody; the coupon's currency stands in an event that is left out."""
    events = [coupon_event("created", "e-0", currency="JPY")]
    for n in range(1, 121):
        at = f"2026-11-11T{n // 60:02}:{n % 60:02}:00Z"
        kind = "used" if n % 2 else "returned"
        fields = {} if n % 2 else {"order_id": "o-1"}
        events.append(coupon_event(kind, f"e-{n}", occurred_at=at, **fields))
    done("init")
    done("publish", "-", stdin=ndjson(events))
    done("consume")
    every = done("history", "c-1", "--output", "json").json
    assert [step["event_id"] for step in every] == [f"e-{n}" for n in range(121)]
    assert "number" not in every[0] and "currency" not in every[1]
    ran = done("history", "c-1", "--limit", "3", "--output", "json")
    assert ran.json == every[-3:] and "left out" not in ran.err
    ran = done("history", "c-1", "--limit", "3", "--wide")
    assert "118 earlier events are left out" in ran.err
    assert [n for n in range(121) if f"e-{n} " in ran.out] == [118, 119, 120] and "JPY" in ran.out
    ran = done("history", "c-1")
    assert "71 earlier events are left out" in ran.err and "e-71 " in ran.out and "e-70 " not in ran.out
    assert "left out" not in done("history", "c-1", "--limit", "121").err


def test_history_names_a_conflict_at_its_event(at_shop: Path) -> None:
    """Else the count of violations would be higher than what the history shows."""
    [step] = done("history", "c-4", "--output", "json").json
    assert (step["data"]["coupon_type"], step["violations"]) == ("cash", ["conflicting_duplicate"])
    assert done("state", "c-4", "--output", "json").json["violations"] == 1
    assert "came under the id c-4-1" in done("history", "c-4").out


@pytest.mark.long
def test_a_person_is_known_by_any_id(home: Path) -> None:
    """An id that is only linked had no coupon and no event, and so nobody behind it."""
    done("init")
    done("publish", Path(__file__).parent / "cases" / "guest_limit.ndjson")
    linked = {"topic": "user.events", "type": "linked", "source": "shop", "occurred_at": "2026-11-03T00:00:00Z"}
    links = [("member-7", "phone-7"), *((f"a-{n}", f"a-{n + 1}") for n in range(2_000))]
    told = [linked | {"event_id": alias, "user_id": user, "alias_id": alias} for user, alias in links]
    done("publish", "-", stdin=ndjson(told))
    done("consume")
    ids = {"guest-a1", "guest-a2", "member-7", "phone-7"}
    for user in ids:
        for past in ((), ("--at", "2026-11-10")):
            row = done("user", user, "--output", "json", *past).json
            assert (row["user_id"], row["person"], {user, *row["linked"]}) == (user, "member-7", ids)
            assert [c["coupon_id"] for c in row["coupons"]] == ["c1", "c2", "c3"]
    one_sentence(ledger("user", "phone-7", "--at", "2026-11-02"), 1, "user phone-7")
    for user in ("a-2000", "a-1000", "a-0"):
        row = done("user", user, "--output", "json").json
        assert row["person"] == "a-0" and len({user, *row["linked"]}) == 2_001
    for arguments in (("user", "a-2000"), ("user", "a-2000", "--person")):
        ran = done(*arguments)
        assert "1,950 linked ids are left out" in ran.err and len(ran.out.splitlines()) < 100


@pytest.mark.long
def test_coupons_can_be_filtered_and_counted(at_shop: Path) -> None:
    """Else a campaign's owner would have to dig through all coupons."""

    def ids(*filters: str) -> list[str]:
        return [row["coupon_id"] for row in done("coupons", "--output", "ndjson", *filters).rows]

    assert ids("--campaign", "k-1") == ["c-1", "c-2", "c-4"]
    assert ids("--state", "expired") == ["c-2"]
    assert ids("--owner", "u-1") == ["c-1"]
    assert ids("--campaign", "k-2", "--state", "used") == []
    assert ids("--limit", "2") == ["c-1", "c-2"]
    assert done("coupons", "--count", "--output", "json").json == [
        {"state": "created", "coupons": 61},
        {"state": "issued", "coupons": 1},
        {"state": "used", "coupons": 1},
        {"state": "expired", "coupons": 1},
    ]
    assert done("coupons", "--count", "--campaign", "k-2", "--output", "json").json == [
        {"state": "created", "coupons": 60}
    ]


@pytest.mark.long
def test_a_table_is_cut_and_the_machine_formats_are_whole(at_shop: Path) -> None:
    """Else a terminal would drown, or an export would silently miss rows."""
    table = done("coupons")
    assert len([line for line in table.out.splitlines() if re.match(r"[cp]-", line)]) == 50
    assert "the first 50 rows" in table.err and "--output ndjson" in table.err
    assert len(re.findall(r"^[cp]-", done("coupons", "--limit", "60").out, re.MULTILINE)) == 60
    whole = done("coupons", "--limit", "64")
    assert (
        len(whole.out.partition("──\n")[2].splitlines()) == 64
        and "as of commit 1 at " in whole.err
        and "--limit" not in whole.err
    )
    assert len(done("coupons", "--output", "ndjson").rows) == 64
    assert len(done("coupons", "--output", "json").json) == 64
    assert len(list(csv.DictReader(io.StringIO(done("coupons", "--output", "csv").out)))) == 64


def test_field_names_are_those_of_the_specification(at_shop: Path) -> None:
    """Else a program written against the specification would find no value."""
    for row in done("coupons", "--output", "ndjson").rows:
        assert list(row) == COUPON_FIELDS
    violations = done("violations", "--output", "ndjson").rows
    for row in violations:
        assert list(row)[:5] == ["coupon_id", "event_id", "violation", "state", "occurred_at"]
    assert [(v["coupon_id"], v["event_id"], v["violation"], v["state"]) for v in violations] == [
        ("c-4", "c-4-1", "conflicting_duplicate", None),
        ("券-3", "c-3-1", "issued_when_none", "none"),
        ("c-1", "c-1-6", "used_when_used", "used"),
        ("c-1", "c-1-6", "wrong_user", "used"),
    ]


@pytest.mark.long
def test_violations_can_be_filtered_and_counted(at_shop: Path) -> None:
    """Else a case of fraud could not be told from a slip."""
    [double] = done("violations", "--code", "used_when_used", "--output", "json").json
    assert double["occurred_at"] == "2026-11-11T00:00:05.000000Z"
    assert len(done("violations", "--coupon", "c-1", "--output", "json").json) == 2
    assert {r["violation"]: r["violations"] for r in done("violations", "--count", "--output", "json").json} == {
        "conflicting_duplicate": 1,
        "issued_when_none": 1,
        "used_when_used": 1,
        "wrong_user": 1,
    }


@pytest.mark.long
def test_campaigns_show_their_funnel(at_shop: Path) -> None:
    """Else marketing could not see how far a campaign's coupons got."""
    by_id = {row["campaign_id"]: row for row in done("campaigns", "--output", "json").json}
    assert set(by_id) == {"k-1", "k-2", None}
    known = by_id["k-1"]
    assert (known["name"], known["status"]) == ("双十一", "published")
    counts = {n: known[n] for n in ("coupons", "issued", "claimed", "used", "returned", "expired", "in_use", "owned")}
    assert counts == {
        "coupons": 3,
        "issued": 2,
        "claimed": 1,
        "used": 1,
        "returned": 0,
        "expired": 1,
        "in_use": 1,
        "owned": 2,
    }
    assert (known["claim_rate"], known["use_rate"], known["discount_minor"]) == (1.0, 0.5, 500)
    assert done("campaigns", "--columns", "name,campaign_id", "--output", "csv").out.splitlines()[:2] == [
        "name,campaign_id",
        "双十一,k-1",
    ]
    one_sentence(ledger("campaigns", "--columns", "nome"), 2, "no column nome; did you mean name?")


@pytest.mark.long
def test_status_shows_positions_lag_and_counts(at_shop: Path) -> None:
    """Else ops could not see whether the consumer keeps up."""
    status = done("status", "--output", "json").json
    assert (status["coupons"], status["orders"], status["campaigns"], status["users"]) == (64, 1, 1, 1)
    assert (status["lag"], status["dead_letters"], status["violations"]) == (0, 1, 4)
    assert INSTANT.fullmatch(status["committed_at"])
    assert len(status["partitions"]) == 16
    for part in status["partitions"]:
        assert part["read"] == sum(part[n] for n in ("applied", "repeats", "conflicts", "dead_letters"))
        assert part["lag"] == part["end"] - part["next_offset"] == 0
    table = done("status").out
    assert "lag         0 records" in table and "64 coupons, 1 orders" in table and "/s)" in table
    assert "attention   4 violations: `coupon-ledger violations`" in table
    # One screen; the partitions only where they are asked for.
    assert len(table.splitlines()) < 16 and max(map(len, table.splitlines())) <= 100
    shown = done("status", "--partitions").out
    assert shown.startswith(table.rpartition("data clock")[0]) and "coupon.events" not in table
    assert sum("coupon.events" in line for line in shown.splitlines()) == 4


@pytest.mark.long
def test_status_says_where_the_lag_is() -> None:
    done("init")
    done("publish", "-", stdin=ndjson(shop_events()[:1]))
    assert "lag         1 record in 1 of 16 partitions" in done("status").out


@pytest.mark.long
def test_status_counts_what_is_not_yet_consumed() -> None:
    """Else a consumer that fell behind would look fine."""
    done("init")
    assert "last commit none yet" in done("status").out
    done("publish", "-", stdin=ndjson(shop_events()))
    assert done("status", "--output", "json").json["lag"] == 75
    assert sum(int(row["lag"]) for row in csv.DictReader(io.StringIO(done("status", "-o", "csv").out))) == 75


@pytest.mark.long
def test_digest_names_every_table(at_shop: Path) -> None:
    """Else two copies could not be compared table by table."""
    rows = done("digest", "--output", "json").json
    assert rows[-1]["table"] == "all" and rows[-1]["rows"] == sum(row["rows"] for row in rows[:-1])
    assert {"coupon_events", "coupons", "orders", "campaigns", "users", "violations"} <= {r["table"] for r in rows}
    for row in rows:
        assert re.fullmatch(r"[0-9a-f]{32}", row["full"])
    assert done("digest", "--columns", "facts", "--output", "csv").out.splitlines()[-1] == rows[-1]["facts"]


@pytest.mark.long
def test_dead_letters_are_listed_and_shown_to_the_byte(at_shop: Path) -> None:
    """Else a refused record could be neither found nor repaired."""
    [letter] = done("dead-letters", "list", "--output", "json").json
    assert (letter["topic"], letter["bytes"]) == (COUPON, len(POISON))
    assert INSTANT.fullmatch(letter["recorded_at"]) and letter["reason"] and letter["detail"]
    place = [str(letter[n]) for n in ("topic", "partition", "offset")]
    shown = done("dead-letters", "show", *place, "--output", "json").json
    assert (bytes.fromhex(shown["key"]), bytes.fromhex(shown["value"])) == (b"c-9", POISON)
    assert done("dead-letters", "show", *place, "--raw").raw == POISON
    assert POISON.hex() in done("dead-letters", "show", *place).out
    one_sentence(ledger("dead-letters", "show", COUPON, "0", "999"), 1, "dead letter coupon.events 0 999", "list")


# --- formats

ASKING = [
    ("coupons",),
    ("coupons", "--count"),
    ("history", "c-1"),
    ("history", "券-3"),
    ("campaigns",),
    ("violations",),
    ("violations", "--count"),
    ("digest",),
    ("dead-letters", "list"),
    ("config",),
    ("status",),
    ("state", "c-1"),
]


def as_csv(row: Data) -> dict[str, str]:
    def cell(value: Any) -> str:
        if isinstance(value, list | dict):
            return json.dumps(value, ensure_ascii=False)
        return "" if value is None else str(value)

    return {name: cell(value) for name, value in row.items()}


@pytest.mark.long
@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_all_formats_say_the_same(at_shop: Path, arguments: tuple[str, ...]) -> None:
    """Else a figure would depend on how it was exported."""
    rows = done(*arguments, "--output", "json").json
    if arguments[0] == "status":
        rows = rows["partitions"]
    elif arguments[0] == "state":
        rows = [rows]
    assert rows
    assert done(*arguments, "--output", "ndjson").rows == rows
    read = csv.DictReader(io.StringIO(done(*arguments, "--output", "csv").out, newline=""))
    assert list(read) == [as_csv(row) for row in rows]


@pytest.mark.long
@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_instants_are_rfc_3339_and_amounts_whole(at_shop: Path, arguments: tuple[str, ...]) -> None:
    """Else a reader would have to guess time zones, or meet cents as floats."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for inner, one in value.items():
                check(inner, one)
        elif isinstance(value, list):
            for one in value:
                check(name, one)
        elif value is not None and (name.endswith("_at") or name in ("valid_from", "valid_until")):
            assert INSTANT.fullmatch(value), (name, value)
        elif value is not None and name.endswith(("_minor", "_bp")):
            assert type(value) is int

    check("", done(*arguments, "--output", "json").json)
    for output in ("table", "csv"):
        for found in re.findall(r"\d{4}-\d\d-\d\dT[^\s,]*", done(*arguments, "--output", output).out):
            assert INSTANT.fullmatch(found.rstrip('"}')), found


@pytest.mark.long
@pytest.mark.parametrize("arguments", [("coupons",), ("violations",), ("dead-letters", "list"), ("campaigns",)])
def test_nothing_found_is_an_answer_in_every_format(arguments: tuple[str, ...]) -> None:
    """Else a script would break on the first quiet day."""
    done("init")
    assert done(*arguments).out == "nothing found\n"
    assert done(*arguments, "--output", "json").json == []
    assert done(*arguments, "--output", "ndjson").out == ""
    [header] = csv.reader(io.StringIO(done(*arguments, "--output", "csv").out))
    assert len(header) > 4


@pytest.mark.long
def test_data_cannot_steer_the_terminal() -> None:
    """Else an id made by an attacker could rewrite what an operator sees."""
    done("init")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1", coupon_id="c\x1b[2J\n1")]))
    done("consume")
    table = done("coupons").out
    assert "\x1b" not in table and r"c\x1b[2J\n1" in table
    assert done("coupons", "--output", "ndjson").rows[0]["coupon_id"] == "c\x1b[2J\n1"


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(at_shop: Path) -> None:
    """Else `| head` in a script with pipefail would look like a failure."""
    readers = []
    for output in ("table", "json", "ndjson", "csv"):
        reader = start("coupons", "--output", output)
        assert reader.stdout is not None
        reader.stdout.close()
        reader.stdout = None
        readers.append(reader)
    ended: list[Ran] = [finish(reader) for reader in readers]
    assert [ran.code for ran in ended] == [0] * 4
    notes = ("the first 50 rows", "columns left out", "as of commit")  # for people, on standard error
    assert [line for ran in ended for line in ran.err.splitlines() if not line.startswith(notes)] == []
