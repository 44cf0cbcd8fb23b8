"""How a report is shown to its reader: in which language, and by whose clocks.

The command line finds that out from its flags and settings (`cli.view`), which it makes the `default`. Whatever answers
several readers at once, such as a service, shows to each of them by `showing`.
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
    lang: str = "en"
    zone: str = "UTC"

    @property
    def chinese(self) -> bool:
        return self.lang == "zh"

    def local(self, instant: datetime) -> datetime:
        """The instant (naive: of UTC) as clocks of the zone show it, without an offset."""
        aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
        try:
            return aware.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)
        except OverflowError:  # the first or the last hours that there are
            return aware.astimezone(UTC).replace(tzinfo=None)

    def instant(self, value: datetime) -> str:
        """To the second, with a fraction where there is one."""
        local = self.local(value)
        text = f"{local:%Y-%m-%d %H:%M:%S}".rjust(19, "0")
        return f"{text}.{local.microsecond:06d}".rstrip("0") if local.microsecond else text


_default: list[Callable[[], View]] = [View]
_shown: ContextVar[View | None] = ContextVar("view", default=None)


def view() -> View:
    """How things are shown to the reader at hand."""
    return _shown.get() or _default[0]()


def default(how: Callable[[], View]) -> None:
    """Ask `how` wherever `showing` says nothing else."""
    _default[0] = how


@contextmanager
def showing(how: View) -> Iterator[None]:
    """Show everything within to this reader; other threads and tasks are not affected."""
    token = _shown.set(how)
    try:
        yield
    finally:
        _shown.reset(token)
