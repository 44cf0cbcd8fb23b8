"""Tests of alert rules as users write them: a right expectation passes, a wrong one fails and says why. If they fail,
somebody switches on a rule because of a test that could not fail, or gives up on tests that never pass."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.projections.alerts.rule_tests import Expectation, ExpectedAlert
from coupon_ledger.questions.backtest.rule_tests import RaisedAlert, differences
from tests.command_line import Ran, done, ledger
from tests.examples import examples
from tests.loopback import Answer, Http, serving

GUIDE: Final = (Path(__file__).parent.parent / "docs" / "alert-rules.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)

RULES: Final = """\
use_defaults: false
groups:
- name: ours
  rules:
  - alert: farm
    expr: {kind: velocity, events: [claimed], by: [device_id], distinct: user_id, at_least: 3, window: 10m}
  - alert: rush
    expr: {kind: threshold, metric: claimed, by: [campaign], above: 4, window: 10m}
  - alert: twice
    expr: {kind: violation, codes: [used_when_used]}
  - alert: hoarder
    expr: {kind: sql, key: [owner], value: n,
           query: "SELECT owner, count(*) AS n FROM coupons GROUP BY owner HAVING count(*) > 1"}
  - alert: behind
    expr: {kind: health, of: lag, above: 60}
  - alert: off
    expr: {kind: health, of: lag, above: 60}
    enabled: false
