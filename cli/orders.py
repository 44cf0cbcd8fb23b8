"""`user` and `order`: one user or order, with its coupons."""

from __future__ import annotations

import json
from typing import Any

import click

from coupon_ledger.cli.asking import answered
from coupon_ledger.cli.lists import SHOWN, plain_lists, print_list, print_titled, with_lists
from coupon_ledger.cli.options import output_option, past_options, settings_options
from coupon_ledger.cli.output import Fit, print_frames, print_row
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.labels import figure, say
from coupon_ledger.reports.text import Row


@click.command()
@click.argument("user")
@click.option("--person", is_flag=True, help="Also show each id of the person, and the rules broken under any of them.")
@past_options
@settings_options("database")
@output_option
def user(user: str, person: bool, settings: Settings, output: str, **past: Any) -> None:
    """Show the coupons of USER and of every linked id: usable now (by the data's clock), used, expired.

    --person also lists the ids of the person, with the coupons of each, and the rules broken under any of them. The
    rule over_person_limit counts all ids together. A violation wrong_user between two ids of one person is marked as
    explained: it is no fault. CSV and NDJSON have a row per coupon.

    \b
    coupon-ledger user u-1
    coupon-ledger user u-1 --person
    coupon-ledger user u-1 --output json
    coupon-ledger user u-1 --at 2026-11-11
    """
    with answered(settings, output, "person" if person else "user", user=user, **past) as answer:
        row, lists = with_lists(answer)
        if row["attributes"]:
            row["attributes"] = json.loads(row["attributes"])
        if output == "json":
            print_row(row | plain_lists(row, lists), output)
        elif output != "table":
            print_frames([lists["coupons"]], output)
        else:
            more = len(row["linked"]) - SHOWN
            row["linked"] = row["linked"][:SHOWN]
            print_row(row, output)
            if more > 0:
                click.echo(say("{n:count} linked id{n:s} {n:are} left out; --output json shows all", n=more), err=True)
            shown = (
                "coupon_id standing state owner campaign_id coupon_type valid_until order_id discount_minor currency"
            )
            names = [name for name in shown.split() if name != "owner" or row["linked"]]
            coupons = lists["coupons"].select(names).to_dicts()
            print_titled("coupons", coupons, fit=Fit(spare=("state",)))  # `standing` says more
            for name in ("ids", "violations") if person else ():
                print_list(name, lists[name].head(SHOWN) if name == "ids" else lists[name])


@click.command()
@click.argument("order")
@past_options
@settings_options("database")
@output_option
def order(order: str, settings: Settings, output: str, **past: Any) -> None:
    """Show ORDER: its figures and discounts, the coupons that it names or that name it, and any mismatch.

    on_order: whether the coupon is now reserved for the order or used on it. named: whether the coupon is among the
    order's coupon_ids. CSV and NDJSON have a row per coupon.

    \b
    coupon-ledger order o-1
    coupon-ledger order o-1 --output json
    coupon-ledger order o-1 --at 2026-11-11T20:00:00+08:00
    """
    with answered(settings, output, "order", order=order, **past) as answer:
        row, lists = with_lists(answer)
        if output == "json":
            print_row(row | plain_lists(row, lists), output)
        elif output != "table":
            print_frames([lists["coupons"]], output)
        else:
            coupons = lists["coupons"].to_dicts()
            own = _currencies(settings, [c for c in coupons if not row["currency"] or c["min_spend_minor"]], past)
            currency = row["currency"] or (next(iter(own.values())) if len(set(own.values())) == 1 else None)
            for coupon in coupons:  # a coupon's minimum spend is in its own currency
                if coupon["min_spend_minor"] is not None:
                    least = figure("min_spend_minor", coupon["min_spend_minor"], own.get(coupon["coupon_id"]))
                    coupon["min_spend_minor"] = least
            figures = {k: v for k, v in row.items() if k != "coupon_ids" and v is not None} | {"currency": currency}
            if view().columns is None and "coupon_discount_minor" in figures:  # as the order states it
                figures = {"order_says_minor" if k == "coupon_discount_minor" else k: v for k, v in figures.items()}
            print_row({k: v for k, v in figures.items() if v is not None}, output)
            for name in ("discounts", "lines"):
                print_list(name, lists[name], currency)
            print_titled("coupons", coupons, currency)
            print_list("violations", lists["violations"])


def _currencies(settings: Settings, coupons: list[Row], past: dict[str, Any]) -> dict[str, str]:
    """The currency of each of the first `SHOWN` coupons, by coupon id, without unknown ones. `past`: the cut."""
    currencies = {}
    for row in coupons[:SHOWN]:
        if row["state"] is not None:
            with answered(settings, "quiet", "state", coupon=row["coupon_id"], **past) as answer:
                currencies[row["coupon_id"]] = answer.row()["currency"]
    return {key: currency for key, currency in currencies.items() if currency}
