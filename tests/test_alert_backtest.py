"""Backtests: what rules would have found is what they find. If it were not, a rule would be switched on by a promise
that it does not keep."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.projections.alerts.backtest import replay
from coupon_ledger.projections.alerts.engine import release
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.questions.backtest import comparison
from coupon_ledger.questions.backtest.comparison import Fault
from tests.command_line import done
from tests.folding import frame_of, scratch_store
from tests.test_alert_metrics import RULES as METRIC_RULES
from tests.test_alert_velocity import _RULES, _deliveries, rule

COUPON = "coupon.events"
FOREVER = datetime(9999, 1, 1)
COLUMNS = ("rule", "key", "opened_at", "fired_at", "last_true_at", "closed_at", "value", "peak", "times", "details")


@pytest.mark.long
def test_a_backtest_of_the_rules_in_force_gives_what_is_there(tmp_path: Path) -> None:
    told = _deliveries(random.Random(11), 400)
    rules = [*(rule(n) for n in range(len(_RULES))), *METRIC_RULES]
    with scratch_store(tmp_path) as store:
        with store.transaction():
            put_in_force(store, rules)
        for first in range(0, len(told), 50):
            with store.transaction():
                apply(store, COUPON, frame_of(COUPON, told[first : first + 50]))
                until = datetime.fromtimestamp(told[min(first + 50, len(told)) - 1].recorded_at / 1e6, UTC)
                release(store, {COUPON: until.replace(tzinfo=None) - timedelta(microseconds=1)})
        with store.transaction():
            release(store, {COUPON: FOREVER})
        live = set(store.frame(f"SELECT {', '.join(COLUMNS)} FROM alert_episodes").rows())
        cursor = store.cursor()
        cursor.begin()
        assert set(replay(cursor, rules, FOREVER).select(COLUMNS).rows()) == live and live
        # In the order in which things happened, no event is late, so windows hold at least as much.
        happened = replay(cursor, [rule(0)], FOREVER, occurred=True)
        assert happened.height and happened["fired_at"].max() is not None
        assert set(replay(cursor, rules, FOREVER).select(COLUMNS).rows()) == live  # nothing of it is left
        cursor.end()
        cursor.close()


def _alert(name: str, minute: int, key: dict[str, str], *, closed: bool = True) -> dict[str, object]:
    at = datetime(2026, 1, 1) + timedelta(minutes=minute)
    return {
        "rule": name, "key": json.dumps(key), "opened_at": at, "fired_at": at,
        "closed_at": at + timedelta(minutes=5) if closed else None, "value": 3.0, "threshold": 2.0,
        "rule_version": "1", "last_true_at": at, "details": None,
    }  # fmt: skip


def test_rules_are_compared_alert_by_alert_and_with_known_faults() -> None:
    start = datetime(2026, 1, 1)
    fault = Fault("farm", start + timedelta(minutes=8), start + timedelta(minutes=20), frozenset({"d1"}), 500)
    tried = [
        _alert("a", 10, {"device_id": "d1"}),
        _alert("a", 30, {"device_id": "d2"}),
        _alert("a", 99_000, {"device_id": "d1"}),
    ]
    current = [_alert("a", 12, {"device_id": "d1"}, closed=False), _alert("b", 5, {})]
    a, b = comparison.by_rule(tried, current, 2.0, [fault], {"a": "1f", "b": "2f"})
    assert (a["alerts"], a["alerts_in_force"], a["in_both"], a["alerts_per_day"]) == (3, 1, 2, 1.5)
    assert (a["faults_found"], a["unfounded"], a["delay_minutes"], a["caught_minor"]) == (1, 2, 2.0, 500)
    assert (b["alerts"], b["alerts_in_force"], b["faults_found"]) == (0, 1, 0)
    assert [(d["only_in"], d["rule"]) for d in comparison.differences(tried, current)] == [
        ("in_force", "b"),
        ("tried", "a"),
    ]
    [found] = comparison.by_fault(tried, [fault])
    assert found["is_found"] and found["found_by"] == ["a"] and found["delay_minutes"] == 2.0


LABEL = '"kind":"x","keys":{"device_id":["d"]},"from":"2026-01-01T00:00:00Z","until":"2026-01-02T00:00:00Z"'


@pytest.mark.parametrize(
    "line",
    [
        *("{", "[]", "null", "[" * 100_000, '{"kind": "x"}', '{"kind":"x","keys":{},"from":"no","until":"no"}'),
        f'{{{LABEL},"money_minor":1e400}}',
        f"{{{LABEL}}}".replace('["d"]', '"d-1"'),
        f"{{{LABEL}}}".replace("2026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"),
        f"{{{LABEL}}}".replace("2026-01-02", "2025-01-02"),
    ],
)
def test_a_broken_label_names_its_line(tmp_path: Path, line: str) -> None:
    """Else a slip in a file of labels is a traceback, or a proof of nothing."""
    file = tmp_path / "labels.ndjson"
    file.write_text(f"{{{LABEL}}}\n{line}\n", encoding="utf-8")
    with pytest.raises(WrongQuestion, match="line 2: no label of a fault"):
        comparison.read_faults(file)


def test_labels_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Else a wrong file is a traceback."""
    (tmp_path / "labels").write_bytes(b"\xff\xfe")
    with pytest.raises(WrongQuestion, match="is no UTF-8 text"):
        comparison.read_faults(tmp_path / "labels")


