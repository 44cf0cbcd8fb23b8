"""Threshold, budget and stock rules: known cases, and equal episodes whatever the batches and restarts. If they fail, a
budget runs away unseen."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import CAMPAIGN
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.live.apply import apply
from tests.examples import examples
from tests.folding import frame_of, scratch_store
from tests.test_alert_metrics import MINUTE, START, cut, deliveries, released

START_US = round(START.timestamp() * 1_000_000)


def rule(name: str, **expr: Any) -> Rule:
    return Rule.model_validate({"name": name, "expr": expr, "keep": "5m"})


Told = tuple[float, str, dict[str, Any]]


def told(*events: Told) -> list[Delivery]:
    """Events at these minutes, recorded when they happen."""
    found = []
    for offset, (minute, kind, more) in enumerate(events):
        at = START_US + round(minute * MINUTE)
        event = {
            "event_id": f"e{offset}",
            "type": kind,
            "occurred_at": datetime.fromtimestamp(at / 1e6, UTC),
            "source": "s",
            "coupon_id": f"c{offset}",
            "user_id": "u",
            "channel": "app",
            "order_id": f"o{offset}",
            "discount_minor": 0,
            "campaign_id": "k",
        }
        found.append(Delivery(event | more, at, 0, offset))
    return found


CAMPAIGN_EVENT = {
    "event_id": "k1",
    "type": "published",
    "occurred_at": START - timedelta(days=1),
    "source": "s",
    "campaign_id": "k",
    "name": "k",
    "coupon_type": "cash",
    "quantity": 100,
    "budget_minor": 10_000,
    "currency": "CNY",
}


def found(
    folder: Path,
    rules: Sequence[Rule],
    events: Sequence[Delivery],
    random_: random.Random | None = None,
    campaign: Mapping[str, Any] | None = None,
) -> list[Any]:
    folder.mkdir(exist_ok=True)
    with scratch_store(folder) as store:
        with store.transaction():
            put_in_force(store, rules)
            published = Delivery(CAMPAIGN_EVENT | dict(campaign or {}), START_US - MINUTE, 0, 0)
            apply(store, CAMPAIGN, frame_of(CAMPAIGN, [published]))
        released(store, list(cut(random_ or random.Random(1), events)), random_ or random.Random(1))
        columns = "rule, key, opened_at, closed_at, value, peak, threshold, times, details"
        return store.rows(f"SELECT {columns} FROM alert_episodes ORDER BY ALL")


def minute_of(at: datetime) -> float:
    return (at - START.replace(tzinfo=None)) / timedelta(minutes=1)


@pytest.mark.long
def test_a_budget_that_is_burnt_fires_and_a_returned_use_gives_it_back(tmp_path: Path) -> None:
    uses = [(n, "used", {"discount_minor": 1_000}) for n in range(9)]
    back = (9, "returned", {"coupon_id": "c8", "order_id": "o8", "discount_minor": None})
    [burnt] = found(
        tmp_path, [rule("Burnt", kind="budget", share=0.85, window="10m")], told(*uses, back, (30, "claimed", {}))
    )
    assert burnt[0] == "Burnt" and json.loads(burnt[1]) == {"campaign_id": "k"}
    assert burnt[4] == 0.9  # nine of ten thousand, before the return
    assert minute_of(burnt[2]) == 10  # the minute of the ninth use, and a minute of tolerance
    details = json.loads(burnt[8])
    assert details["budget"] == [10_000, "CNY"] and details["spent"] == [9_000, "CNY"]


@pytest.mark.long
def test_a_stock_that_will_be_sold_out_soon_fires(tmp_path: Path) -> None:
    claims: list[Told] = [(n / 4, "claimed", {}) for n in range(80)]
    [soon] = found(tmp_path, [rule("Soon", kind="stock", sold_out_within="10m", window="5m")], told(*claims))
    # Four a minute: at 60 claimed, 40 are left for ten minutes.
    assert minute_of(soon[2]) == pytest.approx(16, abs=1) and soon[5] < 600


@pytest.mark.long
def test_a_window_is_compared_with_the_one_a_day_before(tmp_path: Path) -> None:
    day = 24 * 60
    claims: list[Told] = [(n, "claimed", {}) for n in range(60)]
    claims += [(day + n * 20, "claimed", {}) for n in range(4)]
    less = rule(
        "Less", kind="threshold", metric="claimed", against="last_day", direction="down", relative=0.5, window="30m"
    )
    [episode] = found(tmp_path, [less], told(*claims, (day + 70, "claimed", {})))
    assert minute_of(episode[2]) > day and episode[4] < episode[6]


@pytest.mark.long
def test_the_middle_of_seven_days_is_not_moved_by_one_burst(tmp_path: Path) -> None:
    """Else the day after a sale looks like a dead channel, and people mute the rule."""
    day = 24 * 60
    claims: list[Told] = [(n * day + m, "claimed", {}) for n in range(6) for m in range(0, 60, 15 if n != 4 else 1)]
    dead: list[Told] = [(6 * day + n * 60, "used", {}) for n in range(2)]
    terms: dict[str, Any] = {"metric": "claimed", "direction": "down", "relative": 0.9, "window": "1h"}
    yesterday = rule("yesterday", kind="threshold", against="last_day", **terms)
    usual = rule("usual", kind="threshold", against="last_7_days", **terms)
    episodes = found(tmp_path, [yesterday, usual], told(*claims, *dead, (7 * day, "used", {})))
    days = {name: [minute_of(e[2]) // day for e in episodes if e[0] == name] for name in ("yesterday", "usual")}
    assert days["yesterday"] == [5, 6] and days["usual"] == [6]


@pytest.mark.long
def test_a_rate_from_few_claims_is_no_evidence_on_either_side(tmp_path: Path) -> None:
    """Else three claims without a use, on the day after a rush, are told as a collapse."""
    day = 24 * 60
    rush: list[Told] = [(n, kind, {}) for n in range(40) for kind in ("claimed", "used")]
    few: list[Told] = [(day + n * 10, "claimed", {}) for n in range(4)]
    terms: dict[str, Any] = {"metric": "use_rate", "against": "last_day", "direction": "down", "relative": 0.75}
    rules = [rule(f"of{n}", kind="threshold", window="1h", at_least=n, **terms) for n in (4, 5)]
    episodes = found(tmp_path, rules, told(*rush, *few, (day + 70, "claimed", {})))
    assert {e[0] for e in episodes} == {"of4"}


def test_a_coupon_that_is_granted_counts_in_the_use_rate(tmp_path: Path) -> None:
    """Else a rule that breaks a campaign of granted coupons goes unseen."""
    low = rule("low", kind="threshold", metric="use_rate", below=0.5, at_least=4, window="1h")
    grants: list[Told] = [(n, "issued", {}) for n in range(5)]
    [episode] = found(
        tmp_path, [low], told(*grants, (6, "used", {}), (6, "issued", {"user_id": None}), (90, "used", {}))
    )
    assert episode[4] < 0.5


@pytest.mark.long
def test_a_campaign_of_two_hours_is_not_ahead_of_its_plan(tmp_path: Path) -> None:
    """Else each flash sale, which is meant to spend its budget in hours, is an alert; and without the plan, a campaign
    of ten days that burns as fast is none."""
    uses: list[Told] = [(n * 5, "used", {"discount_minor": 400}) for n in range(12)]
    burnt = rule("burnt", kind="budget", exhausted_within="2h", ahead=1.5, window="30m")
    for hours, number in ((2, 0), (240, 1)):
        until = {"claim_from": START, "claim_until": START + timedelta(hours=hours)}
        assert len(found(tmp_path / str(hours), [burnt], told(*uses, (70, "claimed", {})), campaign=until)) == number


@pytest.mark.long
@examples(8)
@given(seed=st.integers(0, 2**32), number=st.integers(1, 120))
def test_batches_and_restarts_do_not_matter(seed: int, number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    events = deliveries(random.Random(seed), number)
    events = [Delivery(dict(d.event) | {"campaign_id": "k"}, d.recorded_at, d.partition, d.offset) for d in events]
    rules = [
        rule("above", kind="threshold", metric="used", above=2, window="30m", by=["channel"]),
        rule("rate", kind="threshold", metric="use_rate", below=0.4, at_least=3, window="1h"),
        rule("less", kind="threshold", metric="claimed", against="last_hour", relative=0.5, window="20m"),
        rule("usual", kind="threshold", metric="use_rate", against="last_7_days", relative=0.5, window="1h"),
        rule("burnt", kind="budget", share=0.05, exhausted_within="10h", window="30m"),
        rule("sold", kind="stock", sold_out_within="20h", window="30m"),
    ]
    whole = found(tmp_path_factory.mktemp("whole"), rules, events)
    cut_up = found(tmp_path_factory.mktemp("cut"), rules, events, random.Random(seed))
    assert whole == cut_up
