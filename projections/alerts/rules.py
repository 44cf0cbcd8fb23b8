"""Alert rules: what looks wrong, for whom, and what to do. One model for each kind of expression.

A rule is data. `rules_file.py` reads rules from a file and says which line is wrong. Kinds that are evaluated event by
event or tick by tick (`STREAMED`) give the same alerts live, rebuilt and in a backtest. Kinds that follow the tables
(`SETTLED`) are a function of the facts alone. Kinds that ask a question now and then (`ASKED`) are recorded when asked.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from coupon_ledger.ledger.events import canonical_json

Severity = Literal["critical", "high", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "warning", "info")
"""The most severe first."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,99}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Label = Annotated[str, StringConstraints(max_length=200)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e15)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Minor = Annotated[int, Field(ge=0, le=2**53 - 1)]
Span = Annotated[timedelta, Field(ge=timedelta(seconds=1), le=timedelta(days=366))]
Hold = Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(days=366))]

CouponType = Literal[
    "created", "issued", "claimed", "reserved", "released", "used", "returned", "expired", "revoked", "extended"
]
OrderType = Literal["placed", "paid", "cancelled", "refunded"]
KeyField = Literal["ip", "device_id", "phone_prefix", "user_id", "order_id", "campaign_id", "channel", "code", "source"]
Slice = Literal["campaign", "coupon_type", "channel", "store", "region", "source"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Violations(_Model):
    """Coupons or orders that break a rule of the specification. Explained and provisional violations do not count.

    `codes`: which violations; empty: all. `by`: one alert for each combination. `at_least`: how many must stand.
    `window`: only those at fault so long ago at most, by the data's clock; None: all that stand.
    """

    kind: Literal["violation"]
    codes: tuple[Name, ...] = ()
    by: tuple[Literal["code", "campaign", "channel"], ...] = ("code", "campaign")
    at_least: Count = 1
    min_money_minor: Minor = 0
    window: Span | None = None


class After(_Model):
    """Only events that follow an event of type `event` of the same coupon within `within`."""

    event: CouponType
    within: Span


class Velocity(_Model):
    """Many events with one key in a sliding window.

    `by`: the key; events without a value for one of its fields do not count. `distinct`: count the values of this field
    instead of events. `consecutive`: count the longest run of consecutive numbers among the values of this field.
    `where`: only events whose field has one of these values (`campaign` is the coupon's campaign). `at_least`: the
    count that fires.
    """

    kind: Literal["velocity"]
    events: Annotated[tuple[CouponType, ...], Field(min_length=1)]
    by: Annotated[tuple[KeyField, ...], Field(min_length=1, max_length=3)]
    distinct: KeyField | None = None
    consecutive: Literal["phone_prefix", "user_id", "code"] | None = None
    where: dict[KeyField, Annotated[tuple[Label, ...], Field(min_length=1)]] = Field(default_factory=dict)
    after: After | None = None
    at_least: Annotated[int, Field(ge=2, le=10**7)]
    window: Span

    @model_validator(mode="after")
    def _one_count(self) -> Velocity:
        if self.distinct and self.consecutive:
            raise ValueError("distinct and consecutive exclude each other")
        return self


class Concentration(_Model):
    """A few keys take a large share of a campaign's events in a window: the `top` values of `of` have together at least
    `share` of all events, which are at least `at_least`."""

    kind: Literal["concentration"]
    events: Annotated[tuple[CouponType, ...], Field(min_length=1)]
    of: KeyField
    by: tuple[Literal["campaign_id", "channel"], ...] = ("campaign_id",)
    top: Annotated[int, Field(ge=1, le=100)] = 10
    share: Share
    at_least: Count = 100
    window: Span


class Linked(_Model):
    """A group of users joined over shared values of `over` (devices, addresses of the network, phone prefixes, linked
    ids) that has at least `users` users and `events` events of these types in the window.

    A value with more than `hub_above` users joins nobody (an office, a mobile carrier), and the alert says so.
    """

    kind: Literal["linked"]
    events: Annotated[tuple[CouponType, ...], Field(min_length=1)] = ("claimed",)
    over: Annotated[tuple[Literal["device_id", "ip", "phone_prefix", "linked"], ...], Field(min_length=1)]
    users: Annotated[int, Field(ge=2, le=10**6)]
    at_least: Count = 1
    hub_above: Annotated[int, Field(ge=2, le=10**7)] = 200
    window: Span


METRICS: Final = (
    *("created", "issued", "claimed", "reserved", "released", "used", "returned", "expired", "revoked"),
    *("discount", "claim_rate", "use_rate", "return_rate"),
    *("orders", "cancelled_orders", "gmv", "net_sales", "refunds", "discount_share", "average_order"),
)
"""Metrics that can be followed event by event. Counts of events and sums of money per bucket, and their ratios."""
MetricName = Annotated[str, StringConstraints(pattern=f"^({'|'.join(METRICS)})$")]


class Metric(_Model):
    """The detector finds a bucket of a metric unusual. `relative`, `absolute`: how far the value must be from the
    expected band, as a share of the band's middle and in the metric's unit; both must be passed. `direction`: which
    side counts."""

    kind: Literal["metric"]
    metric: MetricName
    by: tuple[Slice, ...] = ()
    bucket: Annotated[timedelta, Field(ge=timedelta(minutes=1), le=timedelta(days=1))] = timedelta(hours=1)
    score: Share = 0.5
    relative: Annotated[float, Field(ge=0, le=1000)] = 0.3
    absolute: Annotated[float, Field(ge=0, le=1e15)] = 10
    direction: Literal["both", "up", "down"] = "both"
    calendar: bool = True


class Threshold(_Model):
    """A metric over a window against a fixed value, or against itself one `period` before. `relative`, `absolute`: the
    change that both must be passed."""

    kind: Literal["threshold"]
    metric: MetricName
    by: tuple[Slice, ...] = ()
    window: Span = timedelta(hours=1)
    above: float | None = None
    below: float | None = None
    against: Literal["last_hour", "last_day", "last_week", "last_year", "target"] | None = None
    direction: Literal["both", "up", "down"] = "both"
    relative: Annotated[float, Field(ge=0, le=1000)] = 0
    absolute: Annotated[float, Field(ge=0, le=1e15)] = 0
    at_least: Annotated[float, Field(ge=0, le=1e15)] = 0

    @model_validator(mode="after")
    def _one_bound(self) -> Threshold:
        if (self.above is None and self.below is None) == (self.against is None):
            raise ValueError("name above, below or both, or against")
        return self


class Budget(_Model):
    """A campaign's discounts approach or pass its budget: `share` of it is burnt, or at the present rate (over
    `window`) it is exhausted within `exhausted_within`."""

    kind: Literal["budget"]
    share: Annotated[float, Field(gt=0, le=10)] | None = None
    exhausted_within: Span | None = None
    window: Span = timedelta(hours=1)

    @model_validator(mode="after")
    def _one_bound(self) -> Budget:
        if self.share is None and self.exhausted_within is None:
            raise ValueError("name share, exhausted_within or both")
        return self


class Stock(_Model):
    """At the present rate of claims (over `window`) a campaign's stock is sold out within `sold_out_within`."""

    kind: Literal["stock"]
    sold_out_within: Span
    window: Span = timedelta(minutes=10)


class Reconciliation(_Model):
    """Numbers that must be equal are not: accounts of partitions, coupons by state, entries and exits."""

    kind: Literal["reconciliation"]


class Guardrail(_Model):
    """An experiment's always-valid interval shows harm, or its sample ratio breaks."""

    kind: Literal["guardrail"]
    metric: Literal["margin", "sales", "orders"] = "margin"
    sample_ratio: bool = True


HEALTH: Final = (
    *("lag", "silent_source", "dead_letters", "late_share", "clock_skew", "provisional", "sweep_overdue"),
    *("channel_dead", "rule_failed"),
)


class Health(_Model):
    """The ledger's own condition. `above`: the number that fires; its meaning depends on `of` (docs/alerts.md)."""

    kind: Literal["health"]
    of: Annotated[str, StringConstraints(pattern=f"^({'|'.join(HEALTH)})$")]
    above: Annotated[float, Field(ge=0, le=1e15)] = 0
    window: Span = timedelta(minutes=10)


class Sql(_Model):
    """A query over the projections. Each row that it returns is an offender. `key`: the columns that identify one;
    `value`: the column that is shown as the value; `money`: the column with the money at stake."""

    kind: Literal["sql"]
    query: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
    key: Annotated[tuple[Name, ...], Field(min_length=1)]
    value: Name | None = None
    money: Name | None = None
    timeout: Annotated[timedelta, Field(ge=timedelta(seconds=1), le=timedelta(seconds=60))] = timedelta(seconds=10)


Expression = Annotated[
    Violations
    | Velocity
    | Concentration
    | Linked
    | Metric
    | Threshold
    | Budget
    | Stock
    | Reconciliation
    | Guardrail
    | Health
    | Sql,
    Field(discriminator="kind"),
]
STREAMED: Final = frozenset({"velocity", "concentration", "linked", "metric", "threshold", "budget", "stock"})
SETTLED: Final = frozenset({"violation"})
ASKED: Final = frozenset({"reconciliation", "guardrail", "health", "sql"})
KINDS: Final = (*sorted(STREAMED), *sorted(SETTLED), *sorted(ASKED))


class Annotations(_Model):
    """Texts of a rule in one language, as templates: `{name}` is a field of the alert."""

    summary: Text
    description: Text | None = None


class Action(_Model):
    """What `alerts act` does. `automatic`: whether the owner does it by itself as soon as the alert fires."""

    do: Literal["unpublish_campaign", "revoke_coupons", "webhook"]
    channel: Name | None = None
    automatic: bool = False


class Rule(_Model):
    """One rule. `hold` (`for` in the file): how long the condition must hold before the alert fires. `keep`
    (`keep_firing_for`): how long it must be over before the alert is resolved. `every`: how often rules that are not
    evaluated event by event are."""

    name: Name
    group: Name = "default"
    expr: Expression
    hold: Hold = timedelta(0)
    keep: Hold = timedelta(minutes=5)
    every: Annotated[timedelta, Field(ge=timedelta(minutes=1), le=timedelta(days=1))] = timedelta(minutes=1)
    severity: Severity = "warning"
    labels: dict[Name, Label] = Field(default_factory=dict)
    annotations: dict[Literal["en", "zh"], Annotations] = Field(default_factory=dict)
    owner: Label | None = None
    channels: tuple[Name, ...] = ()
    inhibited_by: tuple[Name, ...] = ()
    playbook: Text | None = None
    action: Action | None = None
    escalate_after: Hold | None = None
    escalate_to: tuple[Name, ...] = ()
    enabled: bool = True

    @cached_property
    def version(self) -> str:
        """A hash of everything in the rule: rules with the same version give the same alerts."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


class Sale(_Model):
    """An announced sale: what is unusual then was planned. `like`: the name of the last one like it."""

    name: Label
    starts: datetime
    ends: datetime
    like: Label | None = None
    campaigns: tuple[Label, ...] = ()


class RuleSet(_Model):
    """The rules of a file, with the calendar that they share."""

    rules: tuple[Rule, ...]
    calendar: tuple[Sale, ...] = ()