"""
FARM: Final = (
    '{type: claimed, repeat: 4, every: 30s, coupon_id: "c{n}", user_id: "u{n}", device_id: d-1, channel: app, '
    'campaign_id: "8"}'
)


def run(folder: Path, tests: str, *options: str) -> Ran:
    (folder / "rules.yaml").write_text(RULES, encoding="utf-8")
    (folder / "tests.yaml").write_text("rules: rules.yaml\ntests:\n" + tests, encoding="utf-8")
    return ledger("alerts", "test", folder / "tests.yaml", *options)


def flat(ran: Ran) -> str:
    """What was printed, without the ends of lines of a terminal."""
    return " ".join(ran.out.split())


def case(alerts: str, events: str = FARM, of: str = "[farm]") -> str:
    listed = "" if alerts == "none" else "\n  - "
    return f"- name: t\n  of: {of}\n  events:\n  - {events}\n  alerts: {listed}{alerts}\n"


@pytest.mark.long
def test_the_example_of_the_guide_passes(tmp_path: Path) -> None:
    """Else the first test that somebody copies fails."""
    [rules] = [block for block in BLOCKS if block.startswith("channels:")]
    [tests] = [block for block in BLOCKS if block.startswith("rules: rules.yaml")]
    (tmp_path / "rules.yaml").write_text(rules, encoding="utf-8")
    (tmp_path / "tests.yaml").write_text(tests, encoding="utf-8")
    out = done("alerts", "test", tmp_path / "tests.yaml").out
    assert out.count("passed: ") == 2 and "2 tests passed" in out


@pytest.mark.long
@pytest.mark.parametrize(
    "alerts",
    [
        "{rule: farm}",
        "{rule: farm, key: {device_id: d-1}, fired: 60s, value: 3}",
        "{rule: farm, between: [0s, 1m]}",
    ],
)
def test_a_right_expectation_passes(tmp_path: Path, alerts: str) -> None:
    """Else nobody can write a test that holds."""
    assert run(tmp_path, case(alerts)).code == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ("none", "not expected: farm of device d-1, fired after 1m, value 3"),
        ("{rule: farm, fired: 61s}", "line 8: expected farm, fired after 1m1s; raised farm of device d-1"),
        ("{rule: farm, between: [0s, 59s]}", "expected farm, fired after 0s–59s; raised farm"),
        ("{rule: farm, value: 4}", "expected farm, value 4; raised farm of device d-1, fired after 1m, value 3"),
        ("{rule: farm, key: {device_id: d-2}}", "line 8: not raised: farm of device d-2"),
        ("{rule: farm}\n  - {rule: farm}", "line 9: not raised: farm"),
    ],
)
def test_a_wrong_expectation_fails_and_says_why(tmp_path: Path, alerts: str, said: str) -> None:
    """Else a test shows nothing."""
    ran = run(tmp_path, case(alerts))
    assert ran.code == 1 and said in flat(ran) and "failed: t" in ran.out
    assert "1 of 1 tests failed" in ran.err


@pytest.mark.long
def test_machines_get_each_difference(tmp_path: Path) -> None:
    """Else a pipeline has to read sentences."""
    ran = run(tmp_path, case("{rule: farm, value: 4}") + case("{rule: farm}"), "-o", "json")
    first, second = ran.json
    assert ran.code == 1 and (first["passed"], second["passed"], second["differences"]) == (False, True, [])
    [difference] = first["differences"]
    assert difference["difference"] == "different" and difference["expected"] == {"line": 8, "rule": "farm", "value": 4}
    assert difference["raised"] == {"rule": "farm", "key": {"device_id": "d-1"}, "fired": "1m", "value": 3}


@pytest.mark.long
def test_chinese_readers_read_chinese(tmp_path: Path) -> None:
    """Else the risk team cannot read why its test failed."""
    ran = run(tmp_path, case("none"), "--lang", "zh")
    assert "未通过：t" in ran.out and "未预期：farm，设备 d-1、于 1m 后触发、值 3" in flat(ran)


@pytest.mark.long
def test_rules_on_the_tables_are_asked_after_the_last_event(tmp_path: Path) -> None:
    """Else only half of the rules could be tested."""
    uses = '{type: used, repeat: 2, at: 1m, every: 1m, coupon_id: c1, user_id: u1, order_id: "o{n}", discount_minor: 1}'
    both = FARM.replace('"u{n}"', "u1") + "\n  - " + uses
    assert run(tmp_path, case("{rule: hoarder, key: {owner: u1}, value: 4}", both, "[hoarder]")).code == 0
    assert run(tmp_path, case("{rule: twice}", both, "[twice]")).code == 0
    assert "not raised: twice" in run(tmp_path, case("{rule: twice}", FARM, "[twice]")).out


@pytest.mark.long
def test_a_rule_that_fails_fails_its_test(tmp_path: Path) -> None:
    """Else a query that never works passes every test that expects nothing."""
    (tmp_path / "bad.yaml").write_text(
        "use_defaults: false\ngroups:\n- rules:\n  - alert: bad\n"
        "    expr: {kind: sql, key: [k], query: \"SELECT CAST(coupon_id AS INTEGER) AS k FROM coupons\"}\n",
        encoding="utf-8",
    )  # fmt: skip
    (tmp_path / "t.yaml").write_text("rules: bad.yaml\ntests:\n" + case("none", of="[bad]"), encoding="utf-8")
    ran = ledger("alerts", "test", tmp_path / "t.yaml")
    assert ran.code == 1 and "bad" in ran.out


@pytest.mark.long
def test_a_tick_needs_a_later_event(tmp_path: Path) -> None:
    """A rule on ticks fires when the clock has passed the tick, as it does live: else a test promises too early an
    alert."""
    more = FARM.replace("repeat: 4", "repeat: 6")
    later = '{type: claimed, at: 20m, coupon_id: "x", user_id: u, channel: app, campaign_id: "8"}'
    assert run(tmp_path, case("none", more, "[rush]")).code == 0
    fires = '{rule: rush, key: {campaign: "8"}, value: 6, fired: 4m}'
    assert run(tmp_path, case(fires, f"{more}\n  - {later}", "[rush]")).code == 0


@pytest.mark.long
def test_a_late_event_counts_in_no_window(tmp_path: Path) -> None:
    """Else a test cannot show what late events do to a rule."""
    late = FARM.replace("repeat: 4", "repeat: 4, late: 30m")
    clock = '{type: claimed, at: 25m, coupon_id: "x", user_id: u, channel: app, campaign_id: "8"}'
    assert run(tmp_path, case("none", f"{late}\n  - {clock}")).code == 0
    assert run(tmp_path, case("{rule: farm}", late)).code == 0


@pytest.mark.long
def test_events_come_from_a_file_and_have_numbers(tmp_path: Path) -> None:
    """Else yesterday's events cannot become a test."""
    lines = [
        {"type": "claimed", "event_id": f"e{n}", "occurred_at": f"2026-01-01T00:0{n}:00Z", "coupon_id": f"c{n}",
         "user_id": f"u{n}", "device_id": "d-007", "channel": "app"}
        for n in range(2)
    ]  # fmt: skip
    (tmp_path / "events.ndjson").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    third = '{type: claimed, at: 3m, first: 7, coupon_id: c9, user_id: u9, device_id: "d-{n:3}", channel: app}'
    fires = "{rule: farm, key: {device_id: d-007}, fired: 3m}"
    assert run(tmp_path, case(fires, third).replace("  of:", "  file: events.ndjson\n  of:")).code == 0
    (tmp_path / "events.ndjson").write_text('{"type": "claimed"}\n{', encoding="utf-8")
    ran = run(tmp_path, case(fires, third).replace("  of:", "  file: events.ndjson\n  of:"))
    assert ran.code == 2 and "events.ndjson:1:1" in ran.out and "events.ndjson:2:1: not JSON" in ran.out


