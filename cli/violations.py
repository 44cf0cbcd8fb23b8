"""`violations`: list or count broken rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from coupon_ledger.cli.lists import SHOWN, print_all, print_first
from coupon_ledger.cli.options import instant_option, limit_option, output_option, past_options, settings_options
from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.questions.parameters import about
from coupon_ledger.questions.states.parameters import Violations


@click.command()
@click.option("--coupon", "coupon_id", help=about(Violations, "coupon"))
@click.option(
    "--code",
    "violation",
    callback=lambda _ctx, option, value: _rule(value, option),
    help=about(Violations, "violation"),
)
@click.option(
    "--scope",
    type=click.Choice(["coupon", "cross"]),
    help=about(Violations, "scope"),
)
@instant_option("--since", about(Violations, "since"))
@instant_option("--until", about(Violations, "until"))
@click.option("--count", is_flag=True, help="Count each kind instead of listing them.")
@past_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
def violations(
    coupon_id: str | None,
    violation: str | None,
    scope: str | None,
    since: datetime | None,
    until: datetime | None,
    count: bool,
    limit: int | None,
    settings: Settings,
    output: str,
    **past: Any,
) -> None:
    """List broken rules by time: which event broke which rule, and the coupon's state before the event.

    Scope coupon: rules about one coupon's own events. Scope cross: rules about a campaign's stock, limits and windows,
    and contradictions between coupons and orders (counterpart: the other side). Superseded: an event of a sweep
    (`expire`) that a fact recorded later overrides. It is not a fault.

    \b
    coupon-ledger violations --count
    coupon-ledger violations --scope cross
    coupon-ledger violations --scope coupon --known-at 2026-11-12
    coupon-ledger violations --code used_when_used --output csv
    """
    filters = {"coupon": coupon_id, "violation": violation, "scope": scope, "since": since, "until": until, **past}
    if count:
        print_all(settings, output, None, "violation-counts", **filters)
        return
    shown = "occurred_at key event_id violation state scope counterpart explained provisional superseded".split()
    print_first(settings, output, limit, shown, "violations", **filters)


def _rule(value: str | None, option: click.Parameter) -> str | None:
    """A click callback: return the rule's code. Raises `click.BadParameter` for an unknown code, since an empty list
    would look as if nothing were wrong."""
    from coupon_ledger.ledger.rules import VIOLATIONS

    if value is None or value in VIOLATIONS:
        return value
    like = alike([value], VIOLATIONS)
    meant = f"did you mean {' or '.join(like)}? " if like else ""
    raise click.BadParameter(
        f"{value!r} is no rule; {meant}`coupon-ledger violations --count` lists the rules that were broken",
        None,
        option,
    )
