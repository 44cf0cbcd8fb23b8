"""Links, folders that may only be read, odd names, owners that are stopped or gone: what a machine does to a ledger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from projections import generations
from tests.command_line import (
    COMMAND,
    DATABASE,
    LOG,
    Ran,
    coupon_event,
    done,
    facts,
    finish,
    ledger,
    ndjson,
    one_sentence,
)

pytestmark = pytest.mark.slow

EVENTS = [coupon_event("created", "e-1"), coupon_event("issued", "e-2", occurred_at="2026-11-11T00:01:00Z")]
# Of root, take the right to read and write whatever the modes of files say (PR_CAPBSET_DROP).
WITHOUT_RIGHTS = """
import ctypes, os, sys
for capability in range(64):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def unprivileged(*arguments: str | Path) -> Ran:
    """Run the command as a user whom the modes of files bind."""
    command = [sys.executable, "-c", WITHOUT_RIGHTS, str(COMMAND), *map(str, arguments)]
    return finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))


def fill(*where: str) -> None:
    done("init", *where)
    done("publish", "-", *where[:2], stdin=ndjson(EVENTS))
    done("consume", *where)


# ── Links ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("relative", [False, True])
def test_a_database_behind_a_link_into_another_folder(home: Path, relative: bool) -> None:
    """The rollback failed, the previous generation could not be reached, and no old one was ever freed."""
    disk = home / "disk"
    disk.mkdir()
    link = home / "ln.duckdb"
    link.symlink_to("disk/real.duckdb" if relative else disk / "real.duckdb")
    where = ("--database", "ln.duckdb")
    fill("--log", f"sqlite:///{LOG}", *where)
    before = facts("ln.duckdb")
    for _ in range(3):
        done("rebuild", *where)
    assert facts("ln.duckdb") == before
    done("rebuild", "--rollback", "--why", "tried out", *where)
    assert facts("ln.duckdb") == before
    assert link.is_symlink() and link.resolve() == generations.file_of(disk / "real.duckdb")
    assert [file for file in home.iterdir() if file.name.startswith("ln.duckdb")] == [link]
    files = [file for file in disk.iterdir() if not file.is_symlink() and file.suffix != ".wal"]
    assert len(files) == 2, "the live generation and the one before"


def test_a_chain_of_links_that_leads_nowhere(home: Path) -> None:
    """A sentence, and no hunt without end."""
    Path("a.duckdb").symlink_to("b.duckdb")
    Path("b.duckdb").symlink_to("a.duckdb")
    done("init")
    one_sentence(ledger("state", "c-1", "--database", "a.duckdb"), 5, "a.duckdb")


# ── Folders that may only be read ────────────────────────────────────────────────────────────────────────────


def test_in_a_folder_that_may_only_be_read_all_that_reads_goes_on(home: Path) -> None:
    """On a mounted backup, or as a user who may only look, half of the commands wanted to write."""
    shop = home / "shop"
    shop.mkdir()
    where = ("--log", f"sqlite:///{shop / LOG}", "--database", str(shop / DATABASE))
    fill(*where)
    files = [shop, *shop.iterdir()]
    events = home / "events.ndjson"
    for file in files:
        file.chmod(0o555 if file.is_dir() else 0o444)
    try:
        for command in (
            ("status", *where),
            ("verify", *where),
            ("state", "c-1", *where[2:]),
            ("tail", "--no-follow", *where[:2]),
            ("archive", "--to", home / "archive", *where[:2]),
            ("backup", home / "copy.duckdb", *where[2:]),
        ):
            ran = unprivileged(*command)
            assert ran.code == 0, (command, ran.err)
        events.write_bytes(ndjson(EVENTS))
        one_sentence(unprivileged("publish", events, *where[:2]), 4, "may only read it")
        one_sentence(unprivileged("consume", *where), 5, str(shop / DATABASE))
        assert sorted(shop.iterdir()) == sorted(files[1:])
    finally:
        for file in files:
            file.chmod(0o755 if file.is_dir() else 0o644)
    assert facts(home / "copy.duckdb") == facts(shop / DATABASE)


# ── Names ────────────────────────────────────────────────────────────────────────────────────────────────────


NAMES = ["with space", "优惠券", "#1", "50%25", "o'brien", '"quoted"', "-dash", "a;b"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_will_do(home: Path, name: str) -> None:
    """An address or a statement put together from a path would name another file."""
    folder = home / name
    folder.mkdir()
    database = f"./{name}/{name}.duckdb"
    log = f"sqlite:///{name}/{name}.log"
    where = ("--log", log, "--database", database)
    fill(*where)
    done("rebuild", *where)
    done("backup", f"./{name}/{name}.copy", "--database", database)
    done("archive", "--to", f"./{name}/archive", "--log", log)
    assert facts(f"./{name}/{name}.copy") == facts(database)
    kept = {file.name for file in folder.iterdir()}
    assert {f"{name}.duckdb", f"{name}.log", f"{name}.copy", "archive"} <= kept
    assert [file.name for file in home.iterdir()] == [name]


def test_a_name_that_duckdb_misreads_is_refused(home: Path) -> None:
    """With a question mark the write-ahead log lay elsewhere, or nowhere: a traceback."""
    (home / "what?").mkdir()
    for database in ("what?.duckdb", "what?/shop.duckdb"):
        one_sentence(ledger("init", "--database", database), 5, database, "question mark", "--database")
