"""`alerts`: what looks wrong, told in time."""

from __future__ import annotations

import click

from coupon_ledger.cli.alerts.acting import act
from coupon_ledger.cli.alerts.backtest import backtest
from coupon_ledger.cli.alerts.handling import ack, assign, note, resolve, silence, unsilence
from coupon_ledger.cli.alerts.listing import history, list_alerts, silences, stats
from coupon_ledger.cli.alerts.missing import missed
from coupon_ledger.cli.alerts.rules import rules
from coupon_ledger.cli.alerts.showing import show
from coupon_ledger.cli.alerts.testing import test


@click.group()
def alerts() -> None:
    """What looks wrong, for whom, and what to do (告警): alerts, what people do with them, and their rules.

    docs/alert-rules.md explains the file of rules. Ids may be shortened, as long as no other alert's id begins so.

    \b
    coupon-ledger alerts list
    coupon-ledger alerts show 3f9a01c2
    coupon-ledger alerts ack 3f9a01c2 --for 2h
    coupon-ledger alerts resolve 3f9a01c2 --true
    coupon-ledger alerts test tests.yaml
    coupon-ledger alerts backtest --rules rules.yaml --from 2026-11-10 --to 2026-11-12
    """


for command in (
    list_alerts,
    show,
    ack,
    note,
    assign,
    resolve,
    missed,
    act,
    silence,
    unsilence,
    silences,
    history,
    stats,
    rules,
    test,
    backtest,
):
    alerts.add_command(command)
