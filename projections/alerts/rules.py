"""Alert rules: what looks wrong, for whom, and what to do. One model for each kind of expression.

A rule is data. `rules_file.py` reads rules from a file and says which line is wrong. Kinds that are evaluated event by
event or tick by tick (`STREAMED`) give the same alerts live, rebuilt and in a backtest. Kinds that follow the tables
(`SETTLED`) are a function of the facts alone. Kinds that ask a question now and then (`ASKED`) are recorded when asked.

A text in a field's annotation describes the field, for docs/alert-rules.md.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from coupon_ledger.ledger.events import Instant, canonical_json
from coupon_ledger.ledger.rules import VIOLATIONS
from coupon_ledger.projections.alerts import proofs
from coupon_ledger.projections.alerts.durations import Between, Duration
from coupon_ledger.projections.alerts.planned import MOST_ROWS, Planned, check

Severity = Literal["critical", "high", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "warning", "info")
"""The most severe first."""
MOST_LABELS: Final = 50

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,99}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Label = Annotated[str, StringConstraints(max_length=200)]
Names = Annotated[tuple[Name, ...], Field(max_length=MOST_LABELS)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Minor = Annotated[int, Field(ge=0, le=2**53 - 1)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Floor = Annotated[float, Field(ge=0, le=1e15)]
Ratio = Annotated[float, Field(ge=0, le=1000)]
Span = Annotated[Duration, AfterValidator(Between(timedelta(seconds=1), timedelta(days=366)))]
Hold = Annotated[Duration, AfterValidator(Between(timedelta(0), timedelta(days=366)))]

CouponType = Literal[
    "created", "issued", "claimed", "reserved", "released", "used", "returned", "expired", "revoked", "extended"
]
KeyField = Literal["ip", "device_id", "phone_prefix", "user_id", "order_id", "campaign_id", "channel", "code", "source"]
Slice = Literal["campaign", "coupon_type", "channel", "store", "region", "source"]


def _known_violation(code: str) -> str:
    if code not in VIOLATIONS:
        raise PydanticCustomError("violation", "is no violation of docs/events.md")
    return code


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("names a value twice; name each once")
    return values


Once = AfterValidator(_distinct)
Events = Annotated[tuple[CouponType, ...], Field(min_length=1), Once, "Types of coupon events that count."]
Slices = Annotated[tuple[Slice, ...], Once, "One series for each combination of these; none: one series for all."]
Violation = Annotated[str, AfterValidator(_known_violation)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class Violations(_Model):
    """Coupons or orders that break a rule of the specification. Explained and provisional violations do not count."""

    kind: Literal["violation"]
    codes: Annotated[tuple[Violation, ...], Once, "Which violations; none: all."] = ()
    by: Annotated[
        tuple[Literal["code", "campaign", "channel"], ...], Once, "One alert for each combination of these."
    ] = ("code", "campaign")
    at_least: Annotated[Count, "How many must stand."] = 1
    min_money_minor: Annotated[Minor, "Money at stake that they must reach together, in minor units."] = 0
    window: Annotated[Span | None, "Only those at fault so long ago at most, by the data's clock; else all."] = None


class After(_Model):
    """Only events that soon follow another event of the same coupon."""

    event: Annotated[CouponType, "The type of the earlier event."]
    within: Annotated[Span, "How long after it at most."]


class Velocity(_Model):
    """Many events with one key in a sliding window. Events without a value for a field of the key do not count."""

    kind: Literal["velocity"]
    events: Events
    by: Annotated[tuple[KeyField, ...], Field(min_length=1, max_length=3), Once, "The key."]
    distinct: Annotated[KeyField | None, "Count the different values of this field instead of events."] = None
    consecutive: Annotated[
        Literal["phone_prefix", "user_id", "code"] | None,
        "Count the longest run of consecutive numbers among the values of this field instead of events.",
    ] = None
    where: Annotated[
        dict[KeyField, Annotated[tuple[Label, ...], Field(min_length=1, max_length=1_000), Once]],
        "Only events whose field has one of these values.",
    ] = Field(default_factory=dict)
    after: Annotated[After | None, "Only events that soon follow another event of the same coupon."] = None
    at_least: Annotated[int, Field(ge=2, le=10**7), "The count that fires."]
    window: Annotated[Span, "Length of the window."]

    @model_validator(mode="after")
    def _one_count(self) -> Velocity:
        if self.distinct and self.consecutive:
            raise ValueError("distinct and consecutive exclude each other; name one")
        if (self.distinct or self.consecutive) in self.by:
            raise ValueError("counts the values of a field of its own key, which has one; count another field")
        return self


class Concentration(_Model):
    """A few values of a field take a large share of a campaign's events in a window."""

    kind: Literal["concentration"]
    events: Events
    of: Annotated[KeyField, "The field whose values are compared."]
    by: Annotated[tuple[Literal["campaign_id", "channel"], ...], Once, "One alert for each combination of these."] = (
        "campaign_id",
    )
    top: Annotated[int, Field(ge=1, le=100), "How many values are taken together: those with most events."] = 10
    share: Annotated[Share, "The share of all events that they must have together."]
    at_least: Annotated[Count, "How many events there must be in all."] = 100
    window: Annotated[Span, "Length of the window."]


