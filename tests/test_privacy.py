"""What the ledger shows and writes stays where it belongs: passwords are masked, files are for their owner alone."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Final

import pytest

from coupon_ledger.cli.logs import logging_as
from coupon_ledger.ledger.errors import LedgerError, masked
from tests.command_line import DATABASE, LOG, coupon_event, done, ledger, ndjson, one_sentence

SECRET: Final = "geheim-7"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, where files are made as most systems do."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ── Passwords ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kafka://u:geheim-7@h:1,h:2", "kafka://u:********@h:1,h:2"),
        ("http://:geheim-7@h/x", "http://:********@h/x"),
        ("log kafka://u:geheim-7@h: gone; http://a:x@b", "log kafka://u:********@h: gone; http://a:********@b"),
        ("kafka://h:9092", "kafka://h:9092"),
        ("http://h:80/a@b", "http://h:80/a@b"),
        ("sqlite:///a:b@c", "sqlite:///a:b@c"),
    ],
)  # fmt: skip
def test_passwords_of_addresses_are_masked_and_nothing_else(text: str, shown: str) -> None:
    """Else a password would stand in a log, or an address be unreadable."""
    assert masked(text) == shown
    assert str(LedgerError(text)) == shown


def test_config_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is pasted into a ticket would hold the password."""
    for name in ("SASL_PLAIN_PASSWORD", "SSL_PASSWORD", "SASL_OAUTH_TOKEN", "API_KEY", "SASL_JAAS_CONFIG"):
        monkeypatch.setenv(f"COUPON_LEDGER_KAFKA_{name}", SECRET)
    monkeypatch.setenv("COUPON_LEDGER_KAFKA_SSL_KEYFILE", "/etc/key.pem")
    for name in ("BASIC_AUTH_USER_INFO", "SSL_KEY_PASSWORD"):
        monkeypatch.setenv(f"COUPON_LEDGER_SCHEMA_REGISTRY_{name}", SECRET)
    at = ("--log", f"kafka://u:{SECRET}@h:1", "--schema-registry", f"http://u:{SECRET}@h")
    for output in ("table", "json", "csv"):
        shown = done("config", *at, "--output", output).out
        assert SECRET not in shown and "/etc/key.pem" in shown and "kafka://u:********@h:1" in shown


@pytest.mark.long
def test_errors_about_an_address_show_no_secret() -> None:
    """Else a log of errors would hold the password."""
    ran = ledger("init", "--log", f"kafka://u:{SECRET}@127.0.0.1:1")
    assert ran.code == 4 and SECRET not in ran.err and "********" in ran.err
    findings = ledger("doctor", "--log", f"kafka://u:{SECRET}@127.0.0.1:1")
    assert SECRET not in findings.out + findings.err


def test_logs_as_json_hold_our_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Else a program that reads them would meet what Kafka's client tells its developers."""
    with logging_as("json"):
        logging.getLogger("kafka.client").warning("theirs")
        logging.getLogger("coupon_ledger.consumers.runner").info("ours")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["ours"]


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────


def make_all() -> None:
    done("init")
    done("publish", "-", "--rejects", "bad.ndjson", stdin=ndjson([coupon_event("created", "e-1")]))
    assert ledger("publish", "-", "--rejects", "bad.ndjson", stdin=b"bad\n").code == 3
    done("consume")
    done("rebuild")
    done("archive", "--to", "archive")
    done("backup", "copy.duckdb")
    done("coupons", "--to", "all.parquet")
    done("review", "k-1", "--to", "review.html")


def modes(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): stat.S_IMODE(f.stat().st_mode) for f in folder.rglob("*")}


@pytest.mark.long
def test_what_is_made_is_for_its_owner_alone(home: Path) -> None:
    """Else every user of the machine could read who has which coupon."""
    before = os.umask(0o022)
    try:
        make_all()
        found = modes(home)
        assert {LOG, DATABASE, "archive", "copy.duckdb", "bad.ndjson", "all.parquet", "review.html"} <= found.keys()
        assert {name: oct(mode) for name, mode in found.items() if mode & 0o077} == {}
        assert os.umask(0o022) == 0o022  # the process is as it was
    finally:
        os.umask(before)


