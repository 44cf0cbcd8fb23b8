"""What a long-running command logs on standard error: sentences for people, or a JSON line per event for machines.

People see warnings and errors (a progress bar shows the rest); JSON has every event, from `info` up.
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
    """Writes to the current standard error: a progress bar replaces it to keep its line."""

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
    """Whether the record is for users. Records of libraries are not, except uvicorn's: this package logs the errors
    that matter itself."""
    return record.name.partition(".")[0] in _OURS


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


@contextmanager
def logging_as(form: str) -> Iterator[None]:
    """Send this process's log to standard error in that form."""
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
    handler.addFilter(_ours)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO if form == "json" else logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def log_format_option(command: Any) -> Any:
    """Add `--log-format`; the command gets `log_format`."""
    return click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="Form of the log on standard error: sentences, or a line of JSON per event.",
    )(command)
