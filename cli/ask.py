"""`ask`: questions in plain words, in English or Chinese; and `mcp`: the same questions for assistants."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.asking import say_as_of, together
from coupon_ledger.cli.options import output_option, settings_options
from coupon_ledger.cli.output import print_row, print_rows
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.cli.terminal import visible_data
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.labels import figure, say, text_of
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.questions.plain_words.asking import Answered
    from coupon_ledger.questions.plain_words.readings import Reading

_SHOWN: Final = 20
_HIDDEN: Final = ("starts_at", "data_clock", "open")
_NOT_UNDERSTOOD, _REFUSED = 2, 1
_COMMANDS: Final[Mapping[str, str]] = {
    "state": "state {coupon}", "history": "history {coupon}", "order": "order {order}", "user": "user {user}",
    "campaign": "campaigns show {campaign}", "campaigns": "campaigns", "alerts": "alerts list",
    "alert": "alerts show {alert}",
    "alert-stats": "alerts stats", "violations": "violations", "expiries": "expiries", "states": "coupons --count",
    "coupons": "coupons", "finance-losses": "report finance losses", "finance-budgets": "report finance budget",
    "finance-refunds": "report finance refunds", "finance-categories": "report finance categories",
    "finance-split": "report finance split", "finance-cash": "report finance cash",
    "finance-statement": "report finance statement", "finance-margin": "report finance margin",
    "customer-segments": "report segments rfm", "customer-tiers": "report segments tiers",
    "cohorts": "report cohorts retention", "repurchase": "report cohorts repurchase",
    "experiment": "experiment show {campaign}",
    "metrics": "metrics query",
}  # fmt: skip
"""The command for each question that has one. Parameters that a template does not name become options."""


@click.command()
@click.argument("question", nargs=-1, required=True)
@settings_options("database")
@output_option
def ask(question: tuple[str, ...], settings: Settings, output: str) -> None:
    """Answer QUESTION, asked in plain words, in English or Chinese. Shows what it was understood as.

    Times count from the data's clock, in the zone of --zone. Exit code 2: not understood; 1: the data cannot answer it.
    docs/plain-words.md describes what can be asked.

    \b
    coupon-ledger ask "use rate by channel last week"
    coupon-ledger ask "top 5 campaigns by discount in November"
    coupon-ledger ask 哪个活动亏钱最多
    coupon-ledger ask "state of coupon c-00000001" --output json
    """
    from coupon_ledger.questions.plain_words import asking
    from coupon_ledger.questions.plain_words.readings import Refused, Understood

    machine = output != "table"
    with together(settings) as source:
        answered = asking.ask(source, " ".join(question), view().zone, view().lang, 10_000 if machine else _SHOWN)
    outcome = answered.outcome
    if output == "json":
        print_row(asking.as_plain(answered), output)
    elif isinstance(outcome, Understood):
        _show(answered, output)
    if isinstance(outcome, Understood):
        return
    if output != "json":
        _offer(text_of(outcome.why), outcome.alternatives)
    sys.exit(_REFUSED if isinstance(outcome, Refused) else _NOT_UNDERSTOOD)


def _show(answered: Answered, output: str) -> None:
    from coupon_ledger.questions.plain_words.readings import Understood

    outcome, rows = answered.outcome, answered.rows or []
    assert isinstance(outcome, Understood)
    reading = outcome.reading
    if output != "table":
        print_rows(rows, output)
        return
    for doubt in outcome.doubts:
        click.echo(say("perhaps: {doubt}", doubt=doubt), err=True)
    click.echo(" · ".join(visible_data(text_of(chip.said)) for chip in reading.chips))
    click.echo()
    if (sentence := _sentence(reading, rows)) is not None:
        echo_wrapped(sentence)
        click.echo()
    flat = [_flat(row) for row in rows]
    if len(flat) == 1 and reading.question != "metrics":
        print_row(flat[0], output)
    else:
        print_rows(flat, output)
    if answered.more:
        click.echo(say("the first {n:count} rows; --output json has more", n=len(rows)), err=True)
    if (command := command_of(reading)) is not None:
        click.echo(say("the same: {command}", command=visible_data(command)), err=True)
    if outcome.alternatives:
        _alternatives(outcome.alternatives)
    say_as_of(answered.as_of, {})
    if any(name in row and row[name] is None for row in rows for name in ("coupon_margin_minor", "simple_roi")):
        warn("margin and ROI have no figure where no cost of goods is known; `metrics query --goods-rate` takes rates")


def _flat(row: Row) -> Row:
    """The row without columns for machines; lists of structs as their number."""
    return {
        name: len(value) if isinstance(value, list) and value and isinstance(value[0], dict) else value
        for name, value in row.items()
        if name not in _HIDDEN
    }


def _sentence(reading: Reading, rows: list[Row]) -> str | None:
    """The answer as a sentence: the only value, or the first row of a ranking."""
    if reading.question != "metrics" or not rows:
        return None
    name, first = reading.parameters["names"][0], rows[0]
    if first.get(name) is None or (len(rows) > 1 and reading.order is None):
        return None
    value = figure(name, first[name], first.get("currency"))
    slices = [str(first[d]) for d in (*reading.parameters.get("by", ()), "bucket") if first.get(d) is not None]
    if not slices:
        return say("{metric:label}: {value}", metric=name, value=value)
    return visible_data(say("{slices}: {metric:label} {value}", slices=slices, metric=name, value=value))


def _offer(why: str, alternatives: Iterable[Reading]) -> None:
    click.echo(visible_data(why), err=True)
    _alternatives(alternatives)


def _alternatives(alternatives: Iterable[Reading]) -> None:
    for one in alternatives:
        meant = " · ".join(visible_data(text_of(chip.said)) for chip in one.chips)
        command = command_of(one)
        click.echo(say("or: {reading}", reading=f"{meant}  ({visible_data(command)})" if command else meant), err=True)


def command_of(reading: Reading) -> str | None:
    """The command that asks the same; None for questions without one."""
    template = _COMMANDS.get(reading.question)
    if template is None:
        return None
    values = {name: value for name, value in reading.parameters.items() if value not in (None, [], {})}
    words = ["coupon-ledger", *(word.format(**values) for word in template.split())]
    used = {name for name in values if f"{{{name}}}" in template}
    words += values.get("names", []) if reading.question == "metrics" else []
    for name, value in values.items():
        if name not in used and name != "names":
            words += _option(name, value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    option = "--" + name.replace("_", "-")
    if isinstance(value, Mapping):
        return [part for key, of in value.items() for one in of for part in (option, f"{key}={one}")]
    if isinstance(value, datetime):
        return [option, f"{value.isoformat()}Z"]
    return [option, ",".join(value) if isinstance(value, list) else str(value)]


@click.command()
@settings_options("database")
def mcp(settings: Settings) -> None:
    """Answer the questions of assistants over MCP (Model Context Protocol) on standard input and output. Read-only.

    docs/mcp.md describes how to connect an assistant.

    \b
    coupon-ledger mcp
    coupon-ledger mcp --database coupon-ledger.duckdb --zone Asia/Shanghai
    """
    from coupon_ledger.api.assistant import serve

    serve(settings.database, view().zone)
