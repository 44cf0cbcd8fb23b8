"""Actions that the owner takes by itself, where a rule says so with a proof.

An action is recorded in the alert's life first. Its events are appended once that record has come back from the log. If
an operator takes the same action at that moment, both append the events of the one who was recorded first, so each of
them counts once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from coupon_ledger.consumers.alerts import actions
from coupon_ledger.consumers.alerts.actions import Done, Plan
from coupon_ledger.consumers.alerts.known import Known
from coupon_ledger.consumers.alerts.telling import OF_THE_PAST
from coupon_ledger.ledger.alert_commands import Act
from coupon_ledger.ledger.alert_events import AlertEvent, event_id_of
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import LedgerError, UnknownAlert
from coupon_ledger.ledger.log import Record
from coupon_ledger.projections.alerts.rules import Action, Rule
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.alerts.alerts import alert as one_alert
from coupon_ledger.questions.alerts.parameters import OneAlert
from coupon_ledger.questions.states.parameters import OneCampaign
from coupon_ledger.questions.states.states import campaign as one_campaign

_ALL: Final = 100_000
_logger = logging.getLogger(__name__)


class Automatic:
    """Takes the actions of one store. An action that cannot be taken is left to people."""

    def __init__(self, store: Store, known: Known) -> None:
        self._store = store
        self._known = known
        self._left: set[str] = set()
        self._recorded: dict[str, Plan | None] = {
            alert.alert_id: None
            for alert in known.book.to_route(datetime.now(UTC))
            if _is_recorded(alert, known.rule_of(alert))
        }
        """The alerts whose action is recorded and may have no events yet; None: its plan is of an earlier process."""

    def see(self, event: AlertEvent) -> None:
        """Take notice of an event that has come back from the log."""
        if event.type == "acted" and event.alert_id and event.event_id == _id_of(event.alert_id, event.action or ""):
            self._recorded.setdefault(event.alert_id, None)

    def take(self, now: datetime) -> None:
        """Record the actions that are due."""
        known = self._known
        for alert in known.book.open_alerts():
            action = _due(alert, known.rule_of(alert), now)
            if action is None or alert.alert_id in self._left:
                continue
            try:
                self._take(alert, action, now)
            except UnknownAlert:  # it comes back from the log in a moment
                continue
            except LedgerError as error:
                self._leave(alert.alert_id, error)

    def _take(self, alert: Alert, action: Action, now: datetime) -> None:
        at = actions.instant_of_action(now, self._known.clocks.data)
        done = Done(at, actions.SOURCE, f"rule {alert.rule}, without asking")
        plan = self._plan(alert.alert_id, action, (), done)
        effect = {**plan.effect, "events": len(plan.fresh), "at": at.astimezone(UTC).isoformat()}
        self._known.decide(
            Act(alert_id=alert.alert_id, action=action.do, dry=False, effect=effect, now=now, note=done.why)
        )
        self._recorded[alert.alert_id] = plan

    def complete(self) -> bool:
        """Append the events of the actions whose record has come back from the log. Those of an earlier process are
        planned again, at most one in a call, also if the alert has closed meanwhile, but not if somebody says that it
        was wrong. Returns whether there may be more of them."""
        for alert_id, plan in list(self._recorded.items()):
            acted = self._acted(alert_id)
            if not any(event.event_id == _id_of(alert_id, event.action or "") for event in acted):
                continue
            del self._recorded[alert_id]
            try:
                self._known.records += self._records(alert_id, plan, acted)
            except LedgerError as error:
                self._leave(alert_id, error)
            if plan is None:
                return True
        return False

    def _records(self, alert_id: str, plan: Plan | None, acted: Sequence[AlertEvent]) -> list[Record]:
        if plan is not None:
            return actions.records(plan, actions.as_first(plan, alert_id, acted)[1])
        alert = self._known.book.alerts[alert_id]
        rule = self._known.rule_of(alert)
        if rule is None or rule.action is None or alert.outcome == "false":
            return []
        plan = self._plan(alert_id, rule.action, acted, Done(datetime.now(UTC), actions.SOURCE, ""))
        return actions.records(plan, plan.again)

    def _acted(self, alert_id: str) -> list[AlertEvent]:
        """The actions on the alert that have come back from the log, in the order of recording."""
        events = self._store.frame(
            "SELECT event FROM alert_events WHERE alert_id = $alert AND type = 'acted'"
            " ORDER BY recorded_at, log_partition, log_offset",
            {"alert": alert_id},
        )
        return [AlertEvent.model_validate_json(event) for event in events["event"]]

    def _plan(self, alert_id: str, action: Action, acted: Sequence[AlertEvent], done: Done) -> Plan:
        """What the action would append after these actions. Raises `UnknownAlert` while the alert has not come back
        from the log, and `CommandRefused` if the action is about no campaign, or about several."""
        row = one_alert(self._store, OneAlert(alert=alert_id, limit=_ALL, now=done.at)).row(0, named=True)
        if action.do == "revoke_coupons":
            before = actions.done_before(acted, alert_id, action.do)
            return actions.revoking(row, row["coupon_list"], before, done)
        name = actions.campaign_of(row, row["coupon_list"], None)
        known = one_campaign(self._store, OneCampaign(campaign=name)).row(0, named=True)
        return actions.unpublishing(row, name, known, actions.done_before(acted, alert_id, action.do, name), done)

    def _leave(self, alert_id: str, error: LedgerError) -> None:
        _logger.warning("alerts: alert %s: its action is left to people: %s", alert_id[:8], error)
        self._left.add(alert_id)


def _due(alert: Alert, rule: Rule | None, now: datetime) -> Action | None:
    """The action to take on the alert: if it has just fired, and its rule, in the version that raised it, has an action
    with a proof that nobody has taken yet."""
    if rule is None or rule.action is None or rule.action.automatic is None or rule.version != alert.rule_version:
        return None
    just_fired = alert.stands and alert.fired_at is not None and alert.fired_at > now - OF_THE_PAST
    return rule.action if just_fired and rule.action.do not in alert.acted else None


def _is_recorded(alert: Alert, rule: Rule | None) -> bool:
    """Whether the owner has recorded the action of the rule."""
    return rule is not None and rule.action is not None and _id_of(alert.alert_id, rule.action.do) in alert.seen


def _id_of(alert_id: str, action: str) -> str:
    """The id of the event that records an action without asking."""
    return event_id_of("acted", alert_id, action, str(False))
