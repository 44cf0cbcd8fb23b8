"""Options that several commands share, as decorators; each hands the command a loaded `Settings`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ledger.settings import OPTIONS, Option, Settings

Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS: Final = ("table", "json", "ndjson", "csv")
_BY_NAME: Final = {option.name: option for option in OPTIONS}


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Add the flags of these settings and `--config`; the command gets `settings`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_settings(*args: Any, config_file: Path | None, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(name.replace("-", "_")) for name in names}
            return command(*args, settings=Settings.load(flags, file=config_file), **kwargs)

        wrapped: Any = click.option(
            "--config", "config_file", type=click.Path(path_type=Path), help="Settings file (TOML)."
        )(with_settings)
        for name in reversed(names):
            option = _BY_NAME[name]
            wrapped = click.option(f"--{name}", default=None, metavar=_metavar(option.default), help=_help(option))(
                wrapped
            )
        return wrapped  # type: ignore[no-any-return]

    return decorate


def _metavar(default: object) -> str:
    return "N" if isinstance(default, int) else "TEXT"


def _help(option: Option) -> str:
    default = f"; default: {option.default}" if option.default != "" else ""
    return f"{option.doc[0].upper()}{option.doc[1:]}. [{option.variable}{default}]"


def output_option(command: Command) -> Command:
    """Add `--output`; the command gets `output`."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print: for people (table) or for machines.",
    )(command)


def limit_option(default: int) -> Callable[[Command], Command]:
    """Add `--limit`; the command gets `limit`, None for all."""
    return click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=None,
        help=f"At most this many rows. [default: {default} in a table, all in the machine formats]",
    )


def instant_option(_: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    """Callback of an option that takes an instant: RFC 3339 with a zone, or a day (UTC)."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no instant; write 2026-11-11T20:00:00+08:00, or a day", None, option
        ) from None
    if found.tzinfo is None and len(value) > len("2026-11-11"):
        raise click.BadParameter(f"{value!r} has no zone; append Z or +08:00", None, option)
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)


def columns_option(command: Command) -> Command:
    """Add `--columns`; the command gets `columns`, a list of names or None."""
    return click.option(
        "--columns",
        callback=lambda _ctx, _param, value: value.split(",") if value else None,
        metavar="A,B,…",
        help="Only these columns, in this order.",
    )(command)
