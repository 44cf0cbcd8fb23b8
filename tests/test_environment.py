"""Links, folders that may only be read, odd names, owners that are stopped or gone: what a machine does to a ledger."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest

from coupon_ledger.api.contact import LIMIT
from coupon_ledger.projections import generations
from coupon_ledger.projections.ownership import owner, owner_file
from tests.command_line import (
    COMMAND,
    DATABASE,
    LOG,
    PATIENCE_S,
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
from tests.owners import Owner, Reply, owning

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


# ── Memory ───────────────────────────────────────────────────────────────────────────────────────────────────


LESS_MEMORY = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""


def within(gigabytes: float, *arguments: str) -> Ran:
    """Run the command with so much address space."""
    command = [sys.executable, "-c", LESS_MEMORY, str(int(gigabytes * 1e9)), str(COMMAND), *arguments]
    return finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))


@pytest.mark.parametrize("command", ["consume", "rebuild"])
@pytest.mark.parametrize("gigabytes", [0.6, 1.5, 3.0, 4.0])
def test_too_little_memory_is_said_in_a_sentence(home: Path, command: str, gigabytes: float) -> None:
    """Tracebacks of libraries that could not be loaded, and processes that a library aborted half-way."""
    fill()
    before = facts()
    done("publish", "-", stdin=ndjson([coupon_event("claimed", "e-3")]))
    one_sentence(within(gigabytes, command), 1, "ulimit -v", *(["--batch-size"] if gigabytes == 4.0 else []))
    assert facts() == before
    if gigabytes == 4.0:
        ran = within(gigabytes, command, "--batch-size", "10000")
        assert ran.code == 0, ran.err


OPENING = [
    ("state", "c-1"),
    ("status",),
    ("digest",),
    ("verify",),
    ("doctor",),
    ("init",),
    ("report", "finance", "losses"),
    ("dead-letters", "replay", "--dry-run"),
    ("expire", "--dry-run"),
    ("backup", "copy.duckdb"),
    ("archive", "--to", "archive"),
]


def test_commands_that_open_the_database_say_that_the_memory_is_too_little(home: Path) -> None:
    """`status` and `init` were aborted at 0.3 GB, `digest` at 1.0 GB; others ended in words of a library."""
    fill()
    before = facts()
    for gigabytes, commands in ((0.3, OPENING), (1.0, OPENING[1:3]), (2.9, OPENING[:1])):
        for command in commands:
            one_sentence(within(gigabytes, *command), 1, "limited to", "3.0 GB", "ulimit -v")
    assert within(3.0, "state", "c-1").code == 0
    ran = within(3.0, "verify")
    if ran.code:  # what all audits need depends on the machine
        one_sentence(ran, 5, "more memory is needed", "ulimit -v")
    assert within(0.3, "config").code == 0
    assert facts() == before


# ── Owners ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_owner_file_of_another_machine_or_of_a_process_that_is_gone(home: Path) -> None:
    """A database that was copied brought the file along, and its process number is somebody else's here."""
    fill()
    before = facts()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        told = {"pid": other.pid, "command": "consume", "since": "2026-01-01T00:00:00+00:00", "interface": 2}
        told["url"] = "http://127.0.0.1:9"
        owner_file(home / DATABASE).write_text(json.dumps(told))
        assert facts() == before
        with owning() as asked:
            assert asked.answer("state", coupon="c-1")["rows"][0]["state"] == "issued"
        done("consume")
    finally:
        other.communicate(b"")
    assert not owner_file(home / DATABASE).exists()


def test_beside_an_owner_that_is_stopped_a_command_ends_with_a_sentence(home: Path) -> None:
    """Ctrl-Z, a debugger or a frozen container: whoever asked waited for an answer that did not come."""
    fill()
    with owning() as asked:
        assert asked.answer("state", coupon="c-1")["rows"]
        asked.process.send_signal(signal.SIGSTOP)
        try:
            questions = [start(*command) for command in (("state", "c-1"), ("consume",))]
            for ran in map(finish, questions):
                one_sentence(ran, 5, f"process {asked.process.pid}")
        finally:
            asked.process.send_signal(signal.SIGCONT)
        done("publish", "-", stdin=ndjson([coupon_event("claimed", "e-3", occurred_at="2026-11-11T00:02:00Z")]))
        wait_until(lambda: asked.answer("state", coupon="c-1")["rows"][0]["state"] == "claimed", "the next event")


# ── Clocks ───────────────────────────────────────────────────────────────────────────────────────────────────


JUMPING_CLOCK = """
import datetime as dt, os, sys, time
from pathlib import Path

def ahead():
    return float(Path(os.environ["AHEAD_S"]).read_text())

now, now_ns = time.time, time.time_ns
time.time = lambda: now() + ahead()
time.time_ns = lambda: now_ns() + int(ahead()) * 10**9

class Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, dt.datetime)

class Jumping(dt.datetime, metaclass=Kind):
    @classmethod
    def now(cls, tz=None):
        return dt.datetime.now(tz) + dt.timedelta(seconds=ahead())

from coupon_ledger.api import metrics
from coupon_ledger.consumers import runner, sweeper
from coupon_ledger.projections import ownership
for module in (metrics, runner, sweeper, ownership):
    assert module.datetime is dt.datetime
    module.datetime = Jumping
from coupon_ledger.cli.main import main
main(sys.argv[1:])
"""
DAY_S = 86_400


