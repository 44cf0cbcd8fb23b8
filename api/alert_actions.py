"""`alerts act` for commands and the HTTP API: what the action of an alert would do, and doing it.

The plan is made of one committed state of the database. An action is recorded in the alert's life before its events are
appended, so one that was interrupted can be taken again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.consumers.alerts import actions
from coupon_ledger.consumers.alerts.actions import Done, Plan
from coupon_ledger.ledger.errors import CommandRefused
from coupon_ledger.ledger.words import note
from coupon_ledger.reports.alerts import key_of, rule_of
from coupon_ledger.reports.lists import with_lists
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.consumers.alerts.desk import Desk
    from coupon_ledger.ledger.alert_state import Alert
    from coupon_ledger.questions.registry import Source

_ALL: Final = 100_000


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


@dataclass
class Call:
    """A webhook to be called about an alert. `channel`: its name."""

    alert: Alert
    situation: Situation
    channel: str
    done: Done
    before: list[Done]


def plan_of(
    here: Desk,
    alert: Alert,
    action: str | None,
    campaign: str | None,
    channel: str | None,
    done: Done,
    source: Source,
) -> tuple[Situation, Plan, Done] | Call:
    """What the action would do. `action`: None: that of the rule. `campaign`, `channel`: what it is about, if not what
    the alert or the rule says. Raises `CommandRefused` if it cannot be taken."""
    with source.snapshot() as snapshot:
        row, lists = with_lists(snapshot.ask("alert", alert=alert.alert_id, limit=_ALL, now=done.at))
        situation = Situation(row, lists["coupon_list"].to_dicts())
        chosen = action or _of_rule(row)
        before = actions.done_before(here.recorded, alert.alert_id, chosen)
        if chosen == "webhook":
            return Call(alert, situation, _channel(row, channel), done, before)
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
    frames = source.ask("states", campaign=campaign).frames
    states = [{"state": r["state"], "coupons": r["coupons"]} for frame in frames for r in frame.iter_rows(named=True)]
    return known, tuple(state for state in states if state["coupons"])


def _channel(row: Row, named: str | None) -> str:
    rule = rule_of(row)
    name = named or (rule.action.channel if rule is not None and rule.action is not None else None)
    if name is None:
        raise CommandRefused(
            note("rule {rule} names no channel for the webhook; name one with --channel", rule=row["rule"])
        )
    return name


def take(here: Desk, alert: Alert, plan: Plan, done: Done) -> Done | None:
    """Append the action to the alert's life first, then its events. If this is interrupted between the two, taking the
    action again appends the same events. Returns who was recorded first, if others took it at the same moment."""
    fresh, first = plan.fresh, done
    if fresh:
        record(here, alert, plan.action, {**plan.effect, "events": len(fresh)}, done)
        first, fresh = actions.as_first(plan, alert.alert_id, here.since())
    events = actions.records(plan, [*plan.again, *fresh])
    if events:
        here.appended = (*here.appended, *here.log.append(events))
    return None if first.operator == done.operator else first


def record(here: Desk, alert: Alert, action: str, effect: Mapping[str, Any], done: Done) -> None:
    from coupon_ledger.ledger.alert_commands import Act

    here.do(
        Act(
            alert_id=alert.alert_id,
            action=action,
            dry=False,
            effect={**effect, "at": done.at.astimezone(UTC).isoformat()},
            now=datetime.now(UTC),
            operator=done.operator,
            note=done.why,
        )
    )


def for_machines(plan: Plan, taken: bool) -> Row:
    return {
        "action": plan.action,
        "dry_run": not taken,
        "new_events": len(plan.fresh),
        "repeated_events": len(plan.again),
        "effect": plan.effect,
        "event_ids": [event["event_id"] for event in plan.fresh],
    }
