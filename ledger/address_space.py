"""Checks the address space limit (`ulimit -v`) against what a command needs.

The checks run before the large libraries are loaded: a library that gets no memory aborts the process, or ends it with
an error message of its own.
"""

from __future__ import annotations

import resource
from typing import Final

from coupon_ledger.ledger.errors import NotEnoughMemory

_READING: Final = 3_000_000_000
"""Bytes mapped by loading the libraries and querying a database. Most of them are never used."""
_CONSUMING: Final = 3_500 << 20
"""The same for a consumer before its first record. The records of a batch come on top."""
_OF_RECORD: Final = 16_000


def limited() -> float | None:
    """The address space limit in bytes. None if there is none."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def check_for_reading() -> None:
    """Raises `NotEnoughMemory` if the limit is too low to query a database or read an archive."""
    limit = limited()
    if limit is not None and limit < _READING:
        raise NotEnoughMemory(
            f"process: its address space is limited to {limit / 1e9:.1f} GB, and commands that open a database or an"
            f" archive need {_READING / 1e9:.1f} GB; raise the limit (`ulimit -v`)"
        )


def check_for_batches(size: int) -> None:
    """Raises `NotEnoughMemory` if the limit is too low to fold batches of `size` records."""
    limit, needed = limited(), _CONSUMING + size * _OF_RECORD
    if limit is None or limit >= needed:
        return
    fits = int(limit - _CONSUMING) // _OF_RECORD // 1000 * 1000
    remedy = f" or take --batch-size {fits}" if fits > 0 else ""
    raise NotEnoughMemory(
        f"process: its address space is limited to {limit / 1e9:.1f} GB, and batches of {size:,} records need"
        f" {needed / 1e9:.1f} GB; raise the limit (`ulimit -v`){remedy}"
    )
