"""Rules are put in force at once, however many they are, and the old ones end."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.projections.alerts.in_force import put_in_force, stored, versions
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.store import Store
from tests.examples import examples
from tests.folding import scratch_store

NAMES = [f"rule_{n}" for n in range(4)]
FILES = st.lists(st.dictionaries(st.sampled_from(NAMES), st.integers(2, 4)), min_size=1, max_size=5)


def rule(name: str, at_least: int) -> Rule:
    expr = {"kind": "velocity", "events": ["claimed"], "by": ["device_id"], "at_least": at_least, "window": "PT1H"}
    return Rule.model_validate({"name": name, "expr": expr})


def released(store: Store, until: datetime) -> None:
    store.execute("DELETE FROM alert_progress")
    store.execute("INSERT INTO alert_progress VALUES ('coupon.events', $at, $at)", {"at": until})


@pytest.mark.long
@given(files=FILES)
@examples(20)
def test_each_event_is_judged_by_the_rules_that_were_in_force_then(
    tmp_path_factory: pytest.TempPathFactory, files: list[dict[str, int]]
) -> None:
    """Else an edit of the file judges the past again, or a rule that was taken out goes on."""
    with scratch_store(tmp_path_factory.mktemp("in_force")) as store:
        for hour, wanted in enumerate(files):
            with store.transaction():
                released(store, datetime(2026, 11, 11, hour))
                put_in_force(store, [rule(name, least) for name, least in wanted.items()])
        assert versions(store) == {name: rule(name, least).version for name, least in files[-1].items()}
        for hour, wanted in enumerate(files):
            judging = {f.rule.name: f.rule.version for f in stored(store) if f.judges(datetime(2026, 11, 11, hour))}
            assert judging == {name: rule(name, least).version for name, least in wanted.items()}


def test_a_file_of_many_rules_takes_as_many_statements_as_one_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a long file holds up the consumer for many seconds whenever it changes."""
    statements: list[str] = []
    execute = Store.execute

    def counted(self: Store, sql: str, parameters: Any = ()) -> int:
        statements.append(sql)
        return execute(self, sql, parameters)

    monkeypatch.setattr(Store, "execute", counted)
    counts = []
    with scratch_store(tmp_path) as store:
        for number in (2, 300):
            for at_least in (2, 3):  # new ones, then changed ones
                statements.clear()
                with store.transaction():
                    changed = put_in_force(store, [rule(f"rule_{n}", at_least) for n in range(number)])
                assert len(changed) == number
                counts.append(len(statements))
    assert len(set(counts)) == 1, counts
