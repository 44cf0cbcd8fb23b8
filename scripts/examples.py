"""The smallest valid event of each type, for the documents."""

from __future__ import annotations

from typing import Any

from coupon_ledger.ledger.rules import NEEDS
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER

VALUES: dict[str, Any] = {
    "campaign_id": "double-11",
    "coupon_type": "cash",
    "channel": "app",
    "user_id": "u-1",
    "order_id": "o-1",
    "discount_minor": 500,
    "valid_until": "2026-12-31T23:59:59Z",
    "reason": "not_used",
    "currency": "CNY",
    "gross_minor": 12000,
    "net_minor": 11500,
    "refund_minor": 11500,
    "name": "双十一",
    "cost_kind": "media",
    "amount_minor": 250000,
    "metric": "use_rate",
    "target": 1500,
    "arm": "control",
    "attributes": {"region": "south"},
    "alias_id": "phone-9f86d081",
    "kind": "click",
}
KEYS = {"coupon_id": "c-1", "order_id": "o-1", "campaign_id": "double-11", "user_id": "u-1"}


def example(topic: str, kind: str) -> dict[str, Any]:
    """The smallest valid event of that type, as in a line of NDJSON."""
    key = KEY_FIELD[topic]
    prefix = {COUPON: "c", ORDER: "o", CAMPAIGN: "m"}.get(topic, "u")
    head = {
        "topic": topic,
        "type": kind,
        "event_id": f"{prefix}-{kind}-1",
        "occurred_at": "2026-11-11T00:00:00Z",
        "source": "shop",
        key: KEYS[key],
    }
    return head | {name: VALUES[name] for name in NEEDS[topic][kind] if name != key}
