"""Actions that the owner takes by itself, where a rule says so with a proof."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from coupon_ledger.consumers.alerts import actions
from coupon_ledger.consumers.alerts.telling import OF_THE_PAST
from coupon_ledger.ledger.alert_commands import Act
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.log import Record
from coupon_ledger.projections.alerts.rules import Action, Rule
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.alerts.alerts import alert as one_alert
from coupon_ledger.questions.alerts.parameters import OneAlert
from coupon_ledger.questions.states.parameters import OneCampaign
from coupon_ledger.questions.states.states import campaign as one_campaign

_ALL: Final = 100_000


def due(alert: Alert, rule: Rule | None, now: datetime) -> Action | None:
    """The action to take on the alert: if it has just fired, and its rule, in the version that raised it, has an action
    with a proof that nobody has taken yet."""
    if rule is None or rule.action is None or rule.action.automatic is None or rule.version != alert.rule_version:
        return None
    just_fired = alert.stands and alert.fired_at is not None and alert.fired_at > now - OF_THE_PAST
    return rule.action if just_fired and rule.action.do not in alert.acted else None


def taken(
    reading: Reading, alert: Alert, action: Action, now: datetime, clock: datetime | None
) -> tuple[Act, list[Record]]:
    """Take the action: what is to be decided about the alert, and the records to append with it. `clock`: the data's
    clock, aware.

    Raises `UnknownAlert` while the alert has not come back from the log, and `CommandRefused` if the action is about no
    campaign, or about several.
    """
    row = one_alert(reading, OneAlert(alert=alert.alert_id, limit=_ALL, now=now)).row(0, named=True)
    done = actions.Done(actions.instant_of_action(now, clock), actions.SOURCE, f"rule {alert.rule}, without asking")
    if action.do == "revoke_coupons":
        plan = actions.revoking(row, row["coupon_list"], (), done)
    else:
        name = actions.campaign_of(row, row["coupon_list"], None)
        known = one_campaign(reading, OneCampaign(campaign=name)).row(0, named=True)
        plan = actions.unpublishing(row, name, known, (), done)
    effect = {**plan.effect, "events": len(plan.fresh), "at": done.at.astimezone(UTC).isoformat()}
    act = Act(alert_id=alert.alert_id, action=action.do, dry=False, effect=effect, now=now, note=done.why)
    return act, actions.records(plan, plan.fresh)
