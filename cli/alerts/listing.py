"""`alerts list`, `history`, `silences`, `stats`: many alerts at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.alerts.options import now, short
from coupon_ledger.cli.asking import FIRST_ROWS, answered, rows_of
from coupon_ledger.cli.lists import SHOWN
from coupon_ledger.cli.options import instant_option, limit_option, output_option, past_options, settings_options
from coupon_ledger.cli.output import Fit, limited, print_rows
from coupon_ledger.cli.tables import cut, echo_wrapped
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.questions.alerts.parameters import (
    STATES,
    AlertFilter,
    AlertGroups,
    AlertHistory,
    AlertStats,
    Silences,
)
from coupon_ledger.questions.parameters import about
from coupon_ledger.reports.alerts import key_in_words
from coupon_ledger.reports.labels import label, say, shown, word
from coupon_ledger.reports.text import Row, middle_cut

if TYPE_CHECKING:
    from datetime import datetime

_SEVERITIES: Final = ("critical", "high", "warning", "info")
_SHORT: Final = ("case",)
_CODES: Final = ("severity", "status", "code", "coupon_type")
"""Groups whose names are ids, and those whose names are codes."""
_KEY: Final = 26
"""So many columns of a key are shown in lists, so that they fit a terminal of 100."""
_MINUTE: Final = len("2026-11-11 20:00")
_VALUE: Final = 14
"""So many of the value of a key that has one name; of several, fewer each."""
_LISTED: Final = "alert_id severity status rule key opened_at case_id assignee money_minor measured".split()


@click.command("list")
@click.option("--state", type=click.Choice(STATES), default="open", show_default=True, help=about(AlertFilter, "state"))
@click.option("--rule", help=about(AlertFilter, "rule"))
@click.option("--severity", type=click.Choice(_SEVERITIES), help=about(AlertFilter, "severity"))
@click.option("--owner", "assignee", help=about(AlertFilter, "assignee"))
@click.option("--key", metavar="VALUE|NAME=VALUE", help=about(AlertFilter, "key"))
@instant_option("--since", about(AlertFilter, "since"))
@instant_option("--until", about(AlertFilter, "until"))
@click.option("--text", help=about(AlertFilter, "text"))
@click.option("--by", metavar="NAME", help=f"Count instead of listing. {about(AlertGroups, 'by')}")
@past_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
def list_alerts(by: str | None, limit: int | None, settings: Settings, output: str, **filters: Any) -> None:
    """List alerts: the most severe first, then those with the most money at stake. Without --state, only open ones.

    Ids are shortened in tables. Every command takes as much of an id as no other alert's id begins with. Alerts about
    the same coupons, users or devices at the same time are one case, which has the id of its first alert.

    \b
    coupon-ledger alerts list
    coupon-ledger alerts list --severity high --owner mei
    coupon-ledger alerts list --state all --key campaign=8 --since 7d
    coupon-ledger alerts list --by rule --state all
    coupon-ledger alerts list --by case
    coupon-ledger alerts list --at 2026-11-11T20:00:00+08:00
    """
    filters |= _judged_now(filters)
    if by is not None:
        with answered(settings, output, "alert-groups", by=by, zone=view().zone, **filters) as answer:
            groups = list(rows_of(answer))[:limit]
            if output == "table":
                print_rows((_group_for_people(group, by) for group in groups), output)
            else:
                print_rows(groups, output)
        return
    at_most = limit or (SHOWN if output == "table" else None)
    with answered(settings, output, "alerts", limit=at_most and at_most + 1, **filters) as answer:
        rows, more = limited(rows_of(answer), at_most) if at_most else (list(rows_of(answer)), False)
        if output != "table":
            print_rows(({**row, "key": json.loads(row["key"])} for row in rows), output)
            return
        if not rows and filters["state"] == "open":
            click.echo(say("no alert is open; --state all also shows closed ones"))
        elif not rows and (filters["since"] or filters["until"]):
            click.echo(
                say("no alert matches; --since and --until go by the data's clock, which is not today's in old data")
            )
        else:
            print_rows(map(_for_people, rows), output, _LISTED, fit=Fit(spare=("measured", "money_minor", "assignee")))
    if more:
        click.echo(say(FIRST_ROWS, n=at_most), err=True)


def _judged_now(filters: dict[str, Any]) -> dict[str, Any]:
    """At which instant silences and expected times are judged: now, unless the question is about the past."""
    past = any(filters.get(name) is not None for name in ("at", "known_at", "positions"))
    return {} if past else {"now": now()}


def _for_people(row: Row) -> Row:
    key = json.loads(row["key"])
    case = short(row["case_id"]) if row["case_size"] > 1 else None
    row = {**to_the_second(row), "alert_id": short(row["alert_id"]), "case_id": case}
    if view().wide:
        return {**row, "key": key_in_words(key)}
    row["opened_at"] = shown("opened_at", row)[:_MINUTE]
    room = _VALUE if len(key) == 1 else _VALUE // 2 + 2
    named = key_in_words({name: middle_cut(value, room) for name, value in key.items()})
    return {**row, "key": cut(named, _KEY)}


def _group_for_people(row: Row, by: str) -> Row:
    group = row["grouped_by"]
    if group is not None and by in _SHORT:
        group = short(group)
    elif group is not None and by in _CODES:
        group = word(group)
    names = "grouped_by alerts open_alerts severity rules money_minor currency first_at last_at".split()
    shown = {
        **to_the_second(row),
        "grouped_by": group,
        "rules": row["rules"] if view().wide else cut(row["rules"], _KEY),
    }
    return {name: shown[name] for name in names}


@click.command()
@click.argument("alert", required=False)
@click.option("--type", "event_type", help=about(AlertHistory, "type"))
@click.option("--by", "operator", help=about(AlertHistory, "operator"))
@instant_option("--since", about(AlertHistory, "since"))
@instant_option("--until", about(AlertHistory, "until"))
@past_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
def history(
    event_type: str | None,
    limit: int | None,
    settings: Settings,
    output: str,
    **filters: Any,
) -> None:
    """Show what happened to ALERT, or to all alerts and silences: who did what, which messages were sent, and why
    others were not. Only the last events are shown, as many as --limit says.

    \b
    coupon-ledger alerts history 3f9a01c2
    coupon-ledger alerts history --type resolved --since 7d
    coupon-ledger alerts history --by mei --output csv
    """
    if event_type is not None:
        _check_type(event_type)
    at_most = limit or (SHOWN if output == "table" else None)
    asked = {"type": event_type, "limit": at_most and at_most + 1, **filters}
    with answered(settings, output, "alert-history", **asked) as answer:
        rows = list(rows_of(answer))
        if output != "table":
            kept = rows[-at_most:] if at_most else rows
            print_rows(({**row, "details": row["details"] and json.loads(row["details"])} for row in kept), output)
            return
        more = at_most is not None and len(rows) > at_most
        if more:
            rows = rows[-at_most:] if at_most else rows
            click.echo(say("earlier events are left out; --limit shows more"), err=True)
        one = filters["alert"] is not None
        print_rows([_event_for_people(row, one) for row in rows], output, fit=Fit(wrap="data", keep="data"))


def _check_type(event_type: str) -> None:
    from coupon_ledger.ledger.alert_events import TYPES
    from coupon_ledger.ledger.errors import alike

    if event_type not in TYPES:
        near = alike([event_type], TYPES)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(TYPES)}"
        raise click.UsageError(f"--type {event_type}: no event of an alert; {meant}")


def _event_for_people(row: Row, one: bool) -> Row:
    about_ = row["alert_id"] or row["silence_id"] or ""
    named = {} if one else {"about": short(about_), "rule": row["rule"]}
    return {"occurred_at": row["occurred_at"].replace(microsecond=0), **named, "type": row["type"],
            "operator": row["operator"], "data": in_words_of(row)}  # fmt: skip


_SAID: Final = (
    *("action", "assignee", "until", "reason", "cause", "outcome", "saved_minor", "measured", "money_minor"),
    *("message_kind", "channel", "note"),
)


def in_words_of(row: Row) -> str | None:
    """What an event of an alert says, on one line."""
    said = {name: row[name] for name in _SAID}
    if row["type"] == "missed":
        counts = row["outcome"] == "true"
        key = None if row["key"] is None else key_in_words(json.loads(row["key"]))
        said = {"key": key, "since": row["data_at"], **said, "outcome": None if counts else row["outcome"]}
    values = to_the_second({name: value for name, value in said.items() if value is not None})
    if values.get("reason") == "operator":
        del values["reason"]  # who it was is a column of its own
    currency = {"currency": row["currency"]}
    parts = [
        str(value) if name == "note" else f"{label(name)} {shown(name, {name: value, **currency})}"
        for name, value in values.items()
    ]
    return ("；" if view().chinese else "; ").join(parts) or None


@click.command()
@click.option("--all", "ended", is_flag=True, help=about(Silences, "ended"))
@past_options
@settings_options("database")
@output_option
def silences(ended: bool, settings: Settings, output: str, **past: Any) -> None:
    """List the silences: which alerts they hold back, who made them and why, and how many open alerts match now.

    \b
    coupon-ledger alerts silences
    coupon-ledger alerts silences --all --output json
    """
    with answered(settings, output, "alert-silences", ended=ended, **past, **_judged_now(past)) as answer:
        rows = list(rows_of(answer))
        if output == "table" and not rows:
            click.echo(say("nothing is silenced") if not ended else say("nothing was ever silenced"))
            return
        if output != "table":
            print_rows(rows, output)
            return
        columns = "silence_id matchers until alerts operator note" + (" ended_at ended_by" if ended else "")
        print_rows(map(to_the_second, rows), output, columns.split(), fit=Fit(wrap="matchers"))


def to_the_second(row: Row) -> Row:
    return {name: value.replace(microsecond=0) if hasattr(value, "microsecond") else value
            for name, value in row.items()}  # fmt: skip


@click.command()
@click.option("--rule", help=about(AlertStats, "rule"))
@instant_option("--since", about(AlertStats, "since"))
@instant_option("--until", about(AlertStats, "until"))
@past_options
@settings_options("database")
@output_option
def stats(
    rule: str | None, since: datetime | None, until: datetime | None, settings: Settings, output: str, **past: Any
) -> None:
    """Show how good each rule was: how often it fired, whether it was right, how soon, and the money.

    Precision is the share of right alerts among those that operators judged with `alerts resolve`. Recall: of what was
    really wrong, the share that the rule told, as far as `alerts missed` reports the rest. Delays count from the moment
    at which the log recorded the event that opened the alert. Caught: the money at stake in alerts that were right;
    saved: as operators say. The trend is against the period before, which is as long. A rule of which less than half of
    at least three judged alerts were right is named.

    \b
    coupon-ledger alerts stats
    coupon-ledger alerts stats --since 2026-11-01 --until 2026-12-01
    coupon-ledger alerts stats --rule device_farm --output json
    """
    asked = {"rule": rule, "since": since, "until": until, **past, **_judged_now(past)}
    with answered(settings, output, "alert-stats", **asked) as answer:
        rows = list(rows_of(answer))
        if output != "table":
            print_rows(rows, output)
            return
        if not rows:
            click.echo(say("no alert fired in this period, and nothing was reported as missed"))
            return
        period = to_the_second({name: rows[0][name] for name in ("since", "until")})
        click.echo(say("alerts opened from {since:instant} until {until:instant}", **period))
        print_rows([_judgements(row) for row in rows], output)
        click.echo("")
        print_rows([_delays_and_money(row) for row in rows], output)
        for sentence in _poor(rows):
            echo_wrapped(sentence)


def _judgements(row: Row) -> Row:
    names = (
        "rule alerts true_alerts false_alerts unknown_alerts unjudged_alerts open_alerts missed_alerts precision_rate"
        " recall_rate"
    ).split()
    return {name: row[name] for name in names}


def _delays_and_money(row: Row) -> Row:
    names = (
        "rule fired_p50_seconds fired_p90_seconds taken_p50_seconds taken_p90_seconds alerts_per_day alerts_before"
        " precision_before_rate caught_minor missed_minor saved_minor currency"
    )
    return {name: row[name] for name in names.split()}


def _poor(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        if row["poor"]:
            judged = row["true_alerts"] + row["false_alerts"]
            yield say(
                "rule {rule} is poor: {right:count} of {judged:count} judged alerts were right; raise its threshold, or"
                " narrow what it counts", rule=row["rule"], right=row["true_alerts"], judged=judged,
            )  # fmt: skip