def test_a_fault_at_the_end_of_time_is_compared() -> None:
    """Else a label without an end, written as the year 9999, is a traceback."""
    at = datetime(2026, 1, 1)
    fault = Fault("x", at, datetime.max, frozenset({"d"}), 0)
    assert fault.is_meant_by({"key": '{"device_id": "d"}', "fired_at": at})


@pytest.mark.long
def test_the_command_finds_an_injected_device_farm(tmp_path: Path) -> None:
    where = ("--log", f"sqlite:///{tmp_path / 'log.db'}")
    both = (*where, "--database", str(tmp_path / "ledger.duckdb"))
    done("init", *both)
    labels = str(tmp_path / "labels.ndjson")
    few = ("--days", "7", "--events", "1500", "--seed", "4")
    done("simulate", *few, "--fault", "device-farm", "--labels", labels, *where)
    done("consume", *both)
    tried = ("alerts", "backtest", *both, "--rule", "device_farm", "--labels", labels, "-o", "json")
    [row] = done(*tried).json
    assert row["faults_found"] == 1 and row["unfounded"] == 0
    swept = done(*tried, "--sweep", "device_farm.at_least=2,1000").json
    assert [r["faults_found"] for r in swept] == [1, 0]
    [fault] = done(*tried, "--faults").json
    assert fault["found_by"] == ["device_farm"]
    rules = tmp_path / "rules.yaml"
    ours = {
        "ours": {"kind": "velocity", "events": ["claimed"], "by": ["device_id"], "distinct": "user_id",
                 "at_least": 5, "window": "1h"},
        "joined": {"kind": "linked", "events": ["claimed"], "over": ["device_id"], "users": 5, "at_least": 5,
                   "window": "1d"},
    }  # fmt: skip
    groups = [{"name": "ours", "rules": [{"alert": name, "expr": expr} for name, expr in ours.items()]}]
    rules.write_text(json.dumps({"groups": groups}), encoding="utf-8")  # JSON is YAML
    one_by_one = [word for name in ours for word in ("--rule", name)]
    other = done("alerts", "backtest", *both, "--rules", rules, *one_by_one, "--differences", "-o", "json").json
    assert {row["rule"] for row in other} == ours.keys()
    assert all(row["only_in"] == "tried" and len(row["behind_users"]) >= 5 for row in other)
