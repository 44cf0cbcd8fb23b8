"""Quiet days are quiet, and a fault is what its label says: no more, no less.

The streams are folded with the columnar fold, which knows nothing of the generators.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from coupon_ledger.cli.sources import faults
from coupon_ledger.cli.sources.arrival import ARRIVES_AT, Frames, in_arrival_order, with_arrivals
from coupon_ledger.cli.sources.complete_journey import Tables, load, translate
from coupon_ledger.cli.sources.faults import KINDS, Label, description, inject
from coupon_ledger.cli.sources.quiet import QuietWorld, quiet_days
from coupon_ledger.ledger.codec import JSON_FIELDS, SCHEMA_NAME
from coupon_ledger.ledger.columns import encode_columns, polars_schema
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.events import parse_event
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER
from coupon_ledger.ledger.validity import split_valid
from coupon_ledger.ledger.words import catalogue
from coupon_ledger.projections.live.apply import apply
from tests.command_line import done, ledger, one_sentence, opened_log
from tests.folding import scratch_store

WORLD = QuietWorld(seed=3, events_per_day=3_000)
REMOVE = ("use-rate-collapse", "dead-channel", "harmful-arm")
BROKEN = {
    "double-use-ring": {"used_when_used", "wrong_user", "discount_mismatch"},
    "refund-abuse": {"below_min_after_refund"},
    "price-error": {"discount_above_value"},
    "over-issue": {"over_issue"},
}
"""The violations that a fault causes; the others cause none."""


@cache
def quiet() -> Frames:
    return quiet_days(WORLD)


@cache
def faulty(kind: str, seed: int = 1) -> tuple[Frames, Label]:
    frames, labels = inject(quiet(), [kind], seed)
    assert len(labels) == 1
    return frames, labels[0]


def wired(topic: str, frame: pl.DataFrame) -> pl.DataFrame:
    """As it comes from the log, recorded after the stretch. All events must be valid."""
    schema = polars_schema(SCHEMA_NAME[topic])
    whole = frame.select(
        (pl.col(c) if c in frame.columns else pl.lit(None)).cast(t).alias(c) for c, t in schema.items()
    )
    valid, invalid = split_valid(topic, whole)
    assert not invalid, invalid[:3]
    return valid.drop("row").with_columns(
        pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        recorded_at=pl.lit(datetime(2030, 1, 1)),
        log_partition=pl.lit(0, pl.Int32),
        log_offset=pl.int_range(pl.len()),
    )


@cache
def broken_by(kind: str) -> pl.DataFrame:
    return violations(faulty(kind)[0])


def violations(frames: Frames) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as folder, scratch_store(Path(folder)) as store:
        for topic, frame in frames.items():
            with store.transaction():
                apply(store, topic, wired(topic, frame))
        return store.frame("SELECT violation, key, event_id, topic, counterpart FROM violations")


# ── Quiet days ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_the_same_world_gives_the_same_events() -> None:
    """Else no figure about alerts can be measured twice."""
    for topic, frame in quiet_days(replace(WORLD)).items():
        assert_frame_equal(frame, quiet()[topic])


@pytest.mark.long
def test_other_worlds_have_no_id_in_common() -> None:
    """Else two simulations in one log are conflicts of each other."""
    others = [replace(WORLD, seed=4), replace(WORLD, days=13), replace(WORLD, events_per_day=2_999)]
    for topic, frame in quiet().items():
        mine = set(frame["event_id"])
        for other in others:
            assert mine.isdisjoint(quiet_days(other)[topic]["event_id"])


@pytest.mark.long
def test_quiet_days_break_no_rule() -> None:
    """Else an alert that is right is counted as a false one."""
    assert violations(quiet()).rows() == []


@pytest.mark.long
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), days=st.integers(1, 9), events=st.integers(1, 800))
def test_no_quiet_world_breaks_a_rule_or_has_an_invalid_event(seed: int, days: int, events: int) -> None:
    """Else a small or a large simulation ends in an error or in violations."""
    assert violations(quiet_days(QuietWorld(seed=seed, days=days, events_per_day=events))).rows() == []


@pytest.mark.long
def test_a_share_of_double_uses_is_what_was_asked_for() -> None:
    """Else "rare violations" are none, or flood the day."""
    frames = quiet_days(replace(WORLD, double_use_share=0.02))
    found = Counter(violations(frames)["violation"])
    uses = frames[COUPON].filter(type="used")["coupon_id"].n_unique()
    assert set(found) == {"used_when_used", "discount_mismatch"}
    assert found["used_when_used"] / uses == pytest.approx(0.02, rel=0.5)


@pytest.mark.long
def test_every_kind_of_event_is_one_for_its_model_too() -> None:
    """Else what the columns accept is refused where a producer publishes it."""
    for topic, frame in quiet().items():
        for _, rows in frame.drop(ARRIVES_AT).group_by("type"):
            for row in rows.head(20).iter_rows(named=True):
                present = {n: json.loads(v) if n in JSON_FIELDS else v for n, v in row.items() if v is not None}
                parse_event(topic, present)


@pytest.mark.long
def test_days_have_a_rhythm_and_the_size_asked_for() -> None:
    """Else a detector that knows hours and weekdays is not put to the test."""
    frames = quiet_days(QuietWorld(days=28, flash_sales=False))
    every = pl.concat(frame.select("occurred_at") for frame in frames.values())
    assert every.height / 28 == pytest.approx(20_000, rel=0.15)
    local = frames[ORDER].filter(type="placed")["occurred_at"].dt.convert_time_zone("Asia/Shanghai")
    hours = local.dt.hour().value_counts().sort("occurred_at")["count"]
    assert hours[4] * 10 < hours[20]
    weekdays = local.dt.weekday().value_counts().sort("occurred_at")["count"]
    assert weekdays[5] > 1.08 * weekdays[1]  # Saturday and Tuesday


def test_flash_sales_are_announced_and_are_rushes() -> None:
    """Else nothing tells a planned sale from an attack."""
    flash = quiet()[CAMPAIGN].filter(mechanic="flash_sale")
    assert flash.height == 2
    assert (flash["claim_from"] - flash["occurred_at"]).min() == timedelta(days=3)
    claims = quiet()[COUPON].filter(type="claimed").join(flash.select("campaign_id", "claim_from"), on="campaign_id")
    early = claims.filter(pl.col("occurred_at") < pl.col("claim_from") + timedelta(minutes=15))
    assert early.height > 0.5 * claims.height > 50


def test_ordinary_people_share_addresses_and_devices() -> None:
    """Else "many users on one address" would find every fault and no office."""
    claims = quiet()[COUPON].filter(type="claimed")
    assert claims.select("ip", "device_id", "phone_prefix").null_count().row(0) == (0, 0, 0)
    users = claims.group_by("ip").agg(users=pl.col("user_id").n_unique(), net=pl.col("ip").first().str.head(4))
    assert users.filter(pl.col("net") == "117.", pl.col("users") > 20).height > 5  # carriers
    assert users.filter(pl.col("net") == "221.", pl.col("users") > 5).height > 5  # offices
    families = claims.group_by("device_id").agg(pl.col("user_id").n_unique())
    assert families["user_id"].max() == 3
    assert 0.01 < share(families["user_id"] > 1) < 0.1


def test_spending_stays_within_stock_and_budget() -> None:
    """Else a rule about budgets fires on a quiet day."""
    terms = quiet()[CAMPAIGN].filter(type="published").select("campaign_id", "budget_minor")
    created = quiet()[COUPON].filter(type="created").select("coupon_id", "campaign_id").unique()
    spent = quiet()[COUPON].filter(type="used").unique("event_id").drop("campaign_id").join(created, on="coupon_id")
    sums = spent.group_by("campaign_id").agg(pl.col("discount_minor").sum()).join(terms, on="campaign_id")
    assert sums.height > 5
    assert (sums["discount_minor"] < sums["budget_minor"]).all()


def test_events_arrive_soon_and_in_the_order_of_time() -> None:
    """Else every event of the simulation is a late one."""
    waits = quiet()[COUPON].select(pl.col(ARRIVES_AT) - pl.col("occurred_at")).to_series()
    first = quiet()[COUPON].sort(ARRIVES_AT).unique("event_id", keep="first", maintain_order=True)
    soon = (first[ARRIVES_AT] - first["occurred_at"]) < timedelta(minutes=1)
    assert share(soon) > 0.995
    assert (waits > timedelta(0)).all()
    whole = dict.fromkeys(quiet(), 0)
    latest: dict[str, datetime] = {}
    for topic, frame in in_arrival_order(quiet(), 200):
        assert frame.height <= 200
        whole[topic] += frame.height
        at = frame["occurred_at"].median()
        assert isinstance(at, datetime)
        assert at > latest.get(topic, at) - timedelta(hours=1)
        latest[topic] = at
    assert whole == {topic: frame.height for topic, frame in quiet().items()}


# ── Every fault ──────────────────────────────────────────────────────────────────────────────────────────────

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.long
@every_kind
def test_the_same_seed_gives_the_same_fault(kind: str) -> None:
    """Else a miss cannot be looked at again."""
    frames, label = faulty(kind)
    again, labels = inject(quiet(), [kind], 1)
    assert labels == [label]
    for topic, frame in frames.items():
        assert_frame_equal(frame, again[topic])
    assert inject(quiet(), [kind], 2)[1] != [label]


@pytest.mark.long
@every_kind
def test_a_fault_changes_nothing_but_what_its_label_lists(kind: str) -> None:
    """Else an alert on a changed event that no label lists counts as false."""
    assert_only_labelled(quiet(), *faulty(kind))


def assert_only_labelled(clean: Frames, frames: Frames, label: Label) -> None:
    added = {*label.event_ids, *label.context_event_ids}
    held = added if label.kind == "stuck-consumer" else set()
    removed = set(label.removed_event_ids)
    ids: set[str] = set()
    for topic, frame in frames.items():
        ids |= set(frame["event_id"])
        before = clean[topic].filter(~pl.col("event_id").is_in(sorted(removed)))
        moved = pl.col("event_id").is_in(sorted(held))
        new = pl.col("event_id").is_in(sorted(added)) & ~moved
        left = frame.filter(~new).select(before.columns)
        same = ["event_id", "occurred_at", "type"]
        assert_frame_equal(left.filter(~moved), before.filter(~moved), check_row_order=False)
        assert_frame_equal(left.filter(moved).select(same), before.filter(moved).select(same), check_row_order=False)
    known = set(pl.concat(frame.select("event_id") for frame in clean.values()).to_series())
    assert added <= ids
    assert removed.isdisjoint(ids)
    assert removed <= known
    assert (added - held).isdisjoint(known)
    assert set(label.event_ids).isdisjoint(label.context_event_ids)


@every_kind
def test_what_a_label_names_is_in_its_events(kind: str) -> None:
    """Else a rule that names the right device is told that it is wrong."""
    frames, label = faulty(kind)
    listed = {*label.event_ids, *label.context_event_ids, *label.removed_event_ids}
    for field, values in label.keys.items():
        seen: set[str] = set()
        for frame in (*frames.values(), *quiet().values()):
            if field in frame.columns:
                seen |= set(frame.filter(pl.col("event_id").is_in(sorted(listed)))[field].drop_nulls())
        assert values, field
        assert set(values) <= seen, field
    assert label.start < label.end
    assert label.currency == "CNY"
    assert label.money_minor > 0 or kind == "stuck-consumer"


@every_kind
def test_a_faults_events_happen_when_the_label_says(kind: str) -> None:
    """Else the delay of an alert is measured from a wrong instant."""
    frames, label = faulty(kind)
    clock = ARRIVES_AT if kind == "stuck-consumer" else "occurred_at"
    source = quiet() if kind == "stuck-consumer" else frames
    at = pl.concat(
        frame.filter(pl.col("event_id").is_in(list(label.event_ids))).select(clock, "type") for frame in source.values()
    )
    # An order is placed, and a coupon claimed, shortly before the use with which the fault begins.
    assert at.height == len(label.event_ids)
    slack = timedelta(minutes=31)
    assert at.filter(~pl.col(clock).is_between(label.start - slack, label.end)).rows() == []


@pytest.mark.long
@every_kind
def test_a_fault_breaks_the_rules_that_it_should_and_no_other(kind: str) -> None:
    """Else there are violations for which no label accounts, or the fault is none."""
    _, label = faulty(kind)
    broken = broken_by(kind)
    assert set(broken["violation"]) == BROKEN.get(kind, set())
    named = set(label.keys.get("coupon_id", ())) | set(label.keys.get("order_id", ()))
    assert set(broken["key"]) <= named


@every_kind
def test_a_fault_fits_into_the_real_year(kind: str, year: Frames) -> None:
    """Else the rules are never tried on real data."""
    frames, [label] = inject(year, [kind], 5)
    assert_only_labelled(year, frames, label)
    for topic, frame in frames.items():
        listed = frame.filter(pl.col("event_id").is_in([*label.event_ids, *label.context_event_ids]))
        wired(topic, listed)
        encode_columns(topic, listed.drop(ARRIVES_AT))
    assert label.currency == "USD"
    assert label.event_ids or label.removed_event_ids


@pytest.fixture(scope="module")
def year() -> Frames:
    """The real year of 250 households, with all that its campaigns sent to them."""
    tables = load()
    some = set(range(1, 2_500, 10))

    def mine(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("household_id").is_in(some)) if "household_id" in frame.columns else frame

    part = Tables(**{name: mine(getattr(tables, name)) for name in Tables.__dataclass_fields__})
    return with_arrivals(translate(part), 1)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1_000_000), kind=st.sampled_from(sorted(KINDS)), days=st.integers(2, 10))
def test_any_seed_and_length_of_the_stretch_gives_a_fault_with_its_label(seed: int, kind: str, days: int) -> None:
    """Else a suite with other seeds ends in an error."""
    clean = quiet_days(QuietWorld(seed=seed % 97, days=days, events_per_day=600))
    frames, [label] = inject(clean, [kind], seed)
    assert_only_labelled(clean, frames, label)
    assert set(violations(frames)["violation"]) <= BROKEN.get(kind, set())


def test_all_faults_go_into_one_stream() -> None:
    """Else a day with two faults has labels for events that are not there."""
    frames, labels = inject(quiet(), [*KINDS, "device-farm"], 9)
    assert [label.kind for label in labels] == [*KINDS, "device-farm"]
    ids = set(pl.concat(frame.select("event_id") for frame in frames.values()).to_series())
    for label in labels:
        assert {*label.event_ids, *label.context_event_ids} <= ids, label.kind
    farms = [set(label.keys["device_id"]) for label in labels if label.kind == "device-farm"]
    assert farms[0].isdisjoint(farms[1])
    assert set(violations(frames)["violation"]) <= set().union(*BROKEN.values())


# ── What each fault is ───────────────────────────────────────────────────────────────────────────────────────


def listed(kind: str, topic: str, event: str) -> pl.DataFrame:
    frames, label = faulty(kind)
    return frames[topic].filter(pl.col("event_id").is_in(list(label.event_ids)), type=event)


def test_a_device_farm_is_few_devices_with_many_users() -> None:
    claims = listed("device-farm", COUPON, "claimed")
    assert claims.group_by("device_id").agg(pl.col("user_id").n_unique())["user_id"].to_list() == [40, 40, 40]
    assert claims["ip"].n_unique() > 3


def test_mass_claims_of_one_address_come_from_many_devices() -> None:
    claims = listed("one-ip", COUPON, "claimed")
    assert (claims["ip"].n_unique(), claims["device_id"].n_unique(), claims["user_id"].n_unique()) == (1, 150, 150)
    assert span(claims["occurred_at"]) < timedelta(minutes=20)


def test_consecutive_phones_are_consecutive() -> None:
    prefixes = sorted({int(p) for p in listed("consecutive-phones", COUPON, "claimed")["phone_prefix"]})
    assert prefixes == list(range(prefixes[0], prefixes[0] + 3))


def test_a_slow_drip_is_slow() -> None:
    claims = listed("slow-drip", COUPON, "claimed").sort("occurred_at")
    assert claims["device_id"].n_unique() == 1
    per_hour = claims.group_by(pl.col("occurred_at").dt.truncate("1h")).len()["len"]
    assert (per_hour <= 10).all()
    assert span(claims["occurred_at"]) > timedelta(days=3)


def test_a_leaked_code_is_claimed_by_strangers() -> None:
    frames, label = faulty("leaked-code")
    [code] = label.keys["code"]
    members = quiet()[COUPON].filter(type="claimed", code=code)["user_id"]
    assert len(members) > 0
    claims = listed("leaked-code", COUPON, "claimed")
    assert set(claims["code"]) == {code}
    assert set(members).isdisjoint(claims["user_id"])
    assert claims["device_id"].n_unique() > 200
    assert frames[CAMPAIGN].filter(campaign_id=label.campaign_id)["visibility"].drop_nulls()[0] == "private"


def test_coupons_of_a_ring_are_used_again_by_others() -> None:
    frames, label = faulty("double-use-ring")
    uses = frames[COUPON].filter(pl.col("coupon_id").is_in(list(label.keys["coupon_id"])), type="used")
    again = uses.group_by("coupon_id").agg(pl.len(), pl.col("user_id").n_unique(), pl.col("order_id").n_unique())
    assert set(again.drop("coupon_id").rows()) == {(3, 3, 3)}
    assert label.money_minor == listed("double-use-ring", COUPON, "used")["discount_minor"].sum()


def test_refund_abuse_is_use_refund_use() -> None:
    frames, label = faulty("refund-abuse")
    mine = frames[COUPON].filter(pl.col("coupon_id").is_in(list(label.keys["coupon_id"])))
    lives = mine.sort("occurred_at").group_by("coupon_id").agg("type")["type"].to_list()
    cycle = ["created", "issued", "claimed", *["used", "returned"] * 3, "used"]
    assert Counter(map(tuple, lives)) == {tuple(cycle): 8, ("created", "issued", "claimed", "used"): 12}
    assert broken_by("refund-abuse").height == 12


def test_a_price_error_takes_off_more_than_the_value() -> None:
    frames, label = faulty("price-error")
    uses = listed("price-error", COUPON, "used")
    faces = frames[COUPON].filter(type="created").select("coupon_id", "face_value_minor").unique()
    above = uses.drop("face_value_minor").join(faces, on="coupon_id")
    assert (above["discount_minor"] == 10 * above["face_value_minor"]).all()
    assert label.money_minor == (above["discount_minor"] - above["face_value_minor"]).sum()


def test_over_issue_is_above_the_stock() -> None:
    frames, label = faulty("over-issue")
    [stock] = frames[CAMPAIGN].filter(type="published", campaign_id=label.campaign_id)["quantity"]
    claims = frames[COUPON].filter(type="claimed", campaign_id=label.campaign_id).sort("occurred_at", "event_id")
    assert set(claims.slice(stock)["coupon_id"]) == set(label.keys["coupon_id"]) != set()


def test_a_budget_that_runs_away_is_spent_within_hours() -> None:
    frames, label = faulty("budget-runaway")
    [budget] = frames[CAMPAIGN].filter(type="published", campaign_id=label.campaign_id)["budget_minor"]
    coupons = frames[COUPON].filter(type="created", campaign_id=label.campaign_id)["coupon_id"]
    uses = frames[COUPON].filter(pl.col("coupon_id").is_in(coupons.implode()), type="used")
    assert uses["discount_minor"].sum() - budget == label.money_minor > budget
    calm = uses.filter(pl.col("occurred_at") < label.start)["discount_minor"].sum()
    assert 0 < calm < budget / 5
    assert label.end - label.start < timedelta(hours=7)


def test_uses_collapse_between_two_edits_of_the_rule() -> None:
    frames, label = faulty("use-rate-collapse")
    amended = listed("use-rate-collapse", CAMPAIGN, "amended").sort("occurred_at")
    assert amended["occurred_at"][0] == label.start
    assert amended["min_spend_minor"][0] >= 20 * (amended["min_spend_minor"][-1] if amended.height > 1 else 1)
    before, after = (uses_of(f, label) for f in (quiet(), frames))
    assert before > 10
    assert after < 0.3 * before


def uses_of(frames: Frames, label: Label) -> int:
    coupons = quiet()[COUPON].filter(type="created", campaign_id=label.campaign_id)["coupon_id"]
    within = pl.col("occurred_at").is_between(label.start, label.end, closed="left")
    return frames[COUPON].filter(within, pl.col("coupon_id").is_in(coupons.implode()), type="used").height


def test_a_dead_channel_is_silent_and_the_others_are_not() -> None:
    frames, label = faulty("dead-channel")
    [channel] = label.keys["channel"]
    within = pl.col("occurred_at").is_between(label.start, label.end, closed="left")
    for topic, kind in ((COUPON, "claimed"), (ORDER, "placed")):
        before, after = (set(f[topic].filter(within, type=kind)["channel"]) for f in (quiet(), frames))
        assert channel in before
        assert after == before - {channel} != set()


def test_a_stuck_consumers_events_come_after_it_runs_again_in_their_order() -> None:
    frames, label = faulty("stuck-consumer")
    [source] = label.keys["source"]
    held = pl.col("event_id").is_in(list(label.event_ids))
    for topic in (COUPON, ORDER):
        during = frames[topic].filter(
            pl.col(ARRIVES_AT).is_between(label.start, label.end, closed="left"), pl.col("source") == source
        )
        repeats = quiet()[topic].filter(pl.col("event_id").is_duplicated())["event_id"]
        assert during.filter(~pl.col("event_id").is_in(repeats.implode())).is_empty()
        came, due = (f[topic].filter(held).sort(ARRIVES_AT, "event_id") for f in (frames, quiet()))
        if came.height:
            assert came[ARRIVES_AT].is_between(label.end, label.end + timedelta(minutes=5)).all()
            assert came["event_id"].to_list() == due["event_id"].to_list()


def test_lost_events_of_a_stuck_consumer_never_come() -> None:
    frames, label = KINDS["stuck-consumer"](quiet(), np.random.default_rng(1), lost=True, source="shop")
    assert_only_labelled(quiet(), frames, label)
    assert len(label.removed_event_ids) > 50
    assert label.event_ids == ()


def test_the_harmful_arm_orders_less_than_the_control() -> None:
    frames, label = faulty("harmful-arm")
    arms = frames[CAMPAIGN].filter(type="assigned", campaign_id=label.campaign_id).select("user_id", "arm")
    within = pl.col("occurred_at").is_between(label.start, label.end)
    orders = frames[ORDER].filter(within, type="paid").join(arms, on="user_id")
    by_arm = dict(orders["arm"].value_counts().iter_rows())
    assert abs(arms.filter(arm="control").height - arms.height / 2) < 1
    assert by_arm["treatment"] < 0.8 * by_arm["control"]


def share(values: pl.Series) -> float:
    return int(values.sum()) / len(values)


def span(at: pl.Series) -> timedelta:
    first, last = at.min(), at.max()
    assert isinstance(first, datetime) and isinstance(last, datetime)
    return last - first


def test_parameters_make_another_fault() -> None:
    """Else a threshold sweep has only one size of attack."""
    at = datetime(2025, 9, 5, 3, tzinfo=UTC)
    random = np.random.default_rng(1)
    _, label = KINDS["device-farm"](quiet(), random, at=at, devices=1, accounts=7, minutes=5, use_share=0)
    assert len(label.keys["user_id"]) == 7
    assert at <= label.start < label.end < at + timedelta(minutes=5)
    assert "order_id" not in label.keys


@every_kind
def test_a_start_outside_of_the_stretch_is_refused(kind: str) -> None:
    with pytest.raises(LedgerError, match=f"fault {kind}: cannot start at 2020"):
        KINDS[kind](quiet(), np.random.default_rng(1), at=datetime(2020, 1, 1, tzinfo=UTC))


@every_kind
def test_every_fault_is_described_in_both_languages(kind: str) -> None:
    """Else `--fault list` says nothing, or says it in English to Chinese readers."""
    assert description(kind) in catalogue()


def test_the_injector_knows_nothing_of_the_detectors() -> None:
    """Else faults are what the rules look for, and the score is worth nothing."""
    for folder in (Path(faults.__file__).parent, Path(faults.__file__).parent.parent / "quiet"):
        for file in folder.glob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert "coupon_ledger.projections" not in text
            assert "coupon_ledger.analysis" not in text


# ── Commands ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_simulated_days_reach_the_log_with_their_labels(home: Path) -> None:
    """Else labels are of other events than those in the log."""
    done("init", "--partitions", "1")
    ran = done("simulate", "--days", "3", "--events", "500", "--seed", "4", "--fault", "one-ip", "--labels", "l.ndjson")
    assert "one-ip from" in ran.out
    [label] = [json.loads(line) for line in (home / "l.ndjson").read_text(encoding="utf-8").splitlines()]
    assert (label["kind"], len(label["keys"]["user_id"])) == ("one-ip", 150)
    with_fault, _ = inject(quiet_days(QuietWorld(seed=4, days=3, events_per_day=500)), ["one-ip"], 4)
    assert keys_in_log() == {
        topic: [key for of, frame in in_arrival_order(with_fault) if of == topic for key in frame[field]]
        for topic, field in ((COUPON, "coupon_id"), (ORDER, "order_id"))
    }


def keys_in_log() -> Mapping[str, list[str]]:
    log = opened_log()
    try:
        found = {}
        for topic in (COUPON, ORDER):
            partitions = log.partitions([topic])
            assert len(partitions) == 1
            [chunk] = log.read(log.earliest_positions(partitions), 1_000_000)
            found[topic] = [key.decode() for key in chunk.keys]
        return found
    finally:
        log.close()


def test_the_kinds_are_listed(home: Path) -> None:
    ran = done("simulate", "--fault", "list")
    assert all(f"{kind}: " in ran.out for kind in KINDS)
    assert not list(home.glob("*.db"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("simulate", "--fault", "earthquake"), ("--fault earthquake", "device-farm")),
        (("simulate", "--labels", "x"), ("--labels needs --fault",)),
        (("simulate", "--experiment", "--days", "3"), ("--experiment",)),
        (("import", "complete-journey", "--fault", "earthquake"), ("--fault earthquake",)),
        (
            ("simulate", "--days", "1", "--events", "50", "--fault", "one-ip", "--labels", "no/x"),
            ("no/x", "path"),
        ),
    ],
)
def test_wrong_options_get_a_sentence(home: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    ran = ledger(*arguments)
    one_sentence(ran, ran.code, *words)
    assert ran.code in (1, 2)
