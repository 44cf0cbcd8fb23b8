"""Alerts that were really raised, of rules about which the events say nothing: as `coupon.alerts` has them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.alerts.lives import evidence_of, lives, naive
from coupon_ledger.questions.parameters import OfPast


def alerts(reading: Reading, rules: Collection[Rule]) -> Iterator[dict[str, Any]]:
    """The alerts of rules of these names, as rows of a backtest."""
    by_name = {rule.name: rule for rule in rules}
    if not by_name:
        return
    known = lives(reading, OfPast())
    for alert in known.book.alerts.values():
        rule = by_name.get(alert.rule)
        if rule is not None and alert.fired_at is not None:
            yield _row(alert, rule, evidence_of(known.events[alert.alert_id]))


def _row(alert: Alert, rule: Rule, evidence: Mapping[str, Any]) -> dict[str, Any]:
    details = evidence.get("details") or {}
    value = alert.value or 0.0
    return {
        "rule": rule.name,
        "rule_version": rule.version,
        "key": json.dumps(dict(alert.labels), ensure_ascii=False),
        "opened_at": naive(alert.since),
        "fired_at": naive(alert.fired_at),
        "last_true_at": naive(alert.over_since or alert.at),
        "closed_at": None if alert.is_open else naive(alert.at),
        "value": value,
        "peak": alert.magnitude or value,
        "threshold": float(evidence.get("threshold") or 0.0),
        "times_true": 1,
        "details": json.dumps(plain({**details, "alert_id": alert.alert_id}), ensure_ascii=False),
        "problem": None,
    }