def _not_linked_ids(over: Any) -> Any:
    """Linked ids come with user events, which have a clock of their own: the same log could give other groups."""
    if isinstance(over, list | tuple) and "linked" in over:
        raise ValueError("linked ids cannot join groups: user events have a clock of their own; leave out linked")
    return over


class Linked(_Model):
    """A group of users joined over shared values: of devices, addresses of the network, or phone prefixes.

    A value with more than `hub_above` users joins nobody (an office, a mobile carrier), and the alert says so.
    """

    kind: Literal["linked"]
    events: Events = ("claimed",)
    over: Annotated[
        tuple[Literal["device_id", "ip", "phone_prefix"], ...],
        Field(min_length=1),
        Once,
        BeforeValidator(_not_linked_ids),
        "What joins users.",
    ]
    users: Annotated[int, Field(ge=2, le=10**6), "How many users the group must have."]
    at_least: Annotated[Count, "How many events they must have together."] = 1
    hub_above: Annotated[int, Field(ge=2, le=10**7), "A value with more users than this joins nobody."] = 200
    window: Annotated[Span, "Length of the window."]


METRICS: Final = (
    *("created", "issued", "claimed", "reserved", "released", "used", "returned", "expired", "revoked"),
    *("discount", "claim_rate", "use_rate", "return_rate"),
    *("orders", "cancelled_orders", "gmv", "net_sales", "refunds", "discount_share", "average_order"),
)
"""Metrics that can be followed event by event. Counts of events and sums of money per bucket, and their ratios."""
MetricName = Annotated[str, StringConstraints(pattern=f"^({'|'.join(METRICS)})$"), "The metric."]


COUPON_METRICS: Final = frozenset(METRICS[:13])
COUPON_SLICES: Final = ("campaign", "channel", "source")
ORDER_SLICES: Final = ("channel", "store", "region", "source")


def _sliced(metric: str, by: tuple[str, ...]) -> None:
    """Raises `ValueError` if the events of the metric do not carry one of the slices."""
    possible = COUPON_SLICES if metric in COUPON_METRICS else ORDER_SLICES
    if not set(by) <= set(possible):
        raise ValueError("the metric's events carry no such slice; docs/alert-rules.md lists those of each metric")


class Sale(_Model):
    """An announced sale: what is unusual then was planned."""

    name: Annotated[Label, Field(min_length=1), "Name of the sale."]
    starts: Annotated[Instant, "Its first instant, with a zone."]
    ends: Annotated[Instant, "Its end, which does not belong to it."]
    like: Annotated[Label | None, "Name of the last sale like it, with which it is compared."] = None
    campaigns: Annotated[tuple[Label, ...], Field(max_length=1_000), "Its campaigns; none: all."] = ()

    @model_validator(mode="after")
    def _some_time(self) -> Sale:
        if self.ends <= self.starts:
            raise ValueError("ends before it starts; exchange them")
        return self


