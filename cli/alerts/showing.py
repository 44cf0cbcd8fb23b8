"""`alerts show`: one alert, with everything behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.alerts.listing import in_words_of, to_the_second
from coupon_ledger.cli.alerts.options import now, short
from coupon_ledger.cli.asking import answered
from coupon_ledger.cli.lists import plain_lists, print_titled, with_lists
from coupon_ledger.cli.options import output_option, past_options, settings_options
from coupon_ledger.cli.output import LIKE_ANY, Fit, print_frames, print_row
from coupon_ledger.cli.tables import echo_wrapped, print_fields
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.alerts import (
    description,
    key_in_words,
    key_of,
    unnamed,
    what_happened,
    what_to_do,
    what_was_done,
)
from coupon_ledger.reports.labels import figure, label, label_of_texts, say, word
from coupon_ledger.reports.text import Row, printable
from coupon_ledger.reports.view import View, showing

if TYPE_CHECKING:
    import polars as pl

_SHOWN: Final = 10
_ABOVE: Final = frozenset(
    "value threshold peak times version window_s position count distinct coupons users orders money_minor"
    " currency seen file said".split()
)
"""Names in the evidence of what is shown anyway: as the alert's own values, or as what is behind it."""
_SAID_ABOVE: Final = frozenset({"failed", "error", "said"})
"""Names in the details of what the first sentence says."""
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_MESSAGES: Final = ("notified", "not_notified")
_COLUMNS: Final = {
    "coupon_list": "coupon_id first_at state owner order_id discount_minor promised_minor currency campaign_id",
    "user_list": "user_id events coupons devices ips first_at last_at",
    "order_list": "order_id coupons user_id net_minor refunded_minor currency paid_at cancelled_at",
}


@click.command()
@click.argument("alert")
@click.option("--limit", type=click.IntRange(min=1, max=100_000), help="At most this many coupons, users and orders."
              " [default: 10 in a table, 100 in JSON]")  # fmt: skip
@past_options
@settings_options("database")
@output_option
def show(alert: str, limit: int | None, settings: Settings, output: str, **past: Any) -> None:
    """Show ALERT: what happened in two sentences, the other alerts of its case, the evidence, the coupons, orders and
    users behind it, the money at stake, the same slice before, what was done and what is left to do, its life so far,
    which messages were sent, and why others were not.

    With --at or --known-at, the alert as it was then. CSV and NDJSON have a row per coupon behind it.

    \b
    coupon-ledger alerts show 3f9a01c2
    coupon-ledger alerts show 3f9a01c2 --output json
    coupon-ledger alerts show 3f9a01c2 --at 2026-11-11T20:00:00+08:00
    """
    looking_back = any(value is not None for value in past.values())
    asked: dict[str, Any] = {} if looking_back else {"now": now()}
    if limit is not None or output == "table":
        asked["limit"] = limit or _SHOWN
    with answered(settings, output, "alert", alert=alert, **past, **asked) as answer:
        row, lists = with_lists(answer)
        if output == "json":
            print_row(_for_machines(row, lists), output)
        elif output != "table":
            print_frames([lists["coupon_list"]], output)
        else:
            _print(row, lists)


def _for_machines(row: Row, lists: dict[str, pl.DataFrame]) -> Row:
    stakes = lists["stakes"].to_dicts()
    said = {}
    for lang in ("en", "zh"):
        with showing(View(lang, "UTC")):
            said[lang] = " ".join(what_happened(row, stakes))
    opened = {name: row[name] and json.loads(row[name]) for name in ("key", "evidence", "content")}
    return {"what_happened": said, **row, **opened, **plain_lists(row, lists)}


def _print(row: Row, lists: dict[str, pl.DataFrame]) -> None:
    stakes = lists["stakes"].to_dicts()
    for sentence in what_happened(row, stakes):
        echo_wrapped(sentence)
    more = description(row, stakes)
    for aside in filter(None, (more, unnamed(row))):
        echo_wrapped(aside)
    click.echo("")
    print_fields(_fields(row))
    tables = {name: table.to_dicts() for name, table in lists.items()}
    _print_case(row, tables["case_alerts"])
    _print_evidence(row)
    print_titled("states", tables["states"])
    print_titled("stakes", stakes)
    for name, counted in (("coupon_list", "coupons"), ("user_list", "users"), ("order_list", "orders")):
        _print_first(name, _only(tables[name], _COLUMNS[name]), row[counted], row["currency"])
    print_titled("periods", _only(tables["periods"], "period since until windows events mean_events most_events"))
    life = tables["life"]
    _print_sentences("what was done", what_was_done(life))
    steps = what_to_do(row, life, tables["states"])
    _print_sentences("what to do", steps, otherwise=say("nothing is left to do"))
    done = [_event(event) for event in life if event["type"] not in _MESSAGES]
    print_titled("life", done, fit=Fit(wrap="data", keep="data"))
    _print_messages([event for event in life if event["type"] in _MESSAGES])


def _print_case(row: Row, others: list[Row]) -> None:
    named = [{**one, "alert_id": short(one["alert_id"]), "key": key_in_words(key_of(one))} for one in others]
    shown = "alert_id severity status rule key opened_at shared_coupons shared_users shared_devices"
    spare = ("shared_devices", "shared_coupons")
    _print_first("case_alerts", _only(named, shown), row["case_size"] - 1, None, Fit(spare=spare))


