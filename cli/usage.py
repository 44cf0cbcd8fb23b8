"""Errors about how a command is used, in the reader's language."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from coupon_ledger.ledger.words import Note, note


class Misused(click.UsageError):
    """Raised if options contradict each other, or one is missing. `said`: why, and what to write."""

    def __init__(self, said: Note) -> None:
        super().__init__(str(said))
        self.said = said


class BadValue(click.BadParameter):
    """Raised if an option cannot have this value. `said`: why, and what to write."""

    def __init__(self, said: Note, option: click.Parameter) -> None:
        super().__init__(str(said), None, option)
        self.said = said


_OF_CLICK: Final = tuple(
    (re.compile(pattern), template)
    for pattern, template in (
        (r"Missing (?:argument|option|parameter) (?P<what>'.+?')\.?", note("Missing {what}")),
        (r"No such option:? '?(?P<option>[^\s']+?)'?\.?", note("No such option {option}")),
        (r"No such option:? '?(?P<option>[^\s']+?)'?\.? \(?Did you mean (?:one of: )?(?P<near>.+?)\?\)?",
         note("No such option {option}; did you mean {near}?")),
        (r"No such command '(?P<command>.+)'\.?", note("No such command {command}")),
        (r"Got unexpected extra arguments? \((?P<what>.*)\)", note("Got unexpected extra arguments ({what})")),
        (r"Option (?P<option>'.+?') requires .*", note("Option {option} requires a value")),
        (r"(?P<value>'.*?') is not one of (?P<known>.+?)\.?", note("{value} is not one of {known}")),
        (r"(?P<value>.*?) is not in the range (?P<range>.+?)\.?", note("{value} is not in the range {range}")),
    )
)  # fmt: skip
"""What click says, and the sentence for it."""


def usage_of(error: click.ClickException, *, chinese: bool) -> Note:
    """What is wrong with the usage of a command, and what to do. `chinese`: for a reader of Chinese; for others, what
    click says stays as it is."""
    context = getattr(error, "ctx", None)
    said = _said(error) if chinese else note("{words}", words=error.format_message().rstrip("."))
    if context is None:
        return said
    return note("{message}; see `{command} --help`", message=said, command=context.command_path)


def _said(error: click.ClickException) -> Note:
    if isinstance(error, Misused):
        return error.said
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter) and error.param:
        why = error.said if isinstance(error, BadValue) else _known(error.message)
        return note("Invalid value for {option}: {why}", option=error.param.get_error_hint(error.ctx), why=why)
    return _known(error.format_message())


def _known(message: str) -> Note:
    """The sentence for a message of click; for any other, the message itself."""
    for pattern, template in _OF_CLICK:
        if match := pattern.fullmatch(message.strip()):
            values: dict[str, Any] = match.groupdict()
            return Note(template.template, values)
    return note("{words}", words=message.rstrip("."))
