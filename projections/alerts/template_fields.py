"""The fields that the texts of a rule can name: which ones its alerts have, and how their values are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from coupon_ledger.projections.alerts.rules import Rule

Format = Literal["count", "number", "percent", "money", "instant", "duration", "word", "text", "top"]
FORMATS: Final[Mapping[Format, str]] = {
    "count": "a whole number with thousands separators: 12,345",
    "number": "a number: 12,345 or 0.25",
    "percent": "a share as per cent: 0.25 is 25.0%",
    "money": "an amount in the currency: 1,234.50 CNY",
    "instant": "date and time in the reader's zone",
    "duration": "a length of time: 10 min",
    "word": "a code in the reader's language: the label of used_when_used",
    "text": "as it is",
    "top": "who contributed most, with how much: d-17 (12), d-9 (4)",
}


@dataclass(frozen=True, slots=True)
class TemplateField:
    """A field of an alert. `format`: how its value is written unless the template says otherwise; `measured`: in the
    unit of what the rule measures. `kinds`: the kinds of rules that have it; None: all. `personal`: whether it can be
    personal data, which only channels that are marked for it may get."""

    meaning: str
    format: Format | Literal["measured"] = "text"
    kinds: frozenset[str] | None = None
    personal: bool = False


def _of(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


_EVENTS: Final = _of("velocity", "concentration", "linked", "violation")
FIELDS: Final[Mapping[str, TemplateField]] = {
    "alert": TemplateField("id of the alert"),
    "rule": TemplateField("name of the rule"),
    "group": TemplateField("group of the rule"),
    "severity": TemplateField("severity of the rule", "word"),
    "owner": TemplateField("who is responsible"),
    "playbook": TemplateField("where it says what to do"),
    "key": TemplateField(
        "what the alert is about: all parts of its key, such as campaign 8, device d-17", personal=True
    ),
    "value": TemplateField("what was measured", "measured"),
    "threshold": TemplateField("the value from which the rule fires", "measured"),
    "since": TemplateField("when the condition began to hold", "instant"),
    "at": TemplateField("when the alert fired", "instant"),
    "lasted": TemplateField("how long the condition has held", "duration"),
    "window": TemplateField("length of the rule's window", "duration"),
    "money": TemplateField("money at stake", "money"),
    "currency": TemplateField("currency of the money at stake"),
    "count": TemplateField("number of events, violations or rows behind the alert", "count"),
    "distinct": TemplateField("number of different values", "count", _of("velocity", "concentration", "linked")),
    "users": TemplateField("number of users behind the alert", "count", _EVENTS),
    "coupons": TemplateField("number of coupons behind the alert", "count", _EVENTS),
    "orders": TemplateField("number of orders behind the alert", "count", _EVENTS),
    "late": TemplateField("number of events that came too late to be counted", "count", _EVENTS),
    "top": TemplateField("who contributed most", "top", personal=True),
    "hubs": TemplateField("shared values that joined nobody, since too many users have them", "count", _of("linked")),
    "metric": TemplateField("the metric", "word", _of("metric", "threshold", "guardrail")),
    "expected_low": TemplateField("lower bound of the expected band", "measured", _of("metric")),
    "expected_high": TemplateField("upper bound of the expected band", "measured", _of("metric")),
    "score": TemplateField("the detector's score, from 0 to 1", "number", _of("metric")),
    "before": TemplateField("what the value is compared with", "measured", _of("threshold")),
    "change": TemplateField("change against that, or distance from the band", "percent", _of("metric", "threshold")),
    "spent": TemplateField("what is spent of the budget", "money", _of("budget")),
    "budget": TemplateField("the campaign's budget", "money", _of("budget")),
    "left": TemplateField("coupons left in stock", "count", _of("stock")),
    "arm": TemplateField("arm of the experiment", "text", _of("guardrail")),
    "check": TemplateField("what was compared", "text", _of("reconciliation")),
    "of": TemplateField("what was watched", "word", _of("health")),
    "failed": TemplateField("rule that could not be evaluated", "text", _of("health")),
    "error": TemplateField("why the evaluation failed", "text", _of("health")),
}
"""The fields of alerts besides the parts of their keys."""

LABELS: Final[Mapping[str, TemplateField]] = {
    "campaign": TemplateField("the campaign (also `campaign_id`)"),
    "coupon_type": TemplateField("type of the coupons", "word"),
    "channel": TemplateField("the channel"),
    "store": TemplateField("the store"),
    "region": TemplateField("the region"),
    "source": TemplateField("the system that published the events"),
    "code": TemplateField("the violation, or the coupons' code", "word"),
    "ip": TemplateField("address of the network", personal=True),
    "device_id": TemplateField("the device", personal=True),
    "phone_prefix": TemplateField("first digits of the phone number", personal=True),
    "user_id": TemplateField("the user", personal=True),
    "order_id": TemplateField("the order"),
}
"""The parts of keys. A rule's alerts have those that its expression names."""
ALSO: Final = {"campaign_id": "campaign"}


def key_labels(rule: Rule) -> tuple[str, ...]:
    """The parts of the keys of the rule's alerts."""
    expr = rule.expr
    match expr.kind:
        case "sql":
            names: tuple[str, ...] = expr.key
        case "budget" | "stock" | "guardrail":
            names = ("campaign",)
        case "health":
            names = ("source",) if expr.of == "silent_source" else ("channel",) if expr.of == "channel_dead" else ()
        case "linked":
            names = ("user_id",)
        case "reconciliation":
            names = ()
        case _:
            names = tuple(expr.by)
    return tuple(ALSO.get(name, name) for name in names)


def fields_of(rule: Rule) -> Mapping[str, TemplateField]:
    """The fields that the templates of the rule may name, by name."""
    own = {name: field for name, field in FIELDS.items() if field.kinds is None or rule.expr.kind in field.kinds}
    parts = {name: _part(name, rule) for name in key_labels(rule)}
    also = {name: parts[of] for name, of in ALSO.items() if of in parts}
    return parts | also | own if rule.expr.kind == "sql" else own | parts | also


def _part(name: str, rule: Rule) -> TemplateField:
    field = LABELS.get(name, TemplateField("a column of the key", personal=True))
    # A violation's code is a word of ours, a coupon's may be one person's.
    return replace(field, personal=True) if name == "code" and rule.expr.kind != "violation" else field


_MONEY: Final = frozenset("discount gmv net_sales refunds average_order".split())
_SHARES: Final = frozenset("claim_rate use_rate return_rate discount_share".split())


def measured(rule: Rule) -> Format:
    """How the value of the rule's alerts, and its threshold, are written."""
    expr = rule.expr
    match expr.kind:
        case "metric" | "threshold":
            return "money" if expr.metric in _MONEY else "percent" if expr.metric in _SHARES else "count"
        case "concentration":
            return "percent"
        case "budget":
            return "percent" if expr.share is not None else "duration"
        case "guardrail":
            return "percent"
        case "stock":
            return "duration"
        case "health" if expr.of in ("lag", "silent_source", "clock_skew"):
            return "duration"
        case "health" if expr.of == "late_share":
            return "percent"
        case "health" | "sql":
            return "number"
    return "count"
