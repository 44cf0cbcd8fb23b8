"""Decorators for the options that several commands share. Each decorator adds options to a command, and passes the
parsed values to the command."""

from __future__ import annotations

import csv
import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from coupon_ledger.cli.usage import BadValue
from coupon_ledger.cli.view import flags, known_zone, view, zone_instant
from coupon_ledger.ledger.address_space import check_for_reading
from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.ledger.settings import OPTIONS, Option, Settings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.ledger.words import Note, note

Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS: Final = ("table", "json", "ndjson", "csv")
LOG: Final = ("log", "topic-prefix", "schema-registry")
"""Settings of every command that opens the log."""

_BY_NAME: Final = {option.name: option for option in OPTIONS}
_AGO: Final = re.compile(r"([0-9]{1,9})([smhd])")
_POSITION: Final = re.compile(r"[^:]+:[0-9]+:[0-9]+")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
MICROSECOND: Final = timedelta(microseconds=1)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def settings_options(*names: str, opens: bool | None = None) -> Callable[[Command], Command]:
    """Add `--config`, and a flag for each of the settings `names`. The command gets `settings`, a loaded `Settings`.

    `opens`: whether the command opens a database or an archive. Default: whether `names` contains `database`. Such a
    command raises `NotEnoughMemory` at its start if the process may not use enough memory to open one.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_settings(*args: Any, config_file: Path | None, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(name.replace("-", "_")) for name in names}
            settings = Settings.load(flags, file=config_file)
            if opens or (opens is None and "database" in names):
                check_for_reading()
            if settings.private_files:
                os.umask(os.umask(0o077) | 0o077)
            return command(*args, settings=settings, **kwargs)

        wrapped: Any = click.option(
            "--config", "config_file", type=click.Path(path_type=Path), is_eager=True, help="Settings file (TOML)."
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
    """Add `--output`; the command gets `output`. Also add `--for-excel`, which `for_excel` reads."""
    excel = click.option(
        "--for-excel",
        is_flag=True,
        expose_value=False,
        callback=_for_excel,
        help="CSV for spreadsheets: labels, major units, the reader's zone; text never becomes a formula, and control"
        " characters are shown.",
    )
    return click.option(
        "--output",
        "-o",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        is_eager=True,
        help="Format: table for people, the others for machines.",
    )(excel(command))


def _for_excel(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value and context.params.get("output") != "csv":
        raise click.BadParameter("is of CSV; add --output csv", context, option)
    context.meta[_EXCEL] = value


def for_excel() -> bool:
    """Whether the running command prints CSV for spreadsheets."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(_EXCEL))


def limit_option(default: int) -> Callable[[Command], Command]:
    """Add `--limit`; the command gets `limit`, None for all."""
    return click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=None,
        help=f"At most this many rows. [default: {default} in a table, all in the machine formats]",
    )


class _InstantOption(click.Option):
    """An option that takes an instant. Its help lists the formats, and says that a day is a day in `--zone`."""

    takes_days = True

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(context)
        assert record is not None
        names, text = record
        return names, f"{text} [2026-11-11T20:00:00+08:00, a day of --zone, or how long ago: 90s, 15m, 2h, 1d]"


def instant_option(name: str, text: str, *, cut: bool = False) -> Callable[[Command], Command]:
    """Add the option `name` with the help `text`. It takes an instant; the command gets the instant in UTC, or None if
    the option is not given. A date means the start of that day in the reader's zone.

    `cut`: whether the option is a cut (the last instant that counts). A date then means the last microsecond before
    that day, so the day itself is excluded.
    """
    return click.option(
        name,
        cls=_InstantOption,
        callback=lambda _ctx, option, value: None if value is None else _instant(value, option, cut=cut),
        metavar="INSTANT",
        help=text,
    )


_TIMEOUT: Final = "coupon_ledger.timeout"
_EXCEL: Final = "coupon_ledger.for_excel"


def zone_option(
    text: str = "Time zone of days and clock times.", exposed: bool = False
) -> Callable[[Command], Command]:
    """Add `--zone` with the help `text`. `exposed`: whether the command gets `zone`, the zone's name.

    Other commands that print tables or take instants get `--zone` from `cli.view`, with the same default."""
    return click.option(
        "--zone",
        is_eager=True,
        expose_value=exposed,
        callback=_resolved_zone if exposed else known_zone,
        help=f"{text} [setting zone; default: Asia/Shanghai]",
    )


def _resolved_zone(context: click.Context, option: click.Parameter, value: str | None) -> str:
    if known_zone(context, option, value) is not None:
        return str(value)
    zone = view().zone
    flags().shown = None  # further options may follow
    return zone