class Metric(_Model):
    """The detector finds a bucket of a metric unusual. `relative` and `absolute` must both be passed. `alerts show`
    says which channels, campaigns or stores drove it: their contributions add up to the distance from the band's
    middle."""

    kind: Literal["metric"]
    metric: MetricName
    by: Slices = ()
    bucket: Annotated[
        Duration, AfterValidator(Between(timedelta(minutes=1), timedelta(days=1))), "Length of a bucket."
    ] = timedelta(hours=1)
    score: Annotated[Share, "The detector's score that fires."] = 0.5
    relative: Annotated[Ratio, "Distance from the expected band, as a share of the band's middle."] = 0.3
    absolute: Annotated[Floor, "Distance from the expected band, in the metric's unit (money in minor units)."] = 10
    direction: Annotated[Literal["both", "up", "down"], "Which side of the band counts."] = "both"
    calendar: Annotated[bool, "Whether announced sales are no anomalies."] = True
    sales: Annotated[tuple[Sale, ...], "Set from the file's calendar."] = ()

    @model_validator(mode="after")
    def _possible(self) -> Metric:
        _sliced(self.metric, self.by)
        return self


RATES: Final = ("claim_rate", "use_rate", "return_rate")
"""The metrics for which a campaign's target in the ledger (`target_set`) can be compared with a window."""


class Threshold(_Model):
    """A metric over a window against a fixed value, against itself at an earlier time, or against a target or plan.
    `relative` and `absolute` must both be passed. `alerts show` says which channels, campaigns or stores drove it."""

    kind: Literal["threshold"]
    metric: MetricName
    by: Slices = ()
    window: Annotated[Span, "Length of the window."] = timedelta(hours=1)
    above: Annotated[Number | None, "Fires above this value (money in minor units, rates from 0 to 1)."] = None
    below: Annotated[Number | None, "Fires below this value."] = None
    against: Annotated[
        Literal["last_hour", "last_day", "last_week", "last_year", "last_7_days", "target", "plan"] | None,
        "What the metric is compared with, instead of a fixed value; `last_7_days`: with the middle one of the values "
        "at the same time of the seven days before.",
    ] = None
    target: Annotated[
        Number | None,
        "Its target for each window. Left out, that of the campaign in the ledger (`target_set`, last one recorded):"
        " only for claim_rate, use_rate and return_rate by campaign.",
    ] = None
    plan: Annotated[tuple[Planned, ...], Field(max_length=MOST_ROWS), "Its plan: a CSV file, or rows, below."] = ()
    direction: Annotated[Literal["both", "up", "down"], "Which changes count; only with `against`."] = "both"
    relative: Annotated[Ratio, "The change, as a share of what it is compared with."] = 0
    absolute: Annotated[Floor, "The change, in the metric's unit (money in minor units)."] = 0
    at_least: Annotated[Floor, "How many events or orders the window must have: a rate from three is no evidence."] = 0

    @model_validator(mode="after")
    def _one_bound(self) -> Threshold:
        if (self.above is None and self.below is None) == (self.against is None):
            raise ValueError("needs above, below or both, or else against; name one of these")
        _sliced(self.metric, self.by)
        if self.above is not None and self.below is not None and self.below > self.above:
            raise ValueError("below is greater than above, so every value would fire; exchange them")
        return self

    @model_validator(mode="after")
    def _whole_comparison(self) -> Threshold:
        if self.target is not None and self.against != "target":
            raise ValueError("has a target that nothing is compared with; write against: target")
        if bool(self.plan) != (self.against == "plan"):
            raise ValueError("against: plan needs a plan, and only this has one; name a file, or leave it out")
        if self.against == "target" and self.target is None and not (self.metric in RATES and "campaign" in self.by):
            raise ValueError("has no target, and the ledger has none for this metric by campaign; write target:")
        check(self.plan, self.by)
        return self


