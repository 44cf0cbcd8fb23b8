"""Sets the memory options of Python and of the C library so that a process that consumes is fast."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import Any, Final

# mallopt's parameters, from malloc.h of the GNU C library.
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3
_MEGABYTE: Final = 1 << 20
_KEPT: Final = 1200 * _MEGABYTE

# The allocator of polars (jemalloc) reads this variable when it is loaded, so this module must be imported before
# polars. With it, memory of freed columns stays with the process for ten seconds. The default, half a second, can be
# less than the time between two batches. Then the system has to clear new pages for each batch, which takes a twelfth
# of the processor time.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:10000,muzzy_decay_ms:10000")


def tune_process() -> None:
    """Make Python search for reference cycles rarely, and make the C library keep freed memory. Call once, before the
    first batch.

    A batch has hundreds of thousands of small objects and no reference cycles, and the search for cycles makes a
    consumer a tenth slower. The next batch needs as much memory as the last one: to return the memory to the system and
    request it again would cost a sixth of the processor time in page faults.
    """
    gc.set_threshold(100_000, 50, 100)
    tune = _of_libc("mallopt")
    if tune is not None:
        for parameter, value in ((_MMAP_THRESHOLD, 32), (_TRIM_THRESHOLD, 256), (_TOP_PAD, 16)):
            tune(parameter, value * _MEGABYTE)


def keep_small() -> None:
    """Return all free memory to the system if the process uses more than `_KEPT` bytes. The free memory includes gaps
    between objects that are in use; without this call, the gaps would grow for hours. Call between batches."""
    trim = _of_libc("malloc_trim")
    if trim is not None and resident() > _KEPT:
        trim(0)


def resident() -> int:
    """How much physical memory this process uses, in bytes. Linux only."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _of_libc(name: str) -> Any:
    """The function `name` of the C library. None if the system is not Linux, or its C library has no such function."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