def test_a_clock_that_jumps_stops_nothing(home: Path) -> None:
    """A wrong battery, a restored machine, NTP: instants of recording go on, and so does everything that waits."""
    clock = home / "ahead"
    environment = {**os.environ, "AHEAD_S": str(clock)}
    command = [sys.executable, "-c", JUMPING_CLOCK]

    def at(days: int) -> None:
        fresh = home / "fresh"
        fresh.write_text(str(days * DAY_S))
        fresh.replace(clock)

    def publish(number: int) -> None:
        """A coupon whose time is over when the second one is made."""
        hour = f"2026-11-11T{number:02}"
        events = [
            coupon_event("created", f"a-{number}", coupon_id=f"c-{number}", occurred_at=f"{hour}:00:00Z")
            | {"valid_until": f"{hour}:10:00Z"},
            coupon_event("created", f"b-{number}", coupon_id=f"later-{number}", occurred_at=f"{hour}:20:00Z"),
        ]
        publishing = subprocess.Popen([*command, "publish", "-"], env=environment, stdin=-1, stdout=-1, stderr=-1)
        _, err = publishing.communicate(ndjson(events))
        assert publishing.returncode == 0, err

    at(0)
    done("init")
    following = [*command, "consume", "--follow", "--sweep-every", "1s"]
    process = subprocess.Popen(following, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: "url" in owner(home / DATABASE), "the owner")
        for number, days in enumerate((0, 400, -3, -60, 0)):
            at(days)
            publish(number)
            # With a clock behind the data's nothing is over yet; the coupon is there all the same.
            becomes = "created" if days == -60 else "expired"
            wait_until(partial(is_in, f"c-{number}", becomes), f"{becomes}, {days} days ahead")
        wait_until(partial(is_in, "c-3", "expired"), "what waited for the clock")
        assert done("status", "--output", "json").json["lag"] == 0
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
        assert ran.code == 0, ran.err
    finally:
        process.kill()
        process.wait()
    with closing(sqlite3.connect(LOG)) as log:
        query = 'SELECT partition_id, recorded_at FROM records ORDER BY partition_id, "offset"'
        recorded = [*log.execute(query)]
    assert recorded == sorted(recorded)
    done("verify")
    done("rebuild")


def is_in(coupon: str, state: str) -> bool:
    ran = ledger("state", coupon, "--output", "json")
    return ran.code == 0 and ran.json["state"] == state


# ── Connections ──────────────────────────────────────────────────────────────────────────────────────────────


def test_many_connections_that_ask_nothing_hold_nobody_up(home: Path) -> None:
    """Hundreds of open connections would take the places of the files that the owner still has to open."""
    fill()
    with owning() as asked:
        assert asked.answer("state", coupon="c-1")["rows"]
        host, port = asked.address.split(":")
        with ExitStack() as stack:
            slow = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(400)]
            for connection in slow:
                with suppress(OSError):
                    connection.sendall(b"GET /v1/health HTTP/1.1\r\nX-Slow: ")
            files = Path(f"/proc/{asked.process.pid}/fd")
            wait_until(lambda: len([*files.iterdir()]) < 200, "the end of connections beyond the most")
            done("publish", "-", stdin=ndjson([coupon_event("claimed", "e-3", occurred_at="2026-11-11T00:02:00Z")]))

            # Those that ask nothing are closed after a while, and whoever asks gets through. Until then the owner may
            # close a connection more.
            def told() -> bool:
                ran = ledger("state", "c-1", "--output", "json")
                return ran.code == 0 and bool(ran.json["state"] == "claimed")

            wait_until(told, "the next event")


# ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────


HEAVY = [
    ("/v1/coupons", {}),
    ("/v1/coupons", {"at": "2026-11-12T00:00:00Z"}),
    ("/v1/violations", {"at": "2026-11-12T00:00:00Z"}),
    ("/v1/campaigns", {"known_at": "2099-01-01T00:00:00Z"}),
    ("/v1/digest", {}),
]


def test_questions_that_never_end_do_not_starve_the_consumer(home: Path) -> None:
    """All at once, again and again, and one who does not read the answer: each batch is committed all the same."""
    fill()
    before = done("status", "--output", "json").json["read"]
    done("simulate", "--events", "6000", "--seed", "5", "--orders")
    records = done("status", "--output", "json").json["lag"]
    assert records >= 6_000
    replies: list[Reply] = []
    enough = threading.Event()

    with owning("--batch-size", "200") as asked, ExitStack() as stack:

        def ask(path: str, parameters: dict[str, str], limit_s: str) -> None:
            while not enough.is_set():
                replies.append(asked.get(path, asked.headers | {LIMIT: limit_s}, **parameters))

        host, port = asked.address.split(":")
        slow = stack.enter_context(socket.create_connection((host, int(port))))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        token = f"Authorization: Bearer {asked.token}"
        slow.sendall(f"GET /v1/coupons HTTP/1.1\r\nHost: {asked.address}\r\n{token}\r\n\r\n".encode())
        asking = [
            threading.Thread(target=ask, args=(*question, limit_s)) for question in HEAVY for limit_s in ("0.1", "60")
        ]
        for thread in asking:
            thread.start()
        try:
            wait_until(lambda: len(replies) > 2, "answers")
            begun = commits(asked)
            assert begun * 200 < records, "the backlog was gone before"
            wait_until(lambda: commits(asked) >= begun + 3, "three more batches")
            assert all(thread.is_alive() for thread in asking)
        finally:
            enough.set()
            for thread in asking:
                thread.join()
        wait_until(lambda: read(asked) == before + records, "the end of the backlog", 5 * PATIENCE_S)
    assert {reply.status for reply in replies} <= {200, 503, 504}
    for reply in replies:
        assert reply.status == 200 or "took longer than" in reply.json["error"], reply.body
    assert any(reply.status == 200 for reply in replies)
    done("verify")


def commits(asked: Owner) -> int:
    return int(asked.answer("summary")["rows"][0]["commits"])


def read(asked: Owner) -> int:
    return sum(partition["read"] for partition in asked.answer("summary")["rows"][0]["partitions"])
