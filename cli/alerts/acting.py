"""`alerts act`: take the action of an alert's rule, dry-run first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from coupon_ledger.cli.alerts.handling import desk
from coupon_ledger.cli.alerts.options import by_options, now, operator_name, short
from coupon_ledger.cli.lists import print_titled
from coupon_ledger.cli.options import LOG, output_option, settings_options
from coupon_ledger.cli.output import print_row
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.cli.usage import Misused
from coupon_ledger.cli.view import view
from coupon_ledger.consumers.alerts import actions
from coupon_ledger.consumers.alerts.actions import Done, Plan
from coupon_ledger.ledger.rules import REVOCABLE
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import note
from coupon_ledger.reports.alerts import ACTIONS, key_in_words, key_of, unnamed
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.api.alert_actions import Call, Situation
    from coupon_ledger.consumers.alerts.desk import Desk
    from coupon_ledger.ledger.alert_state import Alert

_ALL: Final = 100_000
_SHOWN: Final = 10


@click.command()
@click.argument("alert")
@click.option("--do", "action", type=click.Choice(tuple(ACTIONS)), help="Which action. [default: that of the rule]")
@click.option("--campaign", help="For unpublish_campaign: which campaign. [default: the one that the alert is about]")
@click.option("--channel", help="For webhook: which channel of the rules file. [default: that of the rule]")
@click.option("--dry-run", is_flag=True, help="Only show what the action would do. This is the default.")
@click.option("--yes", is_flag=True, help="Take the action. --why is needed.")
@by_options
@settings_options(*LOG, "database", "alert-rules")
@output_option
def act(
    alert: str,
    action: str | None,
    campaign: str | None,
    channel: str | None,
    dry_run: bool,
    yes: bool,
    operator: str | None,
    why: str | None,
    settings: Settings,
    output: str,
) -> None:
    """Show what the action of ALERT's rule would do; with --yes, take it.

    unpublish_campaign: nobody can claim its coupons any more; coupons that people have stay usable. revoke_coupons: the
    coupons behind the alert that can still be used become unusable; used ones stay as they are. webhook: a signed call.

    The events that an action appends have ids that follow from the alert, so taking it again changes nothing. The
    action is recorded in the alert's life, with the operator and the reason.

    \b
    coupon-ledger alerts act 3f9a01c2
    coupon-ledger alerts act 3f9a01c2 --yes --why "one device, 40 accounts"
    coupon-ledger alerts act 3f9a01c2 --do unpublish_campaign --campaign 8
    """
    if dry_run and yes:
        raise Misused(note("--dry-run and --yes exclude each other; leave one out"))
    if yes and (not why or not why.strip()):
        raise Misused(note("--why is needed: in a few words, for those who wonder later"))
    from coupon_ledger.api import alert_actions
    from coupon_ledger.api.client import asking

    who = operator_name(operator)
    with desk(settings) as here:
        known = here.alert(alert)
        with asking(settings.database) as source:
            done = Done(now(), who, why or "")
            made = alert_actions.plan_of(here, known, action, campaign, channel, done, source)
        if isinstance(made, alert_actions.Call):
            _call(here, made, settings, yes, output)
            return
        situation, plan, done = made
        if output != "table":
            print_row(alert_actions.for_machines(plan, yes), output)
        else:
            _show(situation, plan)
        missing = unnamed(situation.row)
        if missing is not None:
            warn("{words}", words=missing)
        first = alert_actions.take(here, known, plan, done) if yes else None
        if output == "table":
            for sentence in _sentences(known, plan, yes):
                echo_wrapped(sentence)
        if first is not None:
            warn("{who} took the same action at {at:instant}, before you; the events bear that name and reason",
                 who=first.operator, at=first.at.replace(microsecond=0))  # fmt: skip
        if situation.behind is not None:
            warn("the data's clock stands at {clock:instant}; an action happens now, so it moves the clock on by"
                 " {days:count} day{days:s}: coupons expire, and rules take the time between for silence",
                 clock=done.at - situation.behind, days=situation.behind.days)  # fmt: skip


# ── What it would do ─────────────────────────────────────────────────────────────────────────────────────────


def _show(situation: Situation, plan: Plan) -> None:
    echo_wrapped(say("{action}, for {key}", action=ACTIONS[plan.action], key=key_in_words(key_of(situation.row))))
    if plan.action == "unpublish_campaign":
        _show_campaign(situation, plan)
        return
    by_state = [
        {"state": state, "coupons": count, "would_become": "revoked" if state in REVOCABLE else state}
        for state, count in _counts(situation.coupons).items()
    ]
    print_titled("states", by_state)
    if plan.coupons:
        print_titled("stakes", actions.promised(plan.coupons))
        names = "coupon_id state owner campaign_id promised_minor currency".split()
        listed = [{name: coupon[name] for name in names} for coupon in plan.coupons[:_SHOWN]]
        print_titled("coupon_list", listed)
        if len(plan.coupons) > _SHOWN:
            click.echo(say("{n:count} of {all:count}; --output json shows all", n=_SHOWN, all=len(plan.coupons)))


def _counts(coupons: list[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for coupon in coupons:
        state = coupon["state"] or "none"
        counts[state] = counts.get(state, 0) + 1
    return counts


def _show_campaign(situation: Situation, plan: Plan) -> None:
    assert situation.campaign is not None
    names = "campaign_id name status stock_left last_hour_claims_per_minute budget_minor discount_minor currency"
    values = {name: situation.campaign[name] for name in names.split()}
    print_titled("campaign", [values])
    print_titled("states", list(situation.states))
    if plan.fresh:
        echo_wrapped(say("nobody could claim its coupons any more; the coupons that people have stay usable"))


def _sentences(alert: Alert, plan: Plan, taken: bool) -> Iterator[str]:
    if plan.again and taken:
        yield say("{n:count} event{n:s} of an earlier action {n:are} not folded yet; appended again, which changes"
                  " nothing; run `coupon-ledger consume`", n=len(plan.again))  # fmt: skip
    elif plan.again:
        yield say("{n:count} event{n:s} of an earlier action {n:are} not folded yet; run `coupon-ledger consume`",
                  n=len(plan.again))  # fmt: skip
    if not plan.fresh:
        yield say("nothing else is left to do for this action")
        return
    if not taken:
        yield say("this is what would happen: {n:count} event{n:s} would be appended; --yes --why TEXT does it",
                  n=len(plan.fresh))  # fmt: skip
        return
    yield say("done: {n:count} event{n:s} appended, and recorded in the life of alert {alert}",
              n=len(plan.fresh), alert=short(alert.alert_id))  # fmt: skip
    yield say("the consumer folds them; then `coupon-ledger alerts resolve {alert} --true --saved AMOUNT CURRENCY`",
              alert=short(alert.alert_id))  # fmt: skip


# ── The webhook ──────────────────────────────────────────────────────────────────────────────────────────────


def _call(here: Desk, call: Call, settings: Settings, yes: bool, output: str) -> None:
    from coupon_ledger.api import alert_actions
    from coupon_ledger.api.alert_webhook import channel_of, message_of, send

    channel = channel_of(settings.alert_rules, call.channel)
    message = message_of(call.situation.row)
    shown = {"action": "webhook", "dry_run": not yes, "channel": call.channel, "message": message.as_json()}
    summary = message.summary["zh" if view().chinese else "en"]
    if call.before:
        echo_wrapped(say("channel {channel} was called about this alert already; nothing is sent again",
                         channel=call.channel))  # fmt: skip
        return
    if output != "table":
        print_row(shown, output)
    if not yes:
        if output == "table":
            echo_wrapped(say("this is what would happen: channel {channel} is sent {summary}; --yes --why TEXT does it",
                             channel=call.channel, summary=summary))  # fmt: skip
        return
    send(channel, message)
    alert_actions.record(here, call.alert, "webhook", {"channel": call.channel}, call.done)
    if output == "table":
        echo_wrapped(say("done: channel {channel} has accepted the message, and it is recorded in the life of alert"
                         " {alert}", channel=call.channel, alert=short(call.alert.alert_id)))  # fmt: skip
