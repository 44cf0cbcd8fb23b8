"""`alerts act`: take the action of an alert's rule, dry-run first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.alerts.handling import Desk, desk
from coupon_ledger.cli.alerts.options import by_options, now, operator_name, short
from coupon_ledger.cli.asking import rows_of
from coupon_ledger.cli.lists import print_titled, with_lists
from coupon_ledger.cli.options import LOG, output_option, settings_options
from coupon_ledger.cli.output import print_row
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.cli.usage import Misused
from coupon_ledger.cli.view import view
from coupon_ledger.consumers.alerts import actions
from coupon_ledger.consumers.alerts.actions import Done, Plan
from coupon_ledger.ledger.errors import CommandRefused
from coupon_ledger.ledger.rules import REVOCABLE
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import note
from coupon_ledger.reports.alerts import ACTIONS, key_in_words, key_of, rule_of, unnamed
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.ledger.alert_state import Alert
    from coupon_ledger.questions.registry import Source

_ALL: Final = 100_000
_SHOWN: Final = 10


@dataclass
class Situation:
    """The alert as the database shows it: `row` and `coupons` behind it, and the state of the campaign that the action
    is about (`campaign`, with its coupons by state)."""

    row: Row
    coupons: list[Row]
    campaign: Row | None = None
    states: tuple[Row, ...] = ()
    behind: timedelta | None = None
    """How far the data's clock is behind the action, if that is more than a day."""


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
    who = operator_name(operator)
    with desk(settings) as here:
        known = here.alert(alert)
        made = _plan(here, known, action, campaign, channel, Done(now(), who, why or ""), settings)
        if isinstance(made, Call):
            _call(here, made, yes, output)
            return
        situation, plan, done = made
        if output != "table":
            print_row(_for_machines(plan, yes), output)
        else:
            _show(situation, plan)
        missing = unnamed(situation.row)
        if missing is not None:
            warn("{words}", words=missing)
        first = _take(here, known, plan, done) if yes else None
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


@dataclass
class Call:
    """A webhook to be called about an alert. `channel`: its name."""

    alert: Alert
    situation: Situation
    channel: str
    done: Done
    before: list[Done]
    settings: Settings


def _plan(
    here: Desk,
    alert: Alert,
    action: str | None,
    campaign: str | None,
    channel: str | None,
    done: Done,
    settings: Settings,
) -> tuple[Situation, Plan, Done] | Call:
    from coupon_ledger.api.client import asking

    with asking(settings.database) as source, source.snapshot() as snapshot:
        row, lists = with_lists(snapshot.ask("alert", alert=alert.alert_id, limit=_ALL, now=done.at))
        situation = Situation(row, lists["coupon_list"].to_dicts())
        chosen = action or _of_rule(row)
        before = actions.done_before(here.recorded, alert.alert_id, chosen)
        if chosen == "webhook":
            return Call(alert, situation, _channel(row, channel), done, before, settings)
        clock = _data_clock(snapshot)
        done = Done(actions.instant_of_action(done.at, clock), done.operator, done.why)
        if clock is not None and done.at - clock > timedelta(days=1):
            situation.behind = done.at - clock
        if chosen == "revoke_coupons":
            return situation, actions.revoking(row, situation.coupons, before, done), done
        name = actions.campaign_of(row, situation.coupons, campaign)
        situation.campaign, situation.states = _campaign(snapshot, name)
        mine = actions.done_before(here.recorded, alert.alert_id, chosen, name)
        return situation, actions.unpublishing(row, name, situation.campaign, mine, done), done


def _data_clock(source: Source) -> datetime | None:
    clock = source.ask("summary").as_of.data_clock
    return None if clock is None else clock.replace(tzinfo=UTC)


def _of_rule(row: Row) -> str:
    rule = rule_of(row)
    if rule is None or rule.action is None:
        likely = "unpublish_campaign" if key_of(row).keys() <= {"campaign", "campaign_id"} else "revoke_coupons"
        raise CommandRefused(
            note("rule {rule} names no action; name one with --do, such as {action}", rule=row["rule"], action=likely)
        )
    return rule.action.do


def _campaign(source: Source, campaign: str) -> tuple[Row, tuple[Row, ...]]:
    known = source.ask("campaign", campaign=campaign).row()
    states = [{"state": r["state"], "coupons": r["coupons"]} for r in rows_of(source.ask("states", campaign=campaign))]
    return known, tuple(state for state in states if state["coupons"])


# ── What it would do ─────────────────────────────────────────────────────────────────────────────────────────


def _for_machines(plan: Plan, taken: bool) -> Row:
    return {
        "action": plan.action,
        "dry_run": not taken,
        "new_events": len(plan.fresh),
        "repeated_events": len(plan.again),
        "effect": plan.effect,
        "event_ids": [event["event_id"] for event in plan.fresh],
    }


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


# ── Doing it ─────────────────────────────────────────────────────────────────────────────────────────────────


def _take(here: Desk, alert: Alert, plan: Plan, done: Done) -> Done | None:
    """Append the action to the alert's life first, then its events. If this is interrupted between the two, taking the
    action again appends the same events. Returns who was recorded first, if others took it at the same moment."""
    fresh, first = plan.fresh, done
    if fresh:
        _record(here, alert, plan.action, {**plan.effect, "events": len(fresh)}, done)
        first, fresh = actions.as_first(plan, alert.alert_id, here.since())
    events = actions.records(plan, [*plan.again, *fresh])
    if events:
        here.log.append(events)
    return None if first.operator == done.operator else first


def _record(here: Desk, alert: Alert, action: str, effect: Mapping[str, Any], done: Done) -> None:
    from coupon_ledger.ledger.alert_commands import Act

    here.do(
        Act(
            alert_id=alert.alert_id,
            action=action,
            dry=False,
            effect={**effect, "at": done.at.astimezone(UTC).isoformat()},
            now=now(),
            operator=done.operator,
            note=done.why,
        )
    )


# ── The webhook ──────────────────────────────────────────────────────────────────────────────────────────────


def _channel(row: Row, named: str | None) -> str:
    rule = rule_of(row)
    name = named or (rule.action.channel if rule is not None and rule.action is not None else None)
    if name is None:
        raise CommandRefused(
            note("rule {rule} names no channel for the webhook; name one with --channel", rule=row["rule"])
        )
    return name


def _call(here: Desk, call: Call, yes: bool, output: str) -> None:
    from coupon_ledger.cli.alerts.webhook import channel_of, message_of, send

    channel = channel_of(call.settings, call.channel)
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
    _record(here, call.alert, "webhook", {"channel": call.channel}, call.done)
    if output == "table":
        echo_wrapped(say("done: channel {channel} has accepted the message, and it is recorded in the life of alert"
                         " {alert}", channel=call.channel, alert=short(call.alert.alert_id)))  # fmt: skip