def past_options(command: Command) -> Command:
    """Add `--at`, `--known-at`, `--at-position` and `--timeout`; the command gets `at`, `known_at` and `positions`.
    Each is None if its option is not given."""
    from coupon_ledger.questions.parameters import OfPast, about

    for option in (
        timeout_option,
        position_option("--at-position", "positions", "State at these log positions: only records before them."),
        instant_option("--known-at", f"{about(OfPast, 'known_at')[:-1]} (a date means its start).", cut=True),
        instant_option("--at", f"{about(OfPast, 'at')[:-1]} (a date means its start).", cut=True),
    ):
        command = option(command)
    return command


def timeout_option(command: Command) -> Command:
    """Add `--timeout`, which `timeout_s` reads."""
    return click.option(
        "--timeout",
        expose_value=False,
        callback=lambda ctx, option, value: ctx.meta.update({_TIMEOUT: _duration(value, option)} if value else {}),
        metavar="TIME",
        help="How long the process that owns the database may take, instead of its default. [90s, 15m, 2h]",
    )(command)


def timeout_s() -> float | None:
    """The running command's `--timeout` in seconds; None without it."""
    context = click.get_current_context(silent=True)
    timeout: timedelta | None = context.meta.get(_TIMEOUT) if context else None
    return timeout.total_seconds() if timeout else None


def position_option(name: str, parameter: str, text: str) -> Callable[[Command], Command]:
    """Add the option `name` with the help `text`. It takes positions of the log. The command gets them as `parameter`:
    TOPIC:PARTITION:OFFSET joined by commas, as questions expect them, or None if the option is not given."""
    return click.option(
        name,
        parameter,
        multiple=True,
        callback=lambda _ctx, option, values: ",".join(_positions(values, option)) if values else None,
        metavar="POSITION",
        help=f"{text} [{INPUT_TOPICS[0]}:2:75632: topic, partition, next offset (repeatable; other partitions count as"
        " empty), or a JSON file from `status -o json` or with an answer's as_of]",
    )


def _positions(values: Iterable[str], option: click.Parameter) -> Iterator[str]:
    for value in values:
        if _POSITION.fullmatch(value):
            yield value
        else:
            yield from _positions_in(value, option)


def _positions_in(file: str, option: click.Parameter) -> list[str]:
    """The positions in a JSON file, each as TOPIC:PARTITION:OFFSET. The file is a list of rows with topic, partition
    and next_offset, or the JSON output of `status` or of a command that prints `as_of`, which contains such a list.
    Raises `click.BadParameter` for any other file."""
    try:
        said = json.loads(Path(file).read_text(encoding="utf-8"))
        rows = said if isinstance(said, list) else said.get("as_of", said)
        rows = rows if isinstance(rows, list) else rows.get("positions") or rows["partitions"]
        return [f"{row['topic']}:{int(row['partition'])}:{int(row['next_offset'])}" for row in rows]
    except OSError as error:
        why = f"is no TOPIC:PARTITION:OFFSET, and no file that can be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        why = "has no JSON rows with topic, partition and next_offset"
    raise click.BadParameter(f"{file!r} {why}", None, option)


def _instant(value: str, option: click.Parameter, *, cut: bool = False) -> datetime:
    from pydantic import TypeAdapter, ValidationError

    from coupon_ledger.ledger.events import Instant, problems_of

    try:
        if ago := _AGO.fullmatch(value):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if not _DAY.fullmatch(value):
            return TypeAdapter(Instant).validate_python(value)
        day = TypeAdapter(Instant).validate_python(f"{value}T00:00:00Z")
        begins = zone_instant(day.replace(tzinfo=None), view().zone).replace(tzinfo=UTC)
        return begins - MICROSECOND if cut else begins
    except OverflowError:
        raise BadValue(note("{value} ago was before the year 1", value=repr(value)), option) from None
    except ValidationError as error:
        rule = problems_of(error)[0].rule
        said = note("{value} {rule}, or a day, or how long ago, such as 15m", value=repr(value), rule=Note(rule, {}))
        raise BadValue(said, option) from error


