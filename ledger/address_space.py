"""Whether this process may map what a command needs (`ulimit -v`).

Looked at before the libraries that need it are loaded: those that get no memory abort the process, or end it with words
of their own.
"""

from __future__ import annotations

import resource
from typing import Final

from coupon_ledger.ledger.errors import NotEnoughMemory

_READING: Final = 3_000_000_000
"""Bytes that loading the libraries and asking a database map, for the most part never used."""
_CONSUMING: Final = 3_500 << 20
"""The same before the first record is read; a batch's records come to it."""
_OF_RECORD: Final = 16_000


def limited() -> float | None:
    """The limit in bytes; None where there is none."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def check_for_reading() -> None:
    """Raises `NotEnoughMemory` where a database cannot be asked, or an archive not read."""
    limit = limited()
    if limit is not None and limit < _READING:
        raise NotEnoughMemory(
            f"process: its address space is limited to {limit / 1e9:.1f} GB, and commands that open a database or an"
            f" archive need {_READING / 1e9:.1f} GB; raise the limit (`ulimit -v`)"
        )


def check_for_batches(size: int) -> None:
    """Raises `NotEnoughMemory` where batches of so many records cannot be folded."""
    limit, needed = limited(), _CONSUMING + size * _OF_RECORD
    if limit is None or limit >= needed:
        return
    fits = int(limit - _CONSUMING) // _OF_RECORD // 1000 * 1000
    remedy = f" or take --batch-size {fits}" if fits > 0 else ""
    raise NotEnoughMemory(
        f"process: its address space is limited to {limit / 1e9:.1f} GB, and batches of {size:,} records need"
        f" {needed / 1e9:.1f} GB; raise the limit (`ulimit -v`){remedy}"
    )
