"""The names of the ledger's topics, and which field of an event is the key in each input topic. In a log, a
configurable prefix may precede the names."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

COUPON: Final = "coupon.events"
ORDER: Final = "order.events"
CAMPAIGN: Final = "campaign.events"
USER: Final = "user.events"
ALERTS: Final = "coupon.alerts"
OPERATIONS: Final = "coupon.operations"
DEAD_LETTERS: Final = "coupon.dead-letters"

INPUT_TOPICS: Final = (COUPON, ORDER, CAMPAIGN, USER)
OUTPUT_TOPICS: Final = (ALERTS, OPERATIONS, DEAD_LETTERS)
ALL_TOPICS: Final = (*INPUT_TOPICS, *OUTPUT_TOPICS)

KEY_FIELD: Final = MappingProxyType({COUPON: "coupon_id", ORDER: "order_id", CAMPAIGN: "campaign_id", USER: "user_id"})