def _only(rows: list[Row], names: str) -> list[Row]:
    return [to_the_second({name: row[name] for name in names.split()}) for row in rows]


def _fields(row: Row) -> Row:
    """The alert's own values, those that say something."""
    names = (
        "alert_id severity status rule key measured threshold peak times_true money_minor opened_at fired_at"
        " last_true_at raised_at assignee acknowledged_by acknowledged_at expected_at escalated_at silence_id"
        " resolved_at resolved_by outcome saved_minor"
    )
    values = {name: _plain(name, row) for name in names.split()}
    if row["money_minor"] is not None or row["saved_minor"] is not None:
        for name in ("money_minor", "saved_minor"):
            values[name] = None if row[name] is None else figure(name, row[name], row["currency"])
    return {name: value for name, value in values.items() if value is not None}


def _plain(name: str, row: Row) -> Any:
    return key_in_words(key_of(row)) if name == "key" else to_the_second({name: row[name]})[name]


def _print_evidence(row: Row) -> None:
    """The evidence of the moment that the alert itself keeps, without what is shown above: values on lines, the first
    rows as a table."""
    evidence = {name: value for name, value in json.loads(row["evidence"]).items() if name not in _ABOVE}
    found = evidence.pop("details", None)
    if isinstance(found, dict):
        evidence |= {name: value for name, value in found.items() if name not in _SAID_ABOVE}
    tables = {name: value for name, value in evidence.items() if _are_rows(value)}
    values = {name: _evident(value) for name, value in evidence.items() if name not in tables}
    values = {name: value for name, value in values.items() if value is not None}
    if values or tables:
        click.echo("\n" + label_of_texts("evidence"))
    if values:
        print_fields(values)
    for name, rows in tables.items():
        part = name.removeprefix("by_")
        rows = [{part: one[part], **one} if part in one else one for one in rows]
        print_titled(name, [_with_same(rows, one) for one in rows[: _SHOWN + 1]])


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _evident(value: Any) -> Any:
    """A value of the evidence for people: an instant in the reader's zone, to the second."""
    if isinstance(value, dict):
        return figure_of(value) if value else None
    if isinstance(value, list):
        return _pairs(value) if value else None
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        return datetime.fromisoformat(value.removesuffix("Z")).replace(microsecond=0)
    return printable(value) if isinstance(value, str) else value


def figure_of(values: Mapping[str, Any]) -> str:
    from coupon_ledger.reports.labels import in_words

    return in_words(dict(values))


def _pairs(value: list[Any]) -> str:
    said = [_pair(one) if isinstance(one, list) else str(one) for one in value[:_SHOWN]]
    return ", ".join(said) + (" …" if len(value) > _SHOWN else "")


def _pair(value: list[Any]) -> str:
    """A name and its number; in front, what the name is of, if there are three."""
    match value:
        case [name, number]:
            return f"{name} ({number})"
        case [field, name, number]:
            return f"{label(str(field))} {name} ({number})"
    return ", ".join(map(str, value))


def _with_same(rows: list[Row], row: Row) -> Row:
    """The row with the columns of all rows, but for positions in the log."""
    names = dict.fromkeys(name for one in rows for name in one if not name.startswith("log_"))
    return {name: _evident(row.get(name)) for name in names}


def _print_first(name: str, rows: list[Row], count: int | None, currency: str | None, fit: Fit = LIKE_ANY) -> None:
    print_titled(name, rows, currency, fit)
    if count is not None and count > len(rows):
        click.echo(say("{n:count} of {all:count}; --limit shows more", n=len(rows), all=count))


def _print_sentences(title: str, sentences: Iterator[str], *, otherwise: str | None = None) -> None:
    """A numbered list below its title. `otherwise`: what is said if there is nothing to list; None: nothing."""
    listed = [f"{number}. {sentence}" for number, sentence in enumerate(sentences, start=1)]
    if listed or otherwise is not None:
        click.echo("\n" + say(title))
    for sentence in listed or filter(None, [otherwise]):
        echo_wrapped(sentence, indent=3 if listed else 0)


def _event(event: Row) -> Row:
    return {"occurred_at": event["occurred_at"].replace(microsecond=0), "type": event["type"],
            "operator": event["operator"], "data": in_words_of(event)}  # fmt: skip


def _print_messages(events: list[Row]) -> None:
    sent = [event for event in events if event["type"] == "notified"]
    held = [event for event in events if event["type"] == "not_notified"]
    click.echo("\n" + say("messages"))
    if not events:
        click.echo(say("no message was sent, and none was held back"))
    for sentence in (*_sent(sent), *_held(held)):
        echo_wrapped(sentence, indent=2)


def _sent(events: list[Row]) -> Iterator[str]:
    for event in events:
        yield say("{at:instant}: {kind:word} sent to {channel}", at=event["occurred_at"].replace(microsecond=0),
                  kind=event["message_kind"] or "notified", channel=event["channel"])  # fmt: skip


def _held(events: list[Row]) -> Iterator[str]:
    for event in events:
        at = event["occurred_at"].replace(microsecond=0)
        if event["cause"]:
            yield say("{at:instant}: not sent, {reason:word} ({cause})", at=at, reason=event["reason"] or "unknown",
                      cause=word(event["cause"]))  # fmt: skip
        else:
            yield say("{at:instant}: not sent, {reason:word}", at=at, reason=event["reason"] or "unknown")
