"""The command `coupon-ledger` as tests run it: in this process for speed, or as a process of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from coupon_ledger.cli.main import main
from coupon_ledger.ledger.log import EventLog
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import DEAD_LETTERS
from coupon_ledger.projections.tables import TABLES

COMMAND: Final = Path(sys.executable).with_name("coupon-ledger")
LOG: Final = "coupon-ledger.log.db"
DATABASE: Final = "coupon-ledger.duckdb"
PATIENCE_S: Final = 60.0
ALL_EQUAL: Final = f"{sum(map(len, TABLES.values()))} tables are equal"
"""What `rebuild` says if each table that is compared has the digest of the live one."""

_LIMIT: Final = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
os.execv(sys.argv[2], sys.argv[2:])
"""

Data = dict[str, Any]


_PROGRESS = re.compile(r"[a-z ]+: ([\d,]+ of [\d,]+ records|nothing to read yet)")


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def said(self) -> str:
        """What stands on standard error but for lines of progress, which a busy machine has more of."""
        return "".join(line for line in self.err.splitlines(keepends=True) if not _PROGRESS.match(line))

    @property
    def rows(self) -> list[Data]:
        """What NDJSON was printed."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def ledger(*arguments: str | Path, stdin: bytes = b"") -> Ran:
    """Run the command in this process."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = {"stdin": stdin_of(stdin), "stdout": _text(out), "stderr": _text(err)}
    with ExitStack() as stack:
        for name, stream in streams.items():
            stack.enter_context(patch.object(sys, name, stream))
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(bool(error.code))
        streams["stdout"].flush()
        streams["stderr"].flush()
    return Ran(code, out.getvalue(), err.getvalue().decode())


def stdin_of(content: bytes) -> io.TextIOWrapper:
    return _text(io.BytesIO(content))


def _text(raw: io.BytesIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(raw, encoding="utf-8", errors="strict", newline="")


def done(*arguments: str | Path, stdin: bytes = b"") -> Ran:
    """Run the command in this process; it must succeed."""
    ran = ledger(*arguments, stdin=stdin)
    assert ran.code == 0, (arguments, ran.err)
    return ran


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Run the command as a process of its own."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([COMMAND, *map(str, arguments)], **given)


def finish(process: subprocess.Popen[bytes]) -> Ran:
    out, err = process.communicate(timeout=PATIENCE_S)
    return Ran(process.returncode, out or b"", (err or b"").decode())


def limited(*arguments: str, file_bytes: int) -> Ran:
    """Run the command in a process whose files cannot grow beyond that size: a full disk, for real."""
    command = [sys.executable, "-c", _LIMIT, str(file_bytes), str(COMMAND), *arguments]
    return finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))


def wait_until(reached: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


def one_sentence(ran: Ran, code: int, *words: str) -> None:
    """The command failed with that code, and said why in one line: object, problem, remedy."""
    assert ran.code == code, (ran.code, ran.err)
    assert "Traceback" not in ran.err
    [line] = ran.said.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def ndjson(events: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events).encode()


def coupon_event(kind: str, event_id: str, **fields: Any) -> Data:
    """A valid coupon event, on coupon c-1 at a fixed instant unless said otherwise."""
    needs: dict[str, Data] = {
        "created": {"campaign_id": "k-1", "coupon_type": "cash"},
        "issued": {"channel": "app"},
        "claimed": {"user_id": "u-1", "channel": "app"},
        "used": {"user_id": "u-1", "order_id": "o-1", "discount_minor": 500},
        "expired": {"reason": "not_used"},
    }
    common = {"event_id": event_id, "source": "shop", "occurred_at": "2026-11-11T00:00:00Z", "coupon_id": "c-1"}
    return {"topic": "coupon.events", "type": kind, **common, **needs.get(kind, {}), **fields}


def opened_log(path: Path | str = LOG) -> EventLog:
    return open_log(LogSettings(url=f"sqlite:///{path}"))


def ends(topics: Iterable[str], path: Path | str = LOG) -> int:
    """How many records these topics hold."""
    log = opened_log(path)
    try:
        return sum(log.end_positions(log.partitions(list(topics))).values())
    finally:
        log.close()


def dead_letters_told(path: Path | str = LOG) -> int:
    """How many dead letters a consumer has appended: a sign that can be seen while it owns the database."""
    return ends([DEAD_LETTERS], path)


def facts(database: str | Path = DATABASE) -> str:
    digest: str = done("digest", "--output", "json", "--database", database).json[-1]["facts"]
    return digest


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
