"""Options that several commands about alerts share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click

from coupon_ledger.cli.options import duration_option, instant_option
from coupon_ledger.cli.usage import Misused
from coupon_ledger.ledger.words import note

Command = TypeVar("Command", bound=Callable[..., Any])
SHORT: Final = 8
"""So many characters of an id are shown in tables."""


def by_options(command: Command) -> Command:
    """Add `--by` and `--why`; the command gets `operator` and `why`."""
    operator = click.option("--by", "--operator", "operator", help="Who does it. [default: the user who runs this]")
    return click.option("--why", metavar="TEXT", help="In a few words, for those who wonder later.")(operator(command))


def operator_name(operator: str | None) -> str:
    """The operator's name; by default that of the user who runs the command. Raises `Misused` if there is
    none."""
    from coupon_ledger.ledger.operations import user_name

    who = operator or user_name()
    if not who:
        raise Misused(note("--by is needed: the user who runs this has no name"))
    return who


def until_options(text: str) -> Callable[[Command], Command]:
    """Add `--for` and `--until`; the command gets `lasting` and `until`. `text`: what ends then."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            return command(*args, lasting=kwargs.pop("for"), **kwargs)

        wrapped: Any = instant_option("--until", f"{text}: the instant.")(
            duration_option("--for", f"{text}: after this time.")(renamed)
        )
        return wrapped  # type: ignore[no-any-return]

    return decorate


def end_of(lasting: timedelta | None, until: datetime | None, now: datetime) -> datetime | None:
    """The instant that `--for` or `--until` names; None without them. Raises `Misused` if both are given."""
    if lasting is not None and until is not None:
        raise Misused(note("--for and --until exclude each other; leave one out"))
    try:
        return until if lasting is None else now + lasting
    except OverflowError:
        raise Misused(note("--for ends after the year 9999; shorten it")) from None


def now() -> datetime:
    return datetime.now(UTC)


def short(alert_id: str) -> str:
    return alert_id[:SHORT]
