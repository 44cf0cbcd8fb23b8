"""How many examples Hypothesis draws in a test: a few, and others every time.

`make test EXAMPLES=10` draws ten times as many, for a night; Hypothesis keeps what failed and tries it first.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

TIMES: Final = int(os.environ.get("EXAMPLES", "1"))


def examples(number: int) -> settings:
    return settings(max_examples=number * TIMES, deadline=None)
