"""What makes a process that consumes fast: settings of Python's and the C library's memory."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

# mallopt's parameters, from malloc.h of the GNU C library.
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3
_MEGABYTE: Final = 1 << 20


def tune_process() -> None:
    """Call once, before the first batch.

    Batches hold hundreds of thousands of small objects and no cycles: looking for those costs a tenth of the rate.
    Freed columns stay with the process, since the next batch needs as many: giving them back and taking them again
    costs a sixth of the processor time (page faults).
    """
    gc.set_threshold(100_000, 50, 100)
    if sys.platform == "linux":
        tune = getattr(ctypes.CDLL(None), "mallopt", None)
        if tune is not None:  # the GNU C library's alone
            for parameter, value in ((_MMAP_THRESHOLD, 32), (_TRIM_THRESHOLD, 256), (_TOP_PAD, 16)):
                tune(parameter, value * _MEGABYTE)
