"""Who owns a database. DuckDB locks the file, so that no other process can open it, and a file beside the database (the
owner file) describes the owning process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coupon_ledger.ledger.errors import StoreOwned, masked


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Within the block, hold the lock of the database file, so that no process can open it. Does nothing if the file
    does not exist. Raises `StoreOwned` if another process holds the lock."""
    if not path.exists():
        yield
        return
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock that DuckDB takes
        except OSError as error:
            raise owned_by(path, "") from error
        yield


def owner_file(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def owner(path: Path) -> dict[str, Any]:
    """The contents of the owner file: `pid`, `command`, `since` and what `Store.announce` adds. Empty if there is none.
    The file may be from an owner that was killed."""
    try:
        contents = json.loads(owner_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return contents if isinstance(contents, dict) else {}


def this_process() -> dict[str, Any]:
    """What the owner file says about this process. Passwords in the command are replaced."""
    return {
        "pid": os.getpid(),
        "command": masked(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def owned_by(path: Path, refusal: str) -> StoreOwned:
    """Returns the error to raise for a database that another process has locked. `refusal`: DuckDB's message, which may
    contain the id of that process. If the owner file is from the same process, the error also names its command and
    when it started."""
    held = re.search(r"\(PID (\d+)\)", refusal)
    pid = int(held[1]) if held else None
    contents = owner(path)
    words = f"process {pid}" if pid else "another process"
    if {"pid", "command", "since"} <= set(contents) and pid in (None, contents["pid"]):
        pid, words = contents["pid"], f"process {contents['pid']} ({contents['command']!r}, since {contents['since']})"
    error = StoreOwned(f"database {path}: in use by {words}; wait for it or stop it")
    error.pid = pid
    return error
