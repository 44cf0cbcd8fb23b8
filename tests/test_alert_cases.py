"""Alerts about the same coupons, users or devices at the same time are one case."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.consumers.alerts.evidence import behind
from coupon_ledger.ledger.alert_events import AlertEvent, event
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.database import open_database
from coupon_ledger.questions.alerts import cases
from coupon_ledger.questions.alerts.cases import Trace, joined
from coupon_ledger.questions.local import Local
from tests.alert_world import FARM, MASS, begin, store_events
from tests.command_line import DATABASE
from tests.examples import examples
from tests.folding import Row, scratch_store

NOON = datetime(2026, 11, 11, 12, tzinfo=UTC)
ID = st.tuples(st.sampled_from(["user_id", "device_id"]), st.sampled_from(["a", "b", "c", "d"]))
TRACES = st.lists(
    st.builds(
        lambda start, length, named: (start, start + length, named),
        st.integers(0, 20), st.integers(0, 6), st.frozensets(ID, max_size=3),
    ),
    max_size=8,
).map(lambda drawn: [
    Trace(f"a{n}", NOON + timedelta(hours=start), NOON + timedelta(hours=end), named, NOON + timedelta(hours=end))
    for n, (start, end, named) in enumerate(drawn)
])  # fmt: skip


@given(traces=TRACES)
@examples(200)
def test_alerts_that_share_a_name_while_they_overlap_are_one_case_and_no_others(traces: list[Trace]) -> None:
    """Else one farm is five alerts to five people, or two farms of different days are one."""
    group = {trace.alert_id: {trace.alert_id} for trace in traces}
    for one in traces:
        for other in traces:
            overlap = one.since <= other.until and other.since <= one.until
            if overlap and one.named & other.named and group[one.alert_id] is not group[other.alert_id]:
                both = group[one.alert_id] | group[other.alert_id]
                group |= dict.fromkeys(both, both)
    found = list(joined(traces))
    assert {frozenset(case) for case in found} == {frozenset(members) for members in group.values()}
    first = {trace.alert_id: (trace.began, trace.alert_id) for trace in traces}
    assert all(case[0] == min(case, key=first.__getitem__) for case in found)


@given(traces=TRACES, broad=st.frozensets(st.integers(0, 7)))
@examples(200)
def test_an_alert_about_a_whole_campaign_joins_no_two_cases(traces: list[Trace], broad: frozenset[int]) -> None:
    """Else the farms of a campaign are one case as soon as its budget runs out, and whoever takes it takes all. A broad
    alert is in the case of narrow ones with which it shares most, if it shares anything with any."""
    traces = [replace(trace, is_broad=number in broad) for number, trace in enumerate(traces)]
    narrow = [set(case) for case in joined([trace for trace in traces if not trace.is_broad])]
    found = [set(case) for case in joined(traces)]
    ids = {trace.alert_id for trace in traces if trace.is_broad}
    assert sorted(map(sorted, narrow)) == sorted(sorted(case - ids) for case in found if case - ids)
    known = {trace.alert_id: trace for trace in traces}
    for trace in traces:
        if trace.is_broad:
            shared = [
                sum(any(name in known[i].named and known[i].overlaps(trace) for i in case) for name in trace.named)
                for case in narrow
            ]
            [mine] = [case - ids for case in found if trace.alert_id in case]
            assert not mine if not any(shared) else shared[narrow.index(mine)] == max(shared)


@pytest.mark.parametrize("narrow_at", [0, 1])
def test_a_flood_that_shares_everything_is_sorted(narrow_at: int) -> None:
    """Else a list of the night of a flood is wrong, or never comes: the most alerts that are looked at, half of them
    about campaigns, that all name the same users. The others are one case, or one each."""
    named = frozenset(("user_id", f"u{n}") for n in range(200))
    hours = [2 * n * narrow_at for n in range(cases.MOST // 2)]
    narrow = [Trace(f"n{h}-{n}", NOON + timedelta(hours=h), NOON + timedelta(hours=h + 1), named, NOON)
              for n, h in enumerate(hours)]  # fmt: skip
    broad = [
        Trace(f"b{n}", NOON, NOON + timedelta(hours=9_000), named, NOON, is_broad=True) for n in range(len(narrow))
    ]
    found = list(joined([*narrow, *broad]))
    assert len(found[0]) == len(broad) + (1 if narrow_at else len(narrow))


def fired(name: str, hour: float, labels: dict[str, str], rule: str = "r", **evidence: Any) -> AlertEvent:
    at = NOON + timedelta(hours=hour)
    return event("fired", event_id=name, alert_id=name, fingerprint=f"f-{name}", rule=rule, severity="high",
                 occurred_at=at, data_at=at, labels=labels, details={"evidence": evidence},
                 money_minor=500, currency="CNY")  # fmt: skip


ALERTS = [
    fired("farm", 0, {"device_id": "d-17"}, "device_farm", seen={"user_id": ["u-1", "u-2"], "coupon_id": ["c-1"]}),
    fired("slow", 2, {"device_id": "d-17"}, "device_farm_slow", window_s=7 * 86_400, rows=[{"user_id": "u-2"}]),
    fired("group", 0.5, {"user_id": "u-9"}, "linked_group", window_s=3_600, details={"first_users": [["u-2", 5]]}),
    fired("uses", 0.5, {"code": "used_when_used"}, "double_use", window_s=86_400, details={"coupons": ["c-1"]}),
    fired("later", 400, {"device_id": "d-17"}, "device_farm", window_s=600),
    fired("other", 0, {"device_id": "d-18"}, "device_farm", seen={"user_id": ["u-7"]}),
    fired("campaign", 0, {"campaign": "8"}, "budget"),
]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with scratch_store(tmp_path_factory.mktemp("cases")) as store:
        store_events(store, ALERTS)
        with closing(Local(store)) as asked:
            yield asked


def rows(local: Local, question: str, **parameters: Any) -> list[Row]:
    return [row for frame in local.ask(question, **parameters).frames for row in frame.iter_rows(named=True)]


def test_a_list_shows_which_alerts_belong_together(local: Local) -> None:
    """Else a person takes one of them and the next person another."""
    found = {row["alert_id"]: (row["case_id"], row["case_size"]) for row in rows(local, "alerts")}
    assert found == {
        **dict.fromkeys(["farm", "slow", "group", "uses"], ("farm", 4)),
        **{alone: (alone, 1) for alone in ("later", "other", "campaign")},
    }
    by_case = {row["grouped_by"]: row for row in rows(local, "alert-groups", by="case")}
    assert by_case["farm"]["alerts"] == 4 and "device_farm_slow" in by_case["farm"]["rules"]
    assert by_case["farm"]["money_minor"] == 500, "all of them are about the same coupons"


def test_money_counts_once_however_alerts_are_grouped(tmp_path: Path) -> None:
    """Else a farm of 12.00 that two rules see is 24.00 by day and by device, and nobody trusts the total. The rule with
    most counts for a case; a rule's alerts about the same key count once."""
    of = {"user_id": ["u-1"]}
    told = [
        fired("farm", 0, {"device_id": "d-1"}, "device_farm", seen=of),
        fired("again", 1, {"device_id": "d-1"}, "device_farm", window_s=7_200, seen=of),
        fired("slow", 2, {"device_id": "d-1"}, "device_farm_slow", window_s=86_400, seen=of),
        fired("other", 0, {"device_id": "d-2"}, "device_farm"),
    ]
    told[1] = told[1].model_copy(update={"fingerprint": told[0].fingerprint})
    with scratch_store(tmp_path) as store:
        store_events(store, told)
        with closing(Local(store)) as asked:
            for by, money in (("day", [1_000]), ("device_id", [500, 500]), ("case", [500, 500])):
                found = rows(asked, "alert-groups", by=by, state="all")
                assert sorted(row["money_minor"] for row in found) == money, by


