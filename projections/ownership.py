"""Who owns a database: DuckDB's lock keeps others out, and a file beside it says more."""

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

from coupon_ledger.ledger.errors import (
    StoreOwned,
    masked,
)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody opens the database meanwhile, if it is there. Raises `StoreOwned`."""
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
    """What the owner file says; empty where there is none. It may be one that a killed owner left."""
    try:
        said = json.loads(owner_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "command": masked(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def owned_by(path: Path, refusal: str) -> StoreOwned:
    """Who holds the lock that DuckDB names in its refusal. The owner file says more, if it is of that process."""
    held = re.search(r"\(PID (\d+)\)", refusal)
    pid = int(held[1]) if held else None
    said = owner(path)
    words = f"process {pid}" if pid else "another process"
    if {"pid", "command", "since"} <= set(said) and pid in (None, said["pid"]):
        pid, words = said["pid"], f"process {said['pid']} ({said['command']!r}, since {said['since']})"
    error = StoreOwned(f"database {path}: in use by {words}; wait for it or stop it")
    error.pid = pid
    return error
