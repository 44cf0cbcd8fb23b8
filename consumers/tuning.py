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

# The allocator of polars reads this when it is loaded, so this module must be imported before polars. Freed columns are
# kept for ten seconds. The default, half a second, can be less than the time between two batches; a twelfth of the
# processor time then goes into clearing new pages.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:10000,muzzy_decay_ms:10000")


def tune_process() -> None:
    """Call once, before the first batch.

    Batches hold hundreds of thousands of small objects and no reference cycles, and searching for cycles costs a tenth
    of the rate. Freed columns stay with the process, since the next batch needs as much memory: returning it to the
    system and requesting it again costs a sixth of the processor time in page faults.
    """
    gc.set_threshold(100_000, 50, 100)
    tune = _of_libc("mallopt")
    if tune is not None:
        for parameter, value in ((_MMAP_THRESHOLD, 32), (_TRIM_THRESHOLD, 256), (_TOP_PAD, 16)):
            tune(parameter, value * _MEGABYTE)


def keep_small() -> None:
    """Call between batches. Above a limit, returns all free memory to the system, including the gaps between live
    objects, which would otherwise grow for hours."""
    trim = _of_libc("malloc_trim")
    if trim is not None and resident() > _KEPT:
        trim(0)


def resident() -> int:
    """Resident memory of this process, in bytes. Linux only."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _of_libc(name: str) -> Any:
    """A function that only the GNU C library has. None on other systems."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
