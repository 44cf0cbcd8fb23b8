"""What is behind an alert: the events of coupons that its rule counted, found in the journal by the alert's key and
window, and what follows from them.

Some kinds of rules (health, reconciliation, guardrail) are about no single events. Nothing is behind their alerts here;
their evidence is in the alert itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.alert_evidence import values_in
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.alerts.episodes import micros_of
from coupon_ledger.projections.alerts.linked_members import members
from coupon_ledger.projections.alerts.rules import Concentration, Linked, Rule, Velocity, Violations
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.questions.alerts.lives import naive

FIELDS: Final = (
    *("campaign_id", "coupon_id", "user_id", "order_id", "device_id", "ip", "phone_prefix", "channel", "code"),
    *("source", "store", "coupon_type"),
)
"""Fields of events by which those behind an alert are found."""
_ALSO: Final = {"campaign": "campaign_id", "coupon": "coupon_id", "user": "user_id", "order": "order_id"}
_LISTED: Final = {"coupon_ids": "coupon_id", "user_ids": "user_id", "order_ids": "order_id", "first_users": "user_id"}
"""Names in an alert's evidence under which the ids of those behind it are listed."""
_OF_METRIC: Final = {"discount": "used", "claim_rate": "claimed", "use_rate": "used", "return_rate": "returned"}
_DAY: Final = timedelta(days=1)
_WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the events behind an alert are found. `query`: the SQL file. `parameters`: its parameters but for the
    bounds, and for the users of a group that is too `large` to be named. `opened`: when the condition began to hold.
    `window`: the length of the rule's window. `since`, `until`: the events in it happened after the one, and not after
    the other (None: no bound). Instants are naive UTC."""

    query: str
    parameters: Mapping[str, Any]
    opened: datetime
    window: timedelta
    since: datetime | None
    until: datetime | None
    large: LargeGroup | None = None

    def bound(self, reading: Reading) -> dict[str, Any]:
        """The parameters of the query but for the bounds."""
        users = None if self.large is None else self.large.users(reading)
        return {**self.parameters, **({} if users is None else {"user_id": users})}


@dataclass
class LargeGroup:
    """A group of a linked rule with more users than its details name. `opened_at`, `last_true_at`: of its episode."""

    rule: Rule
    details: Mapping[str, Any]
    opened_at: datetime
    last_true_at: datetime
    _users: list[list[str] | None] = field(default_factory=list)

    def users(self, reading: Reading) -> list[str] | None:
        """All users; None if the journal does not show this group. Reads them once."""
        if not self._users:
            self._users.append(members(reading, self.rule, self.details, self.opened_at, self.last_true_at))
        return self._users[0]


NOTHING: Final = Scope(
    "behind_events",
    {"types": [], "after_type": None, "after_us": 0, **dict.fromkeys(FIELDS)},
    datetime(1970, 1, 1),
    timedelta(days=1),
    None,
    None,
)
"""The scope of an alert that is about no events of coupons."""


def scope_of(
    alert: Alert, rule: Rule | None, episode: Mapping[str, Any] | None, evidence: Mapping[str, Any]
) -> Scope | None:
    """Where the events behind the alert are found; None if there are none. `rule`: the version that the alert is of;
    None if it is not known. `episode`: the row of `alert_episodes`; None for rules that are asked. `evidence`: that of
    its last event with some (`evidence_of`); a closed alert's state has none."""
    opened: datetime = episode["opened_at"] if episode else naive(alert.since)
    values = values_in(evidence)
    until = held_until(alert, rule, episode, values)
    if rule is not None and isinstance(rule.expr, Violations):
        window = rule.expr.window
        since = None if window is None else opened - window
        return Scope("behind_violations", _of_violations(alert, rule.expr), opened, window or _DAY, since, until)
    event_types, window = _counted(rule)
    fields = _fields(alert, rule, values)
    if not any(fields.values()) or event_types == ():
        return None
    given: dict[str, Any] = {
        "types": None if event_types is None else list(event_types),
        "after_type": None,
        "after_us": 0,
        **fields,
    }
    if rule is not None and isinstance(rule.expr, Velocity) and rule.expr.after is not None:
        given |= {"after_type": rule.expr.after.event, "after_us": micros_of(rule.expr.after.within)}
    if window is None:
        return Scope("behind_events", given, opened, _DAY, None, until)
    large = None if rule is None or episode is None else _large_group(rule, episode)
    return Scope("behind_events", given, opened, window, opened - window, until, large)