def dead_letter_options(command: Command) -> Command:
    """Add the options that choose dead letters; the command gets `topic`, `partition`, `offset`, `reason`, `since`,
    `until` and `settled`."""
    from coupon_ledger.questions.parameters import about
    from coupon_ledger.questions.states.parameters import DeadLetters

    for option in reversed(
        (
            click.option("--topic", type=click.Choice(INPUT_TOPICS), help=about(DeadLetters, "topic")),
            click.option("--partition", type=click.IntRange(0, 2**31 - 1), help=about(DeadLetters, "partition")),
            click.option("--offset", type=click.IntRange(0, 2**63 - 1), help=about(DeadLetters, "offset")),
            click.option("--reason", help=about(DeadLetters, "reason")),
            instant_option("--since", about(DeadLetters, "since")),
            instant_option("--until", about(DeadLetters, "until")),
            click.option("--all", "settled", is_flag=True, help=about(DeadLetters, "settled")),
        )
    ):
        command = option(command)
    return command


def operator_options(command: Command) -> Command:
    """Add `--why` and `--operator`, for commands that record an operation; the command gets `why` and `operator`."""
    operator = click.option("--operator", help="The operator's name. [default: the user who runs the command]")
    return click.option(
        "--why", metavar="TEXT", help="The reason. It is recorded with the operator's name; see `operations`."
    )(operator(command))


def signed(why: str | None, operator: str | None) -> tuple[str, str]:
    """The operator's name (default: the name of the user who runs the command) and the reason. Raises
    `click.UsageError` if either is missing."""
    from coupon_ledger.ledger.operations import user_name

    who = operator or user_name()
    if not why or not why.strip():
        raise click.UsageError("--why is needed: in a few words, for those who wonder later")
    if not who:
        raise click.UsageError("--operator is needed: the user who runs this has no name")
    return who, why


def duration_option(name: str, text: str, default: str | None = None) -> Callable[[Command], Command]:
    """Add the option `name` with the help `text`. It takes a length of time; the command gets a timedelta, or None if
    the option is not given and has no default."""
    return click.option(
        name,
        default=default,
        callback=lambda _ctx, option, value: None if value is None else _duration(value, option),
        metavar="TIME",
        show_default=default is not None,
        help=f"{text} [90s, 15m, 2h, 3d]",
    )


def _duration(value: str, option: click.Parameter) -> timedelta:
    match = _AGO.fullmatch(value)
    if not match or not int(match[1]):
        said = note("{value} is no length of time; write a whole number and s, m, h or d", value=repr(value))
        raise BadValue(said, option)
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise BadValue(note("{value} is too long", value=repr(value)), option) from None


def goods_rate_option(command: Command) -> Command:
    """Add `--goods-rate`. The command gets `goods_rates`, a dict from category to rate in basis points; the key '' has
    the rate of all other categories. `goods_rates` is None if the option is not given."""
    return click.option(
        "--goods-rate",
        "goods_rates",
        multiple=True,
        metavar="[CATEGORY=]PERCENT",
        callback=lambda _ctx, option, values: _goods_rates(values, option) if values else None,
        help="Cost of goods, in percent of the amount paid, for orders that do not state it; for one category, or"
        " without a category for all others (repeatable; @FILE: a CSV of category, percent). [75, DAIRY=80]",
    )(command)


def _goods_rates(values: Iterable[str], option: click.Parameter) -> dict[str, int]:
    rates: dict[str, int] = {}
    for value in _written_out(values):
        category, _, percent = value.rpartition("=")
        try:
            rates[category] = round(float(percent) * 100)
        except (ValueError, OverflowError):
            rates[category] = -1
        if 0 < rates[category] <= 100:
            raise click.BadParameter(
                f"{value!r} would be a cost of one percent or less; write 75 for three quarters", None, option
            )
        if not 0 <= rates[category] <= 10_000:
            raise click.BadParameter(f"{value!r} is no percentage of 0 to 100, such as 75 or DAIRY=80", None, option)
    return rates


def _written_out(values: Iterable[str]) -> Iterator[str]:
    """The values of `--goods-rate`, with CATEGORY=PERCENT for each row of the CSV in place of each `@FILE`."""
    for value in values:
        if value.startswith("@"):
            rows = csv_rows(Path(value[1:]), ("category", "percent"))
            yield from (f"{row['category']}={row['percent']}" for row in rows)
        else:
            yield value


def csv_rows(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """All rows of a CSV file. Raises `UnusableFile` if the file cannot be read, has no rows, or lacks one of `columns`
    in any row."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "is no CSV in UTF-8"
        raise UnusableFile(f"file {file}: cannot be read ({why}); name a CSV file") from error
    if not rows or not set(columns) <= set(rows[0]) or any(row[name] is None for row in rows for name in columns):
        raise UnusableFile(f"file {file}: has not the columns {', '.join(columns)} in every row; write them")
    return rows
