"""The reader's language and zone, in which reports are shown.

The command line takes them from its flags and settings (`cli.view`) and sets them as the `default`. A service that
answers several readers at once sets each reader's view with `showing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class View:
    """A reader's view. `lang`: `en` or `zh`; `zone`: an IANA time zone."""

    lang: str = "en"
    zone: str = "UTC"

    @property
    def chinese(self) -> bool:
        return self.lang == "zh"

    def local(self, instant: datetime) -> datetime:
        """The instant as wall-clock time in the zone, without an offset. Naive instants are UTC."""
        aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
        try:
            return aware.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)
        except OverflowError:  # the first or the last hours of the calendar
            return aware.astimezone(UTC).replace(tzinfo=None)

    def instant(self, value: datetime) -> str:
        """Format an instant as local time, to the second, with a fraction if there is one."""
        local = self.local(value)
        text = f"{local:%Y-%m-%d %H:%M:%S}".rjust(19, "0")
        return f"{text}.{local.microsecond:06d}".rstrip("0") if local.microsecond else text


_default: list[Callable[[], View]] = [View]
_shown: ContextVar[View | None] = ContextVar("view", default=None)


def view() -> View:
    """The view of the current reader."""
    return _shown.get() or _default[0]()


def default(current: Callable[[], View]) -> None:
    """Set the function that returns the view wherever `showing` has set none."""
    _default[0] = current


@contextmanager
def showing(shown: View) -> Iterator[None]:
    """Within the block, show everything in this view. Other threads and tasks are not affected."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)