def test_an_alert_names_the_others_and_what_they_share(local: Local) -> None:
    """Else nobody knows why they are said to belong together."""
    others = local.ask("alert", alert="farm").row()["case_alerts"]
    shared = {one["alert_id"]: tuple(one[f"shared_{what}s"] for what in ("coupon", "user", "device")) for one in others}
    assert shared == {"slow": (0, 1, 1), "group": (0, 1, 0), "uses": (1, 0, 0)}
    assert others[0]["alert_id"] == "slow", "what shares most comes first"
    assert local.ask("alert", alert="campaign").row()["case_alerts"] == []


def test_only_so_many_alerts_are_looked_at(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a list of alerts takes the longer, the more alerts there ever were."""
    monkeypatch.setattr(cases, "MOST", 3)
    known = [row["case_id"] for row in rows(local, "alerts")]
    assert sum(case is not None for case in known) == 3 and len(known) == len(ALERTS)


@pytest.mark.long
def test_an_alert_names_the_coupons_users_and_devices_behind_it(tmp_path: Path) -> None:
    """Else two rules that see one farm have nothing in common that is stored."""
    begin(tmp_path)
    with open_database(tmp_path / DATABASE, read_only=True) as store:
        found = {row["rule"]: row for row in store.frame("SELECT * FROM alert_episodes").iter_rows(named=True)}
        seen = {
            rule.name: behind(store, Rule.model_validate(rule), found[rule.name]).more["seen"] for rule in (FARM, MASS)
        }
    assert seen["device_farm"]["user_id"] == [f"u-{n}" for n in range(8)], "by time"
    assert seen["device_farm"] == seen["mass_claims"] and seen["mass_claims"]["device_id"] == ["d-farm"]
    assert seen["device_farm"]["coupon_id"] == [f"c-{n}" for n in range(8)]


@pytest.mark.long
def test_a_linked_group_says_the_money_at_stake(tmp_path: Path) -> None:
    """Else a gang stands at the bottom of the list, below a single device with one coupon."""
    expr = {"kind": "linked", "events": ["claimed"], "over": ["device_id"], "users": 5, "at_least": 5, "window": "1h"}
    rule = Rule.model_validate({"name": "gang", "expr": expr})
    begin(tmp_path, [rule])
    with open_database(tmp_path / DATABASE, read_only=True) as store:
        [row] = store.frame("SELECT * FROM alert_episodes").to_dicts()
        found = behind(store, rule, row)
        many = behind(store, rule, row | {"details": row["details"].replace('"users": 8', '"users": 60')})
    assert (found.money_minor, found.currency, found.counts["users"]) == (4_000, "CNY", 8)
    assert found.more["seen"]["device_id"] == ["d-farm"]
    assert many.money_minor is None, "of 60 users, 8 are named: their money is not that of all"
