"""The types of the functions that long work calls to report its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, total): cumulative counts of the same unit. `total` may change while the work goes on, for example
when offsets turn out to hold no record."""

PhaseProgress = Callable[[str, int, int], None]
"""Called with (phase, done, total): the name of what is being done now, and counts as in `Progress`."""


def ignore(*_: object) -> None:
    """A progress function that does nothing."""


def stage(progress: Progress, *, before: int = 0, after: int = 0) -> Progress:
    """A progress function for one stage of a longer job. The stage reports its own counts; `progress` receives those of
    the whole job. `before`: units of the job that precede the stage. `after`: units that follow it."""
    return lambda done, total: progress(before + done, before + total + after)