class Budget(_Model):
    """A campaign's discounts approach or pass its budget."""

    kind: Literal["budget"]
    share: Annotated[Annotated[float, Field(gt=0, le=10)] | None, "Fires when this share of the budget is spent."] = (
        None
    )
    exhausted_within: Annotated[Span | None, "Fires when the budget is exhausted so soon at the present rate."] = None
    ahead: Annotated[
        Ratio | None,
        "With `exhausted_within`: fires only if the share spent is so many times the share of the campaign's time for "
        "claims that has passed. A campaign of two hours is meant to spend its budget in two hours.",
    ] = None
    window: Annotated[Span, "The present rate is that of this window."] = timedelta(hours=1)

    @model_validator(mode="after")
    def _one_bound(self) -> Budget:
        if self.share is None and self.exhausted_within is None:
            raise ValueError("needs share, exhausted_within or both; name one")
        if self.ahead is not None and self.exhausted_within is None:
            raise ValueError("ahead is for exhausted_within; name both, or leave ahead out")
        return self


class Stock(_Model):
    """A campaign's stock of coupons is sold out soon, at the present rate of claims."""

    kind: Literal["stock"]
    sold_out_within: Annotated[Span, "Fires when the stock is sold out so soon."]
    window: Annotated[Span, "The present rate is that of this window."] = timedelta(minutes=10)


class Reconciliation(_Model):
    """Numbers that must be equal are not: accounts of partitions, coupons by state, entries and exits."""

    kind: Literal["reconciliation"]


class Guardrail(_Model):
    """An experiment's always-valid interval shows harm, or its sample ratio breaks."""

    kind: Literal["guardrail"]
    metric: Annotated[Literal["margin", "sales", "orders"], "What must not be harmed."] = "margin"
    sample_ratio: Annotated[bool, "Whether a broken sample ratio fires, too."] = True


HEALTH: Final = {
    "lag": "seconds that the oldest record not yet consumed has waited",
    "silent_source": "seconds without an event of a source, beyond its longest usual gap; at least half of that gap",
    "dead_letters": "new dead letters in the window",
    "late_share": "share (0 to 1) of the window's events that came too late for a rule's window",
    "clock_skew": "seconds that an event's occurred_at is ahead of its recorded_at",
    "provisional": "violations that were provisional throughout the window",
    "sweep_overdue": "coupons whose end has passed for longer than the window without a sweep, of campaigns that each"
    " have more than `above`",
    "channel_dead": "messages in a row that a channel did not take",
    "rule_failed": "evaluations in a row in which a rule failed or took too long",
}
"""What the health rules watch, with the meaning of the number."""


class Health(_Model):
    """The ledger's own condition. What the number means depends on `of`."""

    kind: Literal["health"]
    of: Annotated[str, StringConstraints(pattern=f"^({'|'.join(HEALTH)})$"), "What is watched."]
    above: Annotated[Floor, "Fires above this number."] = 0
    window: Annotated[Span, "Length of the window."] = timedelta(minutes=10)


class Sql(_Model):
    """A query over the projections. Each row that it returns is an offender. The query is one SELECT; it reads tables
    of the database only, no files."""

    kind: Literal["sql"]
    query: Annotated[str, StringConstraints(min_length=1, max_length=20_000), "The query."]
    key: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10), Once, "The columns that identify an offender."]
    value: Annotated[Name | None, "The column that is shown as the value."] = None
    money: Annotated[Name | None, "The column with the money at stake, in minor units."] = None
    timeout: Annotated[
        Duration, AfterValidator(Between(timedelta(seconds=1), timedelta(seconds=60))), "How long the query may run."
    ] = timedelta(seconds=10)


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

    summary: Annotated[Text, "One sentence: what, how much, where."]
    description: Annotated[Text | None, "What it may mean, and what to look at."] = None


class Action(_Model):
    """What `alerts act` does."""

    do: Annotated[Literal["unpublish_campaign", "revoke_coupons", "webhook"], "What it does."]
    channel: Annotated[Name | None, "The channel of a webhook."] = None
    automatic: Annotated[
        proofs.Proof | None,
        "The owner takes the action by itself, once, as soon as an alert fires; not for alerts of the past, and no "
        "webhooks. Names a file that proves the rule: the JSON of `alerts backtest --labels FILE --output json`, with "
        "at least 5 alerts, of which at most one in twenty is about no fault.",
    ] = None

    @model_validator(mode="after")
    def _where_to(self) -> Action:
        if self.do == "webhook" and self.automatic is not None:
            raise ValueError("a webhook is not called automatically; name its channel under channels instead")
        if (self.do == "webhook") != (self.channel is not None):
            raise ValueError("a webhook needs a channel, and only a webhook has one; name it, or leave it out")
        return self


