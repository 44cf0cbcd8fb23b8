"""How the running command shows its output to people: language, zone, width, columns.

Each of these is taken from the command's own flag; if there is none, from the flag before the command's name; then from
the settings; then from the terminal or the locale. Of these, only the columns affect the machine formats.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from coupon_ledger.ledger.settings import LANGUAGES, Settings
from coupon_ledger.reports.view import View, default

WIDTH: Final = 100
"""Width of a table, in terminal columns, if standard output is not a terminal."""
_LEAST: Final = 60
_KEY: Final = "coupon_ledger.view"
_FILE: Final = "config_file"


@dataclass
class Flags:
    """The flags of the command line (None: not given), and what the command has shown so far.

    `shown`: the view made from the flags; None until it is needed, and after a flag has changed. `zone_named`: whether
    the zone of instants was printed. `columns_shown`: whether a table with the columns of `--columns` was printed.
    """

    lang: str | None = None
    zone: str | None = None
    wide: bool = False
    columns: list[str] | None = None
    shown: TerminalView | None = field(default=None, repr=False)
    zone_named: bool = False
    columns_shown: bool = False


@dataclass(frozen=True)
class TerminalView(View):
    """A `View` on a terminal. `width`: the largest width of a table, in terminal columns (None: no limit). `wide`:
    whether to show every column and cut nothing. `columns`: the only columns to show (None: the usual ones)."""

    width: int | None = WIDTH
    wide: bool = False
    columns: list[str] | None = None


def flags() -> Flags:
    """The flags of the running command; if no command runs, `Flags()`."""
    context = click.get_current_context(silent=True)
    if context is None:
        return Flags()
    stored: Flags = context.meta.setdefault(_KEY, Flags())
    return stored


def view() -> TerminalView:
    """The view of the running command. It is made from the command's flags, the settings, the terminal and the locale,
    and made again only after a flag has changed. Raises `SettingsError` if the settings cannot be used."""
    options = flags()
    if options.shown is None:
        context = click.get_current_context(silent=True)
        if context is None:
            return TerminalView()
        settings = Settings.load({"zone": options.zone, "lang": options.lang}, file=_settings_file(context))
        options.shown = _latest[0] = TerminalView(
            lang=settings.values["lang"].value or _language_of_locale(os.environ),
            zone=settings.values["zone"].value,
            width=None if options.wide else _width(),
            wide=options.wide,
            columns=options.columns,
        )
    return options.shown


default(view)
_latest: list[TerminalView] = [TerminalView()]


def latest() -> TerminalView:
    """The view of the last command, for messages that are printed after its end."""
    return _latest[0]


def forget() -> None:
    """Let `latest` return the default view again, if an earlier command ran in the same process."""
    _latest[0] = TerminalView()


def in_english() -> None:
    """Change the running command's view to English. For machine formats, which do not depend on the reader's
    language."""
    flags().shown = replace(view(), lang="en")


def zone_instant(day: datetime, zone: str) -> datetime:
    """The first instant, in naive UTC, at which clocks in the zone show that day; if the zone skipped the day, the
    first instant at which they show a later day."""
    from coupon_ledger.questions.metrics.periods import Zone

    return Zone(zone).instant(day)


def _settings_file(context: click.Context | None) -> Path | None:
    while context is not None:
        if (file := context.params.get(_FILE)) is not None:
            return Path(file)
        context = context.parent
    return None


def _width() -> int:
    if not sys.stdout.isatty():
        return WIDTH
    return max(_LEAST, shutil.get_terminal_size((WIDTH, 24)).columns)


def _language_of_locale(environment: Mapping[str, str]) -> str:
    locale = next((v for n in ("LC_ALL", "LC_MESSAGES", "LANG") if (v := environment.get(n))), "")
    return "zh" if locale.lower().startswith("zh") else "en"


# --- options


def _remembers(name: str) -> Any:
    def remember(_context: click.Context, _option: click.Parameter, value: Any) -> Any:
        if value not in (None, False, ()):
            options = flags()
            setattr(options, name, value)
            options.shown = None
        return value

    return remember


def known_zone(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A click callback: store the zone in the command's flags, and return it. Raises `click.BadParameter` for an
    unknown zone."""
    if value is not None:
        check_zone(value)
        _remembers("zone")(context, option, value)
    return value


def check_zone(name: str) -> None:
    """Raises `click.BadParameter` for an unknown zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise click.BadParameter(
            f"zone {name}: is not known; write a name of the IANA database, such as Asia/Shanghai or Europe/Berlin"
        ) from error


def _zone() -> click.Option:
    return click.Option(
        ["--zone"],
        callback=known_zone,
        is_eager=True,
        expose_value=False,
        help="Time zone of days and clock times. [setting zone; default: Asia/Shanghai]",
    )


def _lang() -> click.Option:
    return click.Option(
        ["--lang"],
        type=click.Choice(LANGUAGES),
        callback=_remembers("lang"),
        is_eager=True,
        expose_value=False,
        help="Language of output for people. [setting lang; default: the locale's]",
    )


def _wide() -> click.Option:
    return click.Option(
        ["--wide"],
        is_flag=True,
        callback=_remembers("wide"),
        is_eager=True,
        expose_value=False,
        help="Full tables: every column, nothing cut.",
    )


def _columns() -> click.Option:
    return click.Option(
        ["--columns"],
        callback=lambda c, o, value: _remembers("columns")(c, o, value.split(",") if value else None),
        is_eager=True,
        expose_value=False,
        metavar="A,B,…",
        help="Only these columns, in this order, by their names in JSON.",
    )


def global_options(group: click.Command) -> click.Command:
    """Add `--lang` and `--zone` to the group, so that they may be given before the command's name. Returns the
    group."""
    group.params += [_lang(), _zone()]
    return group


def with_view_options(command: click.Command) -> click.Command:
    """Add the options that choose a view (`--zone`, `--lang`, `--wide`, `--columns`) to the command and its
    subcommands, where they make a difference. Returns the command."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_view_options(below)
    names = {option.name for option in command.params}
    tables = "output" in names
    if not tables and not any(getattr(option, "takes_days", False) for option in command.params):
        return command
    wanted = {"zone": _zone, "lang": _lang} | ({"wide": _wide, "columns": _columns} if tables else {})
    command.params += [made() for name, made in wanted.items() if name not in names]
    return command
