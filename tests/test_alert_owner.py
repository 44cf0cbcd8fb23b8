"""The owner's work with alerts: from an event in the log to a fired alert and a message, once and only once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.alert_owner import Box, Place, append, farm, told


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with closing(made.log):
        yield made


def test_what_a_rule_finds_is_fired_in_the_log_with_its_evidence(place: Place) -> None:
    """Else nobody hears of a device farm, or nobody can check why it was called one."""
    append(place.log, farm("d-1", 0))
    place.run()
    [fired] = told(place.log, "fired")
    assert (fired.rule, fired.labels, fired.severity) == ("farm", {"device_id": "d-1"}, "high")
    assert (fired.money_minor, fired.currency) == (3_000, "CNY")
    evidence = fired.details["evidence"]
    assert isinstance(evidence, dict)
    assert evidence["threshold"] == 3 and evidence["users"] == 3
    assert {row["event_id"] for row in evidence["rows"]} == {"claim-0", "claim-1", "claim-2"}
