"""Rules of kinds `reconciliation`, `guardrail` and `health` on small databases whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.analysis import lift
from coupon_ledger.ledger.errors import NotThere, RuleFailed, ValueOutOfRange
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import HEALTH, Rule
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.alerts import guardrail, reconciliation
from coupon_ledger.questions.alerts.offenders import Vitals, offenders_of
from coupon_ledger.questions.experiments import experiments
from tests.examples import examples
from tests.folding import clear, scratch_store

NOW = datetime(2026, 11, 11, 12)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("offenders")) as store:
        yield store


@pytest.fixture
def store(opened: Store) -> Store:
    emptied(opened)
    return opened


def emptied(store: Store) -> None:
    clear(store)
    with store.transaction():
        store.execute("DELETE FROM dead_letters")
        store.execute("DELETE FROM partition_progress")
        store.execute("UPDATE ledger SET data_clock = $now", {"now": NOW})


def found(store: Store, expr: Mapping[str, Any], vitals: Vitals | None = None) -> list[Offender]:
    cursor = store.cursor()
    cursor.begin()
    try:
        return offenders_of(cursor, Rule.model_validate({"name": "r", "expr": dict(expr)}), vitals)
    finally:
        cursor.end()
        cursor.close()


def health(store: Store, of: str, above: float = 0, vitals: Vitals | None = None, **more: Any) -> list[Offender]:
    return found(store, {"kind": "health", "of": of, "above": above, **more}, vitals or Vitals(NOW))


def publish(store: Store, source: str, recorded: list[datetime], delay: timedelta = timedelta(0)) -> None:
    with store.transaction():
        store.insert(
            "coupon_events",
            pl.DataFrame(
                {
                    "key_hash": range(len(recorded)),
                    "event_id": [f"{source}-{n}" for n in range(len(recorded))],
                    "type": "created",
                    "occurred_at": [at - delay for at in recorded],
                    "source": source,
                    "coupon_id": [f"c{n}" for n in range(len(recorded))],
                    "recorded_at": recorded,
                    "log_partition": 0,
                    "log_offset": range(len(recorded)),
                }
            ),
        )


# --- health


def test_every_kind_of_health_is_evaluated(store: Store) -> None:
    """A rule that nothing evaluates would never fire, and nobody would know."""
    for of in HEALTH:
        assert health(store, of) == []


def test_lag_is_what_the_owner_says(store: Store) -> None:
    vitals = Vitals(NOW, lag_s=90, lag_records=1_000)
    [one] = health(store, "lag", 60, vitals)
    assert (one.key, one.value, one.since) == ({}, 90, NOW - timedelta(seconds=90))
    assert health(store, "lag", 90, vitals) == []


def test_dead_channels_and_failing_rules_are_what_the_owner_says(store: Store) -> None:
    vitals = Vitals(NOW, dead_channels={"mail": 3, "sms": 1}, failing_rules={"slow": 2})
    assert [(o.key, o.value) for o in health(store, "channel_dead", 1, vitals)] == [({"channel": "mail"}, 3)]
    assert [(o.key, o.value) for o in health(store, "rule_failed", 1, vitals)] == [({"rule": "slow"}, 2)]


def test_a_steady_source_that_falls_silent_is_found(store: Store) -> None:
    """A till that has lost its network looks like a quiet day."""
    publish(store, "pos", [NOW - (60 - n) * MINUTE for n in range(40)])  # until 21 minutes ago
    publish(store, "app", [NOW - (60 - n) * MINUTE for n in range(60)])
    [one] = health(store, "silent_source", 300)
    assert one.key == {"source": "pos", "topic": "coupon.events"}
    assert one.value == 20 * 60 and one.since == NOW - 20 * MINUTE
    assert health(store, "silent_source", 20 * 60) == []


def test_a_source_is_not_silent_while_its_events_wait_to_be_read(store: Store) -> None:
    """A consumer that lags would accuse every source."""
    publish(store, "pos", [NOW - (60 - n) * MINUTE for n in range(40)])
    assert health(store, "silent_source", 60, Vitals(NOW, lag_s=21 * 60)) == []


@pytest.mark.parametrize(
    "recorded",
    [
        [NOW - timedelta(days=20) + n * timedelta(seconds=1) for n in range(30)],  # an import, long ago
        [NOW - timedelta(days=n) for n in range(10, 0, -1)],  # too few to know what is usual
        [NOW - timedelta(hours=8) - n * MINUTE - d * timedelta(days=1) for d in range(5) for n in range(60, 0, -1)][
            ::-1
        ],  # every night
    ],
    ids=["import", "few", "nights"],
)
def test_a_silence_that_is_usual_is_none(store: Store, recorded: list[datetime]) -> None:
    publish(store, "pos", sorted(recorded))
    assert health(store, "silent_source") == []


def test_one_outage_does_not_make_silence_usual(store: Store) -> None:
    """After one bad day, the next silence would go unnoticed."""
    minutes = [n for n in range(5 * 24 * 60, 60, -1) if not 3_000 < n < 4_000]
    publish(store, "pos", [NOW - n * MINUTE for n in minutes])
    [one] = health(store, "silent_source")
    assert one.details["usual_gap_s"] == 60


@pytest.mark.long
@examples(10)
@given(
    gaps=st.lists(st.integers(1, 4_000), min_size=20, max_size=40),
    silent=st.integers(0, 20_000),
    above=st.sampled_from((0, 100, 5_000)),
)
def test_silence_beyond_the_longest_gap_is_found(opened: Store, gaps: list[int], silent: int, above: int) -> None:
    emptied(opened)
    at, recorded = NOW - timedelta(seconds=silent), []
    for gap in [0, *gaps]:
        at -= timedelta(seconds=gap)
        recorded.append(at)
    publish(opened, "pos", recorded[::-1])
    wanted = sum(gaps) >= 600 and silent <= sum(gaps) and silent - max(gaps) > max(above, max(gaps) / 2)
    assert bool(health(opened, "silent_source", above)) == wanted


def test_new_dead_letters_are_found_until_somebody_discards_them(store: Store) -> None:
    with store.transaction():
        for offset, minutes in enumerate((5, 3, 30)):
            store.execute(
                "INSERT INTO dead_letters VALUES ('coupon.events', 0, $offset, $at, 'k', 'v', 'invalid', 'why')",
                {"offset": offset, "at": NOW - minutes * MINUTE},
            )
    [one] = health(store, "dead_letters")
    assert one.key == {"topic": "coupon.events", "reason": "invalid"} and one.value == 2
    with store.transaction():
        store.execute("INSERT INTO discarded VALUES ('coupon.events', 0, 0, 'e', now()::TIMESTAMP, 'me', 'known')")
    assert health(store, "dead_letters", 1) == []
    with store.transaction():
        store.execute("DELETE FROM discarded")


def test_late_events_and_clocks_ahead_are_told_apart(store: Store) -> None:
    publish(store, "begins", [NOW - MINUTE] * 4, timedelta(hours=1))
    assert health(store, "late_share", 0.5) == [], "the import of a past is no alert"
    publish(store, "late", [NOW - timedelta(days=1)])
    publish(store, "late", [NOW - MINUTE] * 4, timedelta(hours=1))
    publish(store, "good", [NOW - MINUTE] * 4)
    publish(store, "ahead", [NOW - MINUTE] * 4, -timedelta(seconds=30))
    [late] = health(store, "late_share", 0.5)
    assert late.key["source"] == "late" and late.value == 1
    [ahead] = health(store, "clock_skew", 10)
    assert ahead.key["source"] == "ahead" and ahead.value == 30
    assert health(store, "late_share", 0.5, Vitals(NOW + timedelta(days=1))) == []


def test_violations_that_stay_provisional_are_found(store: Store) -> None:
    """A topic that is not read any more would hide all faults between topics."""
    with store.transaction():
        store.execute("INSERT INTO partition_progress VALUES ('order.events', 0, $at)", {"at": NOW - 60 * MINUTE})
        for n, minutes in enumerate((90, 40, 5)):
            store.execute(
                "INSERT INTO violations (key_hash, topic, key, event_id, violation, occurred_at, scope, trigger_topic,"
                " trigger_recorded_at) VALUES (1, 'coupon.events', 'c', $id, 'orphan_use', $at, 'cross',"
                " 'coupon.events', $at)",
                {"id": f"e{n}", "at": NOW - minutes * MINUTE},
            )
    [one] = health(store, "provisional", window="PT20M")
    assert one.key == {"code": "orphan_use"} and one.value == 1 and one.since == NOW - 20 * MINUTE


def test_coupons_that_no_sweep_has_expired_are_found(store: Store) -> None:
    """Else expiry stands still. One alert for all campaigns: a dozen about one job are a dozen to close."""
    coupons = [("k", 90, "claimed"), ("k", 60, "issued"), ("k", 5, "claimed"), ("k", 90, "used")]
    coupons += [("l", 70, "claimed"), ("l", 50, "claimed"), ("l", 40, "claimed"), ("m", 90, "claimed")]
    with store.transaction():
        for n, (campaign, minutes, state) in enumerate(coupons):
            store.execute(
                "INSERT INTO coupons (key_hash, coupon_id, state, resting, campaign_id, valid_until, last_event_at,"
                " events, violations, last_type, ids_low, ids_high, first_recorded_at)"
                " VALUES ($n, 'c', $state, 'none', $campaign, $until, $until, 1, 0, 0, 0, 0, $until)",
                {"n": n, "campaign": campaign, "state": state, "until": NOW - minutes * MINUTE},
            )
    [one] = health(store, "sweep_overdue", window="PT30M", above=1)
    assert one.key == {} and one.value == 5 and one.since == NOW - 60 * MINUTE
    assert one.details == {"campaigns": 2, "most_in": [["l", 3], ["k", 2]]}, "not m, of which one is late"


# --- reconciliation


def test_an_account_that_does_not_add_up_is_found(store: Store) -> None:
    """A lost record would be noticed at the next `verify`, perhaps months later."""
    assert found(store, {"kind": "reconciliation"}) == []
    with store.transaction():
        store.execute("INSERT INTO checkpoints VALUES ('coupon.events', 2, 10, 10, 7, 0, 0, 0)")
    offenders = found(store, {"kind": "reconciliation"})
    of = {o.key["check"]: o for o in offenders}
    assert of["accounts"].key == {"check": "accounts", "topic": "coupon.events", "partition": "2"}
    assert of["accounts"].value == 3 and of["accounts_of_tables"].value == 7
    with store.transaction():
        store.execute("DELETE FROM checkpoints")


def test_a_coupon_that_appeared_from_nowhere_is_found_with_its_campaign(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction():
        store.execute(
            "INSERT INTO coupons (key_hash, coupon_id, state, resting, campaign_id, last_event_at, events, violations,"
            " last_type, ids_low, ids_high, first_recorded_at)"
            " VALUES (1, 'c', 'used', 'none', 'k', $at, 1, 0, 0, 0, 0, $at)",
            {"at": NOW},
        )
    offenders = found(store, {"kind": "reconciliation"})
    assert {"check": "conservation", "campaign": "k", "statement": "coupons with an event = sum over all states"} in [
        o.key for o in offenders
    ]
    monkeypatch.setattr(reconciliation, "LONGEST", -1)
    assert found(store, {"kind": "reconciliation"}) == []


# --- guardrail


def experiment(**of: Any) -> pl.DataFrame:
    effect = {
        "arm": "a", "metric": "margin_minor", "method": "sequential", "effect": -5.0, "low": -9.0, "high": -1.0,
        "p": 0.001, "control_mean": 20.0, "treated_mean": 15.0, "total_effect": -500.4, "simultaneous_high": None,
    }  # fmt: skip
    arm = {"arm": "a", "people": 100, "planned_share": 0.5}
    row = {"srm_p": 0.5, "currency": "CNY", "arms": [arm], "effects": [effect | of.pop("effect", {})], **of}
    return pl.DataFrame([row])


@pytest.mark.parametrize(
    ("answer", "keys"),
    [
        (experiment(), [("k", "a")]),
        (experiment(effect={"high": 0.5}), []),
        (experiment(effect={"simultaneous_high": 0.5}), []),
        (experiment(effect={"method": "plain"}), []),
        (experiment(effect={"metric": "orders"}), []),
        (experiment(effect={"metric": "net_minor"}), [("k", "a")]),
        (experiment(effect={"high": None}), []),
        (experiment(srm_p=1e-4), [("k", ""), ("k", "a")]),
        (experiment(srm_p=1e-4, effect={"high": 1.0}), [("k", "")]),
        (experiment(srm_p=None, effect={"high": 1.0}), []),
    ],
)
def test_an_arm_that_does_harm_or_a_broken_ratio_is_found(
    store: Store, monkeypatch: pytest.MonkeyPatch, answer: pl.DataFrame, keys: list[tuple[str, str]]
) -> None:
    """An arm would lose money until somebody happens to look."""
    monkeypatch.setattr(experiments, "experiments", lambda *_: pl.DataFrame({"campaign_id": ["k"]}))
    monkeypatch.setattr(experiments, "experiment", lambda *_: answer)
    offenders = found(store, {"kind": "guardrail"})
    assert [(o.key["campaign"], o.key["arm"]) for o in offenders] == keys
    for one in offenders:
        if one.key["arm"]:
            assert one.value == -1 and one.money_minor == 500 and one.currency == "CNY"
        else:
            assert one.value == 1e-4 and one.threshold == lift.SRM_WARNS


def test_an_experiment_that_cannot_be_computed_hides_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: Cursor, parameters: Any) -> pl.DataFrame:
        if parameters.campaign == "bad":
            raise NotThere("too few")
        return experiment()

    monkeypatch.setattr(experiments, "experiments", lambda *_: pl.DataFrame({"campaign_id": ["bad", "k"]}))
    monkeypatch.setattr(experiments, "experiment", answer)
    assert [o.key["campaign"] for o in found(store, {"kind": "guardrail"})] == ["k"]
    assert guardrail.MOST >= 2


def test_what_fails_names_the_rule(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed rule is an alert of its own, which must say which rule it is."""

    def fails(*_: object) -> pl.DataFrame:
        raise ValueOutOfRange("database x: an amount is too large")

    monkeypatch.setattr(experiments, "experiments", fails)
    with pytest.raises(RuleFailed, match="rule r: database x: an amount is too large"):
        found(store, {"kind": "guardrail"})


@pytest.mark.long
def test_an_empty_database_breaks_no_rule(tmp_path: Path) -> None:
    """The first start would send alerts."""
    kinds: list[dict[str, Any]] = [
        {"kind": "violation"},
        {"kind": "reconciliation"},
        {"kind": "guardrail"},
        {"kind": "sql", "query": "SELECT 1 AS id", "key": ["id"]},
        *({"kind": "health", "of": of} for of in HEALTH),
    ]
    with scratch_store(tmp_path) as store:
        for expr in kinds:
            assert found(store, expr) == []
