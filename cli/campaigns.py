"""`campaigns`: list all campaigns, or show one."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import click

from coupon_ledger.cli.asking import answered
from coupon_ledger.cli.lists import plain_lists, print_all, print_list, with_lists
from coupon_ledger.cli.options import output_option, past_options, settings_options
from coupon_ledger.cli.output import Fit, print_row, print_rows
from coupon_ledger.ledger.amounts import percent_of_bp
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note
from coupon_ledger.reports.labels import figure, in_words, label, say, text_of, word
from coupon_ledger.reports.text import Row

_CAMPAIGN_COLUMNS = (
    "campaign_id name status issued claimed used use_rate discount_minor currency violations coupons in_use"
)


@click.group(invoke_without_command=True)
@past_options
@settings_options("database")
@output_option
@click.pass_context
def campaigns(context: click.Context, /, settings: Settings, output: str, **past: Any) -> None:
    """List campaigns: how many coupons were issued, claimed, used, returned, expired, and the rates.

    Each count is the number of distinct coupons with such an event. claim_rate: coupons claimed, divided by coupons
    issued without a user. use_rate: coupons in use now, divided by coupons with an owner. violations: broken rules for
    single coupons and for the campaign (stock, limits, windows). `violations --scope cross` also lists those between
    coupons and orders. discounts: the discount of the coupons in use, per currency. discount_minor: the same as one
    amount, empty if there are several currencies.

    \b
    coupon-ledger campaigns
    coupon-ledger campaigns --at 2026-11-11
    coupon-ledger campaigns show 8
    """
    if context.invoked_subcommand is not None and any(value is not None for value in past.values()):
        raise click.UsageError(
            f"--at, --known-at and --at-position of one campaign come after `{context.invoked_subcommand}`"
        )
    if context.invoked_subcommand is None:
        print_all(settings, output, _CAMPAIGN_COLUMNS, "campaigns", **past)


@campaigns.command("show")
@click.argument("campaign")
@past_options
@settings_options("database")
@output_option
def show_campaign(campaign: str, settings: Settings, output: str, **past: Any) -> None:
    """Show CAMPAIGN: its values, stock left, claims per minute, counts per state, broken rules, rule versions with
    the changes of each, and whether its account balances.

    Broken rules of scope coupon are rules for single coupons; those of scope cross are the campaign's stock, limits and
    windows. `violations --scope cross` also lists violations between coupons and orders. stock_left: the campaign's
    quantity minus the coupons claimed or granted. CSV and NDJSON have one row for the whole campaign.

    \b
    coupon-ledger campaigns show 8
    coupon-ledger campaigns show 8 --output json
    coupon-ledger campaigns show 8 --at 2026-11-11T20:00:00+08:00
    """
    with answered(settings, output, "campaign", campaign=campaign, **past) as answer:
        row, lists = with_lists(answer)
        whole = row | plain_lists(row, lists)
        for version in whole["versions"]:
            version["changed"] = json.loads(version["changed"])
        if output != "table":
            print_row(whole, output)
            return
        print_row({k: v for k, v in _campaign_in_words(row, whole["discounts"]).items() if v is not None}, output)
        for name in ("states", "broken"):
            print_list(name, lists[name])
        versions = [{**v, "changed": in_words(_terms(v["changed"]), row["currency"])} for v in whole["versions"]]
        click.echo("\n" + label("versions"))
        print_rows(versions, output, fit=Fit(wrap="changed"))
        held = [
            {**r, "statement": text_of(Note(r["statement"], {})), "ok": "ok" if r["ok"] else "BROKEN"}
            for r in whole["conservation"]
        ]
        click.echo("\n" + label("conservation"))
        print_rows(held, output, fit=Fit(wrap="statement"))
        click.echo(say(_WITHOUT_ORDERS, campaign=campaign), err=True)


_WITHOUT_ORDERS: Final = (
    "violations: of the coupons' own events and of the campaign's rules; `coupon-ledger review {campaign} --section"
    " anomalies` shows those between coupons and orders too"
)


def _campaign_in_words(row: Row, discounts: list[Row]) -> Row:
    """The campaign's row for people: its terms in words, and each amount of `discounts` in its own currency, which may
    differ from the campaign's."""
    taken = [figure("discount_minor", d["discount_minor"], d["currency"]) for d in discounts]
    return _terms(row) | {"discount_minor": taken or row["discount_minor"]}


def _terms(terms: Row) -> Row:
    """The campaign's terms for people: fields that contain JSON are put into words, and instants given as text become
    `datetime`."""
    said = dict(terms)
    if funders := _json(said.get("funded_by")):
        said["funded_by"] = [f"{word(who)} {percent_of_bp(bp)}" for who, bp in funders.items()]
    if goods := _json(said.get("applies_to")):
        said["applies_to"] = word(goods) if isinstance(goods, str) else goods
    for name in ("claim_from", "claim_until"):
        if isinstance(value := said.get(name), str):
            said[name] = datetime.fromisoformat(value.removesuffix("Z"))
    return said


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
