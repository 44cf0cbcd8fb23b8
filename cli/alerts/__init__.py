"""`alerts`: what looks wrong, told in time."""

from __future__ import annotations

import click

from coupon_ledger.cli.alerts.backtest import backtest
from coupon_ledger.cli.alerts.rules import rules


@click.group()
def alerts() -> None:
    """Alert rules: what looks wrong, for whom, and what to do (告警).

    docs/alert-rules.md explains the file of rules.

    \b
    coupon-ledger alerts rules list
    coupon-ledger alerts backtest --rules rules.yaml --from 2026-11-10 --to 2026-11-12
    """


alerts.add_command(backtest)
alerts.add_command(rules)