@pytest.mark.long
def test_files_may_be_for_others_where_that_is_set(home: Path) -> None:
    """Else a group that works together could not."""
    (home / "coupon-ledger.toml").write_text("[coupon-ledger]\nprivate-files = false\n")
    before = os.umask(0o022)
    try:
        done("init")
        assert modes(home)[LOG] == modes(home)[DATABASE] == 0o644
        assert "others may read" not in done("doctor").out
    finally:
        os.umask(before)
    (home / "coupon-ledger.toml").write_text("[coupon-ledger]\nprivate-files = 'perhaps'\n")
    one_sentence(ledger("init"), 2, "private-files", "neither true nor false")


@pytest.mark.long
def test_doctor_finds_older_files_that_others_may_read(home: Path) -> None:
    """Else those that were made before would stay open for ever."""
    done("init")
    done("archive", "--to", "archive")
    assert "others may read" not in done("doctor", "--archive", "archive").out
    for name in (LOG, DATABASE, "archive"):
        (home / name).chmod(0o755 if name == "archive" else 0o644)
    findings = done("doctor", "--archive", "archive", "--output", "json").json
    remedies = [f["remedy"] for f in findings if "others may read" in f["finding"]]
    assert len(remedies) == 3
    for remedy in remedies:
        assert os.system(remedy.partition("; ")[0]) == 0
    assert "others may read" not in done("doctor", "--archive", "archive").out


# ── What doctor and others say of files ──────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_doctor_ends_with_an_error_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next commit would fail, and every light be green."""
    done("init")
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    ran = ledger("doctor", "--output", "json")
    assert ran.code == 1
    found = [f for f in ran.json if f["level"] == "error"]
    assert {f["object"] for f in found} == {"disk of the database", "disk of the log"}
    assert all("free space" in f["remedy"] for f in found)


def test_a_sqlite_file_is_no_database(home: Path) -> None:
    """Else the message would be of an extension that nobody asked for."""
    done("init")
    for command in (("status",), ("coupons",), ("consume",)):
        ran = ledger(*command, "--database", LOG)
        one_sentence(ran, 5, f"database {LOG}: is a SQLite file", "--database")


@pytest.mark.long
def test_a_folder_in_place_of_the_owner_file_is_named(home: Path) -> None:
    """Else the error would be a path and two words."""
    done("init")
    (home / f"{DATABASE}.owner").mkdir()
    one_sentence(ledger("consume"), 5, f"owner file {DATABASE}.owner: is a folder", "remove")


@pytest.mark.parametrize("arguments", [("init", "--database"), ("publish",)])
def test_a_name_that_is_too_long_is_said_to_be(arguments: tuple[str, ...]) -> None:
    """Else the terminal would be full of the name, and the remedy lost."""
    ran = ledger(*arguments, "n" * 300)
    assert ran.code in (1, 2, 5) and "too long" in ran.err and "Traceback" not in ran.err


@pytest.mark.long
def test_operations_takes_the_database_too() -> None:
    """Else a script that names both for every command would fail at this one."""
    done("init")
    done("operations", "--database", DATABASE, "--output", "json")


def test_every_answer_of_the_database_names_it_alike() -> None:
    """Else some command would look at another database than all others."""
    import click

    from coupon_ledger.cli.main import cli
    from tests.test_cli import commands

    without: dict[str, Any] = {}
    for path in commands():
        command: click.Command | None = cli
        for name in path:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), name)
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts}
        if "--at" in options or "--limit" in options:
            without |= {" ".join(path): options} if not {"--database", "--output"} <= options else {}
    assert without.keys() <= {"review", "segments export"}  # a page, and ids for another system
