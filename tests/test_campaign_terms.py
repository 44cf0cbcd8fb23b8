"""A campaign's terms are carried by its own events alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.command_line import coupon_event, done, ndjson


def of_campaign(kind: str, day: int, **fields: Any) -> dict[str, Any]:
    common = {"topic": "campaign.events", "source": "shop", "campaign_id": "k", "event_id": f"{kind}-{day}"}
    return {**common, "type": kind, "occurred_at": f"2026-10-{day:02}T00:00:00Z", **fields}


TERMS = {"name": "K", "coupon_type": "cash", "currency": "USD", "budget_minor": 50_000, "channel": "app", "quantity": 1}
OTHERS = {"name": "L", "coupon_type": "gift", "budget_minor": 7, "channel": "tv", "quantity": 0, "per_user_limit": 0}


@pytest.mark.long
@pytest.mark.parametrize(
    "told",
    [
        of_campaign("cost_booked", 2, cost_kind="media", amount_minor=300_000, **OTHERS, currency="JPY"),
        of_campaign("target_set", 2, metric="gmv_minor", target=1, **OTHERS, currency="JPY"),
        of_campaign("assigned", 2, user_id="u-1", arm="control", **OTHERS, currency="JPY"),
    ],
    ids=lambda event: event["type"],
)
def test_a_cost_a_target_or_an_assignment_changes_no_term(home: object, told: dict[str, Any]) -> None:
    """A cost in another currency would move the budget into it, and its fields would bound the coupons."""
    claimed = coupon_event("claimed", "e-1", campaign_id="k", occurred_at="2026-10-03T00:00:00Z")
    done("init")
    done("publish", "-", stdin=ndjson([of_campaign("published", 1, **TERMS), told, claimed]))
    done("consume")
    shown = done("campaigns", "show", "k", "--output", "json").json
    assert {name: shown[name] for name in TERMS} == TERMS
    assert shown["per_user_limit"] is None
    broken = done("violations", "--output", "ndjson").rows
    assert {row["violation"] for row in broken} == {"claimed_when_none"}
    done("verify")
    past = done("campaigns", "show", "k", "--at", "2026-10-02T12:00:00Z", "--output", "json").json
    assert {name: past[name] for name in TERMS} == TERMS


def test_an_end_carries_terms(home: object) -> None:
    done("init")
    done("publish", "-", stdin=ndjson([of_campaign("published", 1, **TERMS), of_campaign("ended", 2, quantity=9)]))
    done("consume")
    assert done("campaigns", "show", "k", "--output", "json").json["quantity"] == 9
