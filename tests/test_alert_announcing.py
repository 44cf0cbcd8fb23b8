"""The lines of `consume` about alerts that fire: who watches the terminal sees each, or how many there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.cli.alerts import announcing
from coupon_ledger.ledger.alert_state import SEVERITIES, Alert
from tests.alert_owner import Place, append, farm, told
from tests.command_line import COMMAND, Ran, done

_SHOW = re.compile(r"`coupon-ledger alerts show (\w{8})`")
_AT = datetime(2026, 11, 11, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    done("init", *_options(made)[:4])
    with closing(made.log):
        yield made


def _options(place: Place) -> tuple[Any, ...]:
    return ("--log", place.settings.url, "--database", place.folder / "a.duckdb", "--alert-rules", place.rules)


def _consumed(place: Place, *options: str) -> Ran:
    lang, rest = (options[:2], options[2:]) if options[:1] == ("--lang",) else ((), options)
    return done(*lang, "consume", *_options(place), *rest)


@pytest.mark.long
@pytest.mark.parametrize(
    ("lang", "severity", "key"),
    [("en", "high", "device d-sevente…n-hangzhou;"), ("zh", "严重", "设备 d-sevente…n-hangzhou；")],
)
def test_an_alert_that_fires_has_a_line_with_the_command_that_shows_it(
    place: Place, lang: str, severity: str, key: str
) -> None:
    """Else people watch a terminal that says nothing while coupons are drained, or says it again after a restart."""
    append(place.log, farm("d-seventeen-of-the-pilot-enrollment-in-hangzhou", 0))
    [line] = [line for line in _consumed(place, "--lang", lang).err.splitlines() if _SHOW.search(line)]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line)
    assert severity in line and "farm" in line and key in line
    [short] = _SHOW.findall(line)
    assert done("alerts", "show", short, *_options(place)[2:4], "-o", "json").json["rule"] == "farm"
    assert not _SHOW.search(_consumed(place).err)


@pytest.mark.long
def test_of_many_alerts_most_are_counted(place: Place) -> None:
    """Else a flood of alerts scrolls everything else off the terminal."""
    append(place.log, (event for n in range(17) for event in farm(f"d-{n}", 3 * n)))
    ran = _consumed(place)
    assert len(_SHOW.findall(ran.err)) == 5
    assert "12 more alerts fired; `coupon-ledger alerts list --state all`" in ran.err


@pytest.mark.long
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_a_consumer_whose_streams_are_closed_works_all_the_same(place: Place, closed: str) -> None:
    """Else a service that is started without standard error folds nothing, and says nothing of it; or what a library
    prints is written into the file of the log, which got the number of the closed stream."""
    append(place.log, farm("d-1", 0))
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', str(COMMAND), "consume", *map(str, _options(place))]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False, timeout=60).returncode == 0
    assert len(told(place.log, "fired")) == 1


def test_a_log_for_machines_has_the_alert_in_fields(place: Place) -> None:
    """Else who collects the log as JSON cannot find the alert that a line is about."""
    append(place.log, farm("d-1", 0))
    rows = [json.loads(line) for line in _consumed(place, "--log-format", "json").err.splitlines()]
    [fired] = [row for row in rows if row["event"] == "alert fired"]
    assert (fired["rule"], fired["severity"], fired["key"]) == ("farm", "high", {"device_id": "d-1"})
    assert len(fired["alert_id"]) > 8


@dataclass
class Clock:
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


def _alert(number: int, severity: str) -> Alert:
    return Alert(alert_id=f"{number:020}", fingerprint="f", rule="r", rule_version=None, severity=severity, labels={},
                 phase="firing", since=_AT, at=_AT, opened_at=_AT, fired_at=_AT)  # fmt: skip


rounds = st.lists(st.tuples(st.floats(0, 30), st.lists(st.sampled_from(SEVERITIES), max_size=20)), max_size=20)


@given(rounds)
def test_every_alert_has_a_line_or_is_counted_and_lines_are_few(rounds: list[tuple[float, list[str]]]) -> None:
    """Else an alert passes unsaid, or the terminal is flooded."""
    said: list[tuple[float, str]] = []
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(announcing, "time", clock)
        patch.setattr(announcing, "_echo", lambda line: said.append((clock.now, line)))
        announcer = announcing.Announcer("text")
        for waited, severities in rounds:
            clock.now += waited
            announcer([_alert(number, severity) for number, severity in enumerate(severities)])
        announcer.close()
    lines = [at for at, line in said if _SHOW.search(line)]
    counted = sum(int(line.split()[0]) for _, line in said if not _SHOW.search(line))
    assert len(lines) + counted == sum(len(severities) for _, severities in rounds)
    assert all(sum(at <= other < at + 10 for other in lines) <= 10 for at in lines)
