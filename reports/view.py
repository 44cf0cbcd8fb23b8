"""The language and the time zone in which reports are shown to the current reader.

The command line reads both from its options and settings (`cli.view`), and sets them with `default`. A service that
answers several readers at the same time sets the view of each reader with `showing`.
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
    """How reports are shown to a reader. `lang`: the language, `en` or `zh`; `zone`: an IANA time zone."""

    lang: str = "en"
    zone: str = "UTC"

    @property
    def chinese(self) -> bool:
        return self.lang == "zh"

    def local(self, instant: datetime) -> datetime:
        """The instant as local time in the view's zone, without a zone of its own. An instant without a zone is taken
        as UTC."""
        aware = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
        try:
            return aware.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)
        except OverflowError:  # the first or the last hours of the calendar
            return aware.astimezone(UTC).replace(tzinfo=None)

    def instant(self, value: datetime) -> str:
        """The instant as text in the view's zone, to the second, with a fraction of a second if there is one."""
        local = self.local(value)
        text = f"{local:%Y-%m-%d %H:%M:%S}".rjust(19, "0")
        return f"{text}.{local.microsecond:06d}".rstrip("0") if local.microsecond else text


_default: list[Callable[[], View]] = [View]
_shown: ContextVar[View | None] = ContextVar("view", default=None)


def view() -> View:
    """The view of the current reader: the one set with `showing`, otherwise the result of the `default` function."""
    return _shown.get() or _default[0]()


def default(current: Callable[[], View]) -> None:
    """Set the function that returns the view of the reader outside the blocks of `showing`."""
    _default[0] = current


@contextmanager
def showing(shown: View) -> Iterator[None]:
    """Within the block, `view` returns `shown`. Other threads and tasks are not affected."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)
