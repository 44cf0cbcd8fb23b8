"""Memory settings of Python and of the C library that make a consuming process fast."""

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
    """Make Python collect garbage rarely, and the C library keep freed memory. Call once, before the first batch.

    A batch has hundreds of thousands of small objects and no reference cycles, and the search for cycles makes a
    consumer a tenth slower. The next batch needs as much memory as the last one: returning it to the system and
    requesting it again costs a sixth of the processor time in page faults.
    """
    gc.set_threshold(100_000, 50, 100)
    tune = _of_libc("mallopt")
    if tune is not None:
        for parameter, value in ((_MMAP_THRESHOLD, 32), (_TRIM_THRESHOLD, 256), (_TOP_PAD, 16)):
            tune(parameter, value * _MEGABYTE)


def keep_small() -> None:
    """If the process uses more memory than a limit, return all free memory to the system. This includes the gaps
    between live objects, which would otherwise grow for hours. Call between batches."""
    trim = _of_libc("malloc_trim")
    if trim is not None and resident() > _KEPT:
        trim(0)


def resident() -> int:
    """Resident memory of this process, in bytes. Linux only."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _of_libc(name: str) -> Any:
    """The function `name` of the GNU C library. None on systems with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
