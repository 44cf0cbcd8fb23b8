"""The callbacks that report the progress of long work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, total): cumulative counts of the same unit. `total` may change while the work goes on, for example
when offsets turn out to hold no record."""

PhaseProgress = Callable[[str, int, int], None]
"""Called with (phase, done, total): the name of what is being done now, and counts as in `Progress`."""


def ignore(*_: object) -> None:
    """Discard progress updates."""


def stage(progress: Progress, *, before: int = 0, after: int = 0) -> Progress:
    """The progress of one stage of a longer job: `before` units precede the stage, and `after` units follow it."""
    return lambda done, total: progress(before + done, before + total + after)