class Rule(_Model):
    """One rule. In the file, `name` is `alert`, `hold` is `for`, `keep` is `keep_firing_for`, and `group` is the name
    of the group around it."""

    name: Annotated[Name, "Name of the rule: letters, digits, `_`, `.` and `-`."]
    group: Name = "default"
    expr: Annotated[Expression, "The expression: what looks wrong."]
    hold: Annotated[Hold, "How long the condition must hold before the alert fires."] = timedelta(0)
    keep: Annotated[
        Hold,
        "How long the condition must be over before the alert is resolved. Left out, a velocity rule takes its window, "
        "if that is longer, so that an alert stands while the window has what it counts.",
    ] = timedelta(minutes=5)
    every: Annotated[
        Duration,
        AfterValidator(Between(timedelta(minutes=1), timedelta(days=1))),
        "How often a rule is evaluated that is not evaluated event by event.",
    ] = timedelta(minutes=1)
    severity: Annotated[Severity, "How bad it is."] = "warning"
    labels: Annotated[dict[Name, Label], Field(max_length=MOST_LABELS), "Free labels, for grouping and routing."] = (
        Field(default_factory=dict)
    )
    annotations: Annotated[dict[Literal["en", "zh"], Annotations], "Texts by language."] = Field(default_factory=dict)
    owner: Annotated[Label | None, "Who is responsible."] = None
    channels: Annotated[Names, Once, "Where messages go: names under the top-level `channels`."] = ()
    inhibited_by: Annotated[
        Names,
        Once,
        "While an alert of one of these rules stands, alerts with the same labels are held back.",
    ] = ()
    playbook: Annotated[Text | None, "Where it says what to do: an address."] = None
    action: Annotated[Action | None, "What `alerts act` does."] = None
    escalate_after: Annotated[Hold | None, "Escalate if nobody has acknowledged the alert after this time."] = None
    escalate_to: Annotated[Names, Once, "Channels of the escalation."] = ()
    enabled: Annotated[bool, "Whether the rule is evaluated."] = True

    @model_validator(mode="after")
    def _whole_escalation(self) -> Rule:
        if self.escalate_to and self.escalate_after is None:
            raise ValueError("escalate_to without escalate_after never happens; name both")
        return self

    @model_validator(mode="after")
    def _keeps_its_window(self) -> Rule:
        if "keep" not in self.model_fields_set and isinstance(self.expr, Velocity) and self.expr.window > self.keep:
            object.__setattr__(self, "keep", self.expr.window)
        return self

    @model_validator(mode="after")
    def _proved(self) -> Rule:
        if self.action is not None and self.action.automatic is not None:
            proofs.check(self.action.automatic, self.condition)
        return self

    @cached_property
    def condition(self) -> str:
        """A hash of what decides when the rule fires, but for announced sales: its expression and times."""
        judged = self.model_dump(mode="json", include={"expr", "hold", "keep", "every"})
        judged["expr"].pop("sales", None)
        return hashlib.sha256(canonical_json(judged).encode()).hexdigest()[:12]

    @cached_property
    def version(self) -> str:
        """A hash of everything in the rule: rules with the same version give the same alerts."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, Any]:
        """The rule as JSON, without what has its default. `Rule.model_validate` reads it back."""
        whole = self.model_dump(mode="json")
        return {**self.model_dump(mode="json", exclude_defaults=True), "keep": whole["keep"]}  # the default depends


class RuleSet(_Model):
    """The rules of a file, with the calendar that they share."""

    rules: tuple[Rule, ...]
    calendar: tuple[Sale, ...] = ()

    def in_force(self) -> tuple[Rule, ...]:
        """The rules that are switched on. Metric rules know the announced sales."""
        return tuple(self._with_sales(rule) for rule in self.rules if rule.enabled)

    def _with_sales(self, rule: Rule) -> Rule:
        if not (isinstance(rule.expr, Metric) and rule.expr.calendar and self.calendar):
            return rule
        return rule.model_copy(update={"expr": rule.expr.model_copy(update={"sales": self.calendar})})
