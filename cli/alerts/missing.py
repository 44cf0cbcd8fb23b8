"""`alerts missed`: report what a rule should have told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from coupon_ledger.cli.alerts.handling import desk, minor_units, say_what_happened
from coupon_ledger.cli.alerts.options import by_options, now, operator_name
from coupon_ledger.cli.asking import answered, rows_of
from coupon_ledger.cli.options import LOG, instant_option, output_option, settings_options
from coupon_ledger.cli.usage import Misused
from coupon_ledger.ledger.errors import UnknownRule, alike
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.alerts import key_in_words
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from coupon_ledger.ledger.alert_state import Alert


@click.command()
@click.argument("rule")
@instant_option("--from", "When it began, by the data's clock.")
@instant_option("--to", "When it was over. [default: when it began]")
@click.option("--key", "keys", multiple=True, metavar="NAME=VALUE", help="What it was about (repeatable).")
@click.option("--money", nargs=2, metavar="AMOUNT CURRENCY", help="The money that was lost, such as 120.50 CNY.")
@click.option("--withdraw", is_flag=True, help="The report of it was wrong; it counts no longer.")
@by_options
@settings_options(*LOG, "database")
@output_option
def missed(
    rule: str,
    keys: tuple[str, ...],
    money: tuple[str, str] | None,
    withdraw: bool,
    operator: str | None,
    why: str | None,
    settings: Settings,
    output: str,
    **window: datetime | None,
) -> None:
    """Report what RULE should have told and did not: for example, what a chargeback or a complaint shows later.

    `alerts stats` counts the recall of the rule against these reports. A report with the same key and start replaces
    the one before. It is refused if the rule raised an alert about it.

    \b
    coupon-ledger alerts missed device_farm --from 2026-11-11T20:00:00+08:00 --key device_id=d-77 --money 340 CNY
    coupon-ledger alerts missed mass_claims --from 2026-11-11 --to 2026-11-12 --why "complaint 4711"
    coupon-ledger alerts missed device_farm --from 2026-11-11T20:00:00+08:00 --key device_id=d-77 --withdraw
    coupon-ledger alerts history --type missed
    """
    from coupon_ledger.ledger.alert_missed import ReportMissed

    since, until = window["from"], window["to"]
    if since is None:
        raise Misused(note("--from is needed: when did that begin which {rule} missed?", rule=rule))
    who, labels = operator_name(operator), _labels(keys)
    minor, currency = (None, None) if money is None else minor_units("--money", *money)
    _check_rule(rule, settings)
    with desk(settings) as here:
        mine = (alert for alert in here.book.alerts.values() if alert.rule == rule)
        _check_names(labels, [alert for alert in mine if alert.fired_at is not None])
        events = here.do(
            ReportMissed(
                rule=rule,
                labels=labels,
                since=since,
                until=until or since,
                operator=who,
                now=now(),
                note=why,
                money_minor=minor,
                currency=currency,
                withdraw=withdraw,
            )
        )
    about: dict[str, Any] = {"rule": rule, "key": key_in_words(labels) or "–", "at": since}
    if withdraw:
        said = say("the report of what {rule} missed ({key}) from {at:instant} on counts no longer", **about)
    else:
        said = say("reported as missed by {rule} ({key}), from {at:instant} on; `coupon-ledger alerts stats --rule"
                   " {rule}` counts it", **about)  # fmt: skip
    say_what_happened(events, output, said)


def _labels(keys: Iterable[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for name, value in map(_pair, keys):
        if labels.setdefault(name, value) != value:
            raise Misused(Note("--key {name} is given twice; report each of them by itself", {"name": name}))
    return labels


def _pair(key: str) -> tuple[str, str]:
    name, equals, value = key.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise Misused(Note("--key {key}: write NAME=VALUE, such as device_id=d-77", {"key": key}))
    return name.strip(), value.strip()


def _check_rule(rule: str, settings: Settings) -> None:
    """Raises `UnknownRule` if no such rule is or was in force."""
    with answered(settings, "", "alert-rules", versions=True) as answer:
        known = {row["rule"] for row in rows_of(answer)}
    if rule not in known:
        near = alike([rule], known)
        if near:
            raise UnknownRule(note("no alert rule {name}; did you mean {near}?", name=rule, near=near))
        raise UnknownRule(note("no alert rule {name}; `coupon-ledger alerts rules list` shows them", name=rule))


def _check_names(labels: Iterable[str], alerts: Iterable[Alert]) -> None:
    """Raises `Misused` if the rule's alerts have other names in their keys, so that the report could not be compared
    with them."""
    names = {name for alert in alerts for name in alert.labels}
    unknown = sorted(set(labels) - names) if names else []
    if unknown:
        said = "--key {name}: alerts of this rule have no such name; they have {names}"
        raise Misused(Note(said, {"name": unknown[0], "names": sorted(names)}))