def _large_group(rule: Rule, episode: Mapping[str, Any]) -> LargeGroup | None:
    """The group of the episode, if its details do not name all its users."""
    details = json.loads(episode["details"] or "{}")
    if not isinstance(rule.expr, Linked) or details.get("users", 0) <= len(details.get("first_users", ())):
        return None
    return LargeGroup(rule, details, episode["opened_at"], episode["last_true_at"])


def held_until(
    alert: Alert, rule: Rule | None, episode: Mapping[str, Any] | None, values: Mapping[str, Any]
) -> datetime:
    """The last instant at which the alert's condition is known to have held (naive UTC). An alert of violations fires
    as of the first one; its evidence has the last one. `values`: those of the evidence, by name."""
    if episode is not None:
        until: datetime = episode["last_true_at"]
        return until
    known = max(naive(alert.since), naive(alert.at))
    if rule is None or not isinstance(rule.expr, Violations):
        return known
    try:
        return max(known, naive(datetime.fromisoformat(values["last"])))
    except (KeyError, TypeError, ValueError):  # of an earlier version
        return known


def _counted(rule: Rule | None) -> tuple[tuple[str, ...] | None, timedelta | None]:
    """The types of coupon events that the rule counts (None: all), and its window (None: it looks at all of them)."""
    if rule is None:
        return None, None
    expr = rule.expr
    match expr.kind:
        case "velocity" | "concentration" | "linked":
            return expr.events, expr.window
        case "metric" | "threshold":
            counted = _OF_METRIC.get(expr.metric, expr.metric)
            window = expr.bucket if expr.kind == "metric" else expr.window
            return ((counted,) if counted in types(COUPON) else ()), window
        case "budget":
            return ("used",), expr.window
        case "stock":
            return ("claimed",), expr.window
        case "sql":
            return None, None
    return (), None


