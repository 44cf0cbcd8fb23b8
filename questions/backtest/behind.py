"""Who and what is behind alerts that a backtest found: the coupons, users and orders to look up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.alerts import behind
from coupon_ledger.questions.backtest.parameters import BehindOf

SHOWN: Final = 20
_LISTS: Final = {"behind_coupons": "coupon_id", "behind_users": "user_id", "behind_orders": "order_id"}
_SCHEMA: Final[dict[str, Any]] = {"number": pl.Int64, **dict.fromkeys(_LISTS, pl.List(pl.String))}


def alerts_behind(reading: Reading, of: BehindOf) -> pl.DataFrame:
    """The coupons, users and orders behind alerts that a backtest found: one row per alert, by its place in `alerts`
    (`number`), each list with at most 20 ids."""
    return pl.DataFrame([{"number": n, **_of(reading, dict(one))} for n, one in enumerate(of.alerts)], schema=_SCHEMA)


def _of(reading: Reading, one: dict[str, Any]) -> Mapping[str, list[str]]:
    try:
        rule, key = Rule.model_validate(one["rule"]), dict(json.loads(one["key"]))
        opened, last = (datetime.fromisoformat(one[name]) for name in ("opened_at", "last_true_at"))
        details = json.loads(one.get("details") or "{}")
    except (KeyError, TypeError, ValueError) as error:
        raise WrongQuestion(f"alerts: {error}; give each as `alert-backtest` says it, and its rule") from error
    episode = {"opened_at": opened, "last_true_at": last, "details": one.get("details")}
    scope = behind.scope_of(_alert(rule, key, opened, last), rule, episode, details)
    if scope is None:
        return {}
    with behind.held(reading, scope):
        columns = {row[0] for row in reading.rows("DESCRIBE alert_behind")}
        return {
            name: reading.frame(
                f"SELECT {column} FROM alert_behind WHERE {column} IS NOT NULL"
                f" GROUP BY {column} ORDER BY max(occurred_at) DESC, {column} LIMIT {SHOWN}"
            )[column].to_list()
            for name, column in _LISTS.items()
            if column in columns
        }


def _alert(rule: Rule, key: Mapping[str, str], opened: datetime, last: datetime) -> Alert:
    since = opened.replace(tzinfo=UTC)
    return Alert(
        alert_id="",
        fingerprint="",
        rule=rule.name,
        rule_version=rule.version,
        severity=rule.severity,
        labels=key,
        phase="firing",
        since=since,
        at=last.replace(tzinfo=UTC),
        opened_at=since,
    )
