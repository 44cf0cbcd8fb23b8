"""What a long-running command logs on standard error: sentences for people, or a line of JSON per log message.

The sentences are warnings, errors and announcements only, since a progress bar shows the rest. JSON has all messages
from level `info` up.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

import click

FORMATS: Final = ("text", "json")


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at that moment, since a progress bar replaces `sys.stderr` while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        pass


_OURS: Final = {"coupon_ledger", "uvicorn"}


def _ours(record: logging.LogRecord) -> bool:
    """Whether users see the log message: only those of this package and of uvicorn. Those of other libraries are left
    out, since this package itself logs the errors that matter."""
    return record.name.partition(".")[0] in _OURS


_ANNOUNCEMENTS: Final = "coupon_ledger.announcements"
"""The logger of what people wait for, though nothing is wrong."""


def _for_people(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name == _ANNOUNCEMENTS


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = super().format(record)
        return said if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {said}"


@contextmanager
def logging_as(form: str) -> Iterator[None]:
    """Within the block, the process's log messages go to standard error. `form`: one of `FORMATS`."""
    handler = _Stderr()
    if form == "json":
        from pythonjsonlogger.json import JsonFormatter

        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}",
                style="{",
                timestamp="at",
                rename_fields={"levelname": "level", "name": "logger", "message": "event"},
                json_ensure_ascii=False,
            )
        )
    else:
        handler.setFormatter(_Text("%(message)s"))
        handler.addFilter(_for_people)
    handler.addFilter(_ours)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def log_format_option(command: Any) -> Any:
    """Add the option `--log-format` to `command`, which receives its value as the argument `log_format`."""
    return click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="Form of the log on standard error: sentences, or a line of JSON per event.",
    )(command)