def _fields(alert: Alert, rule: Rule | None, values: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """By field, the values that the events behind the alert may have."""
    allowed: dict[str, list[str] | None] = dict.fromkeys(FIELDS)
    if rule is not None and isinstance(rule.expr, Velocity):
        allowed |= {name: list(values) for name, values in rule.expr.where.items() if name in allowed}
    for name, value in alert.labels.items():
        field = _ALSO.get(name, name)
        if field in allowed:
            allowed[field] = [value]
    if rule is not None and isinstance(rule.expr, Concentration):
        allowed[rule.expr.of] = _names(values.get("top")) or allowed.get(rule.expr.of)
    if rule is None or isinstance(rule.expr, Linked):
        for name, field in _LISTED.items():
            allowed[field] = _names(values.get(name)) or allowed[field]
    return {name: allowed[name] for name in FIELDS}


def _names(listed: Any) -> list[str] | None:
    """The names in a list of names, or of pairs of name and number."""
    if not isinstance(listed, list):
        return None
    return [str(one[0] if isinstance(one, list) and one else one) for one in listed] or None


def _of_violations(alert: Alert, expr: Violations) -> dict[str, Any]:
    code = alert.labels.get("code")
    campaign = alert.labels.get("campaign", alert.labels.get("campaign_id"))
    channel = alert.labels.get("channel")
    return {
        "codes": [code] if code else list(expr.codes) or None,
        "campaign_id": None if campaign is None else [campaign],
        "channel": None if channel is None else [channel],
    }


@contextmanager
def held(reading: Reading, scope: Scope) -> Iterator[None]:
    """Within the block, queries can read the events behind the alert as the table `alert_behind`."""
    bounds = {"since": scope.since, "until": scope.until}
    with reading.holding("alert_behind", sql(__package__, scope.query), {**scope.bound(reading), **bounds}):
        yield


def coupons(reading: Reading) -> pl.DataFrame:
    return reading.frame(sql(__package__, "behind_coupons"))


def users(reading: Reading) -> pl.DataFrame:
    return reading.frame(sql(__package__, "behind_users"))


def orders(reading: Reading) -> pl.DataFrame:
    return reading.frame(sql(__package__, "behind_orders"))


def money(behind: pl.DataFrame) -> pl.DataFrame:
    """What is at stake with these coupons: per currency, how many coupons, the discounts taken, and the face value that
    is still promised."""
    amounts = behind.filter(pl.col("discount_minor").is_not_null() | pl.col("promised_minor").is_not_null())
    return (
        amounts.group_by("currency")
        .agg(
            coupons=pl.len().cast(pl.Int64),
            discount_minor=pl.col("discount_minor").sum(),
            promised_minor=pl.col("promised_minor").sum(),
        )
        .sort("currency", nulls_last=True)
    )


PERIODS: Final = {"day_before": _DAY, "week_before": _WEEK, "four_weeks_before": 4 * _WEEK}
"""The stretches of time before an alert that are shown beside the last window before it, the shortest first."""
_MOST: Final = 2
"""How many of them are shown: the shortest that have several windows."""
BEFORE: Final[dict[str, Any]] = {
    "period": pl.String,
    "since": pl.Datetime("us"),
    "until": pl.Datetime("us"),
    "windows": pl.Int64,
    "events": pl.Int64,
    "mean_events": pl.Float64,
    "most_events": pl.Int64,
    "most_users": pl.Int64,
    "most_coupons": pl.Int64,
}


def before(reading: Reading, scope: Scope) -> pl.DataFrame:
    """The same slice during the alert and before it: how many events there were, on average per window, and at most in
    one window. One row per period, the latest first: `during`, the window before it (`window_before`), and as many
    whole windows as a day, a week or four weeks before it have, if these are at least two.

    Windows have the length of the rule's and are counted from the beginning of the alert. `during` has the window that
    made the alert begin and those after it; the last one may be cut short. The other periods end where `during` begins.
    """
    periods = _periods(scope.window)
    bounds = {"since": scope.opened - (max(periods.values()) + 1) * scope.window, "until": scope.until}
    with reading.holding("alert_before", sql(__package__, scope.query), {**scope.bound(reading), **bounds}):
        counted = reading.frame(
            sql(__package__, "behind_windows"), {"opened": scope.opened, "window_us": micros_of(scope.window)}
        )
    began, number = scope.opened - scope.window, pl.col("number")
    end = max(scope.until or scope.opened, scope.opened)
    during = _period("during", began, end, scope.window, counted.filter(number <= 0))
    earlier = [
        _period(name, began - n * scope.window, began, scope.window, counted.filter(number.is_between(1, n)))
        for name, n in periods.items()
    ]
    return pl.DataFrame([during, *earlier], schema=BEFORE, orient="row")


def _periods(window: timedelta) -> dict[str, int]:
    """The periods before an alert, each with its number of whole windows."""
    whole = {name: length // window for name, length in PERIODS.items() if length >= 2 * window}
    return {"window_before": 1, **dict(list(whole.items())[:_MOST])}


def _period(name: str, since: datetime, until: datetime, window: timedelta, inside: pl.DataFrame) -> list[Any]:
    events = int(inside["events"].sum())
    most = [max(inside[column].to_list(), default=0) for column in ("events", "users", "coupons")]
    windows = max(1, -(-(until - since) // window))
    return [name, since, until, windows, events, events / windows, *most]