@pytest.mark.parametrize(
    ("tests", "line", "said"),
    [
        ("", 2, "tests: has no tests"),
        ("- {name: t}", 3, "alerts: is missing"),
        (case("none", of="[fram]"), 4, "of[0]: no rule 'fram'; did you mean"),
        (case("none", of="[behind]"), 4, "watches the ledger itself"),
        (case("none", of="[off]"), 4, "is switched off"),
        (case("{rule: rush}"), 8, "is not among the rules of this test"),
        (case("{rule: twice, fired: 1m}", of="[twice]"), 8, "have no instant"),
        (case("{rule: farm, fired: 1m, between: [1m, 2m]}"), 8, "exclude each other"),
        (case("{rule: farm, between: [2m, 1m]}"), 8, "ends before it begins"),
        (case("{rule: farm, fired: 60}"), 8, "has no unit"),
        (case("{rule: farm, when: 1m}"), 8, "no field 'when'"),
        (case("none", "{type: claimed, coupon_id: c1, channel: app}"), 6, "user_id: is needed by claimed events"),
        (case("none", FARM.replace("d-1", "17")), 6, "device_id: must be text"),
        (case("none", FARM.replace("repeat: 4", "repeat: 999999")), 6, "too large"),
        (case("none", FARM[:-1] + ', occurred_at: "2026-01-01T00:00:00Z"}'), 6, "excludes at and every"),
        (case("none", "17"), 6, "is no mapping"),
        ("- {name: t, alerts: none}", 3, "has no events"),
        ("- {name: t, alerts: 3, events: []}", 3, "neither a list nor none"),
        ('- {name: t, alerts: none, start: "1950-01-01T00:00:00Z"}', 3, "2000 to 2100"),
        ("- {name: t, alerts: none, file: nowhere.ndjson}", 1, "cannot be read"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, tests: str, line: int, said: str) -> None:
    """Else whoever writes tests has to guess what is wrong."""
    ran = run(tmp_path, tests)
    assert ran.code == 2 and said in flat(ran) and re.search(rf"(tests\.yaml|nowhere\.ndjson):{line}:\d+: ", ran.out), (
        ran
    )
    assert "no test was run" in ran.err


@pytest.mark.long
def test_the_defaults_can_be_tested_as_they_are(tmp_path: Path) -> None:
    """Else a test without `of` fails because of rules that are about the ledger, not about its events."""
    file = tmp_path / "t.yaml"
    file.write_text(
        f"tests:\n- name: t\n  events:\n  - {FARM.replace('repeat: 4', 'repeat: 3')}\n  alerts: none\n",
        encoding="utf-8",
    )
    done("alerts", "test", file)


def test_a_problem_of_the_rules_file_runs_no_test(tmp_path: Path) -> None:
    """Else a test passes because its rule was left out."""
    (tmp_path / "broken.yaml").write_text("groups:\n- rules:\n  - alert: farm\n    expr: {kind: none}\n")
    (tmp_path / "t.yaml").write_text("rules: broken.yaml\ntests:\n" + case("none", of="[device_farm]"))
    ran = ledger("alerts", "test", tmp_path / "t.yaml")
    assert ran.code == 2 and "broken.yaml:4:" in ran.out


# ── Comparing ────────────────────────────────────────────────────────────────────────────────────────────────

RAISED = st.builds(
    lambda key, minute, value: RaisedAlert("r", {"k": key}, timedelta(minutes=minute), value),
    st.sampled_from("ab"), st.integers(0, 2), st.sampled_from([1.0, 2.0]),
)  # fmt: skip
WANTED = st.builds(
    lambda key, edges, value: Expectation(
        1, ExpectedAlert(rule="r", key={"k": key} if key else {}, value=value,
                         between=edges and tuple(timedelta(minutes=e) for e in sorted(edges)))
    ),
    st.sampled_from(["", "a", "b"]),
    st.none() | st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.none() | st.sampled_from([1.0, 2.0]),
)  # fmt: skip


@pytest.mark.long
@examples(200)
@given(expected=st.lists(WANTED, max_size=4), raised=st.lists(RAISED, max_size=4))
def test_a_test_passes_if_each_alert_can_answer_one_expectation(
    expected: list[Expectation], raised: list[RaisedAlert]
) -> None:
    """Else a test fails because of the order in which its alerts are written, or passes with one alert too few."""

    def fits(alert: RaisedAlert, wanted: ExpectedAlert) -> bool:
        assert alert.after is not None
        low, high = wanted.between or (timedelta(0), timedelta(days=1))
        return (
            low <= alert.after <= high
            and wanted.value in (None, alert.value)
            and all(alert.key[name] == value for name, value in wanted.key.items())
        )

    possible = len(expected) == len(raised) and any(
        all(fits(alert, wanted.alert) for alert, wanted in zip(order, expected, strict=True))
        for order in itertools.permutations(raised)
    )
    found = list(differences(expected, raised))
    assert (not found) == possible
    assert len({id(d.expected) for d in found if d.expected}) <= len(expected)


# ── A message ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Http, Any]]:
    """A server, and what sends a test message to it."""
    server = Http()
    monkeypatch.setenv("HOOK_SECRET", "hush-hush-hush")
    monkeypatch.chdir(tmp_path)
    with serving(server.serve, server.ending) as port:
        channel = f"{{url: 'http://127.0.0.1:{port}/x', secret: {{env: HOOK_SECRET}}, timeout: 2}}"
        Path("rules.yaml").write_text(f"channels:\n  hook: {channel}\n", encoding="utf-8")
        yield server, lambda *more: ledger("alerts", "test", "--channel", "hook", "--alert-rules", "rules.yaml", *more)


@pytest.mark.long
def test_a_test_message_is_sent_once_and_the_answer_is_said(hook: tuple[Http, Any], tmp_path: Path) -> None:
    """Else whoever sets up a channel learns at the first real alert that it does not work."""
    server, send = hook
    server.then = Answer(204)
    ran = send()
    assert ran.code == 0 and "accepted (HTTP status 204)" in ran.out
    [request] = server.requests
    assert json.loads(request.body)["kind"] == "test"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rules.yaml"]  # nothing is recorded
    assert send("-o", "json").json == {"channel": "hook", "accepted": True, "answer": "HTTP status 204"}


def test_a_message_that_is_not_accepted_is_a_failure(hook: tuple[Http, Any]) -> None:
    """Else a wrong secret goes unnoticed."""
    server, send = hook
    server.then = Answer(401)
    ran = send()
    assert ran.code == 1 and "HTTP status 401" in ran.err and "hush" not in ran.err + ran.out


def test_a_channel_or_files_are_named(hook: tuple[Http, Any], tmp_path: Path) -> None:
    """Else the command does one of two things, and nobody knows which."""
    _, send = hook
    assert send("tests.yaml").code == ledger("alerts", "test").code == 2
    assert "no channel nope" in ledger("alerts", "test", "--channel", "nope", "--alert-rules", "rules.yaml").err
