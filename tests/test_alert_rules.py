"""Rules of alerts come from a file that people write: every mistake is told with its line, and never takes other rules
down."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from coupon_ledger.ledger.words import Speaker, catalogue
from coupon_ledger.projections.alerts import document, durations, rules, safe_sql, templates
from coupon_ledger.projections.alerts.rules import KINDS, METRICS, Rule, RuleSet
from coupon_ledger.projections.alerts.rules_file import (
    Loaded,
    defaults,
    defaults_text,
    load,
    load_bytes,
)
from coupon_ledger.projections.alerts.template_fields import fields_of, measured
from coupon_ledger.projections.alerts.text_file import MOST_PROBLEMS
from coupon_ledger.projections.alerts.troubles import KINDS as MODELS
from coupon_ledger.projections.alerts.writing import rule_yaml, rules_yaml
from tests.command_line import done, ledger

GOOD: Final = """\
use_defaults: false
channels:
  wecom: {url: x, limit: 5, on: true}
groups:
- name: risk
  owner: risk-team
  channels: [wecom]
  labels: {team: risk}
  rules:
  - alert: farm
    expr: {kind: velocity, events: [claimed], by: [device_id], distinct: user_id, at_least: 5, window: 10m}
    for: 0s
    keep_firing_for: 1h30m
    severity: high
    annotations:
      en: {summary: "Device {device_id}: {value} users"}
      zh: {summary: "设备 {device_id}：{value} 个用户"}
  - alert: sold_out
    expr: {kind: stock, sold_out_within: 10m}
    inhibited_by: [farm]
"""


def loaded(text: str | bytes, syntax: str = "yaml") -> Loaded:
    return load_bytes(text if isinstance(text, bytes) else text.encode(), "risk.yaml", syntax)


def names(result: Loaded) -> list[str]:
    return [rule.name for rule in result.rule_set.rules]


def rule_of(result: Loaded, name: str) -> Rule:
    return next(rule for rule in result.rule_set.rules if rule.name == name)


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


# ── What a file says ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_read_as_it_says() -> None:
    """Else a rule runs with other values than its author wrote."""
    result = loaded(GOOD)
    assert not result.problems and result.readable
    farm, sold_out = result.rule_set.rules
    assert isinstance(farm.expr, rules.Velocity)
    assert (farm.name, farm.group, farm.expr.at_least, farm.expr.window) == ("farm", "risk", 5, timedelta(minutes=10))
    assert (farm.hold, farm.keep, farm.severity) == (timedelta(0), timedelta(minutes=90), "high")
    assert (farm.owner, farm.channels, farm.labels) == ("risk-team", ("wecom",), {"team": "risk"})
    assert (sold_out.severity, sold_out.inhibited_by) == ("warning", ("farm",))
    assert result.lines == {"farm": 10, "sold_out": 18}


def test_a_channel_is_kept_as_it_stands_with_its_lines() -> None:
    """Else the room that delivers messages cannot say which line of a channel is wrong."""
    result = loaded(
        changed("{url: x, limit: 5, on: true}", "\n    url: x\n    secret: {env: X}\n    limit: 5\n    on: true")
    )
    assert result.channels == {"wecom": {"url": "x", "secret": {"env": "X"}, "limit": 5, "on": True}}
    assert result.channel_lines == {
        ("wecom",): 3,
        ("wecom", "url"): 4,
        ("wecom", "secret"): 5,
        ("wecom", "secret", "env"): 5,
        ("wecom", "limit"): 6,
        ("wecom", "on"): 7,
    }


def test_scalars_mean_what_they_say() -> None:
    """Else the code 0123 becomes 83, and the channel `on` the word True."""
    where = "window: 10m, where: {code: [0123, 1e3], channel: [on, null_, '~']}}"
    rule = rule_of(loaded(changed("window: 10m}", where)), "farm")
    assert isinstance(rule.expr, rules.Velocity)
    assert rule.expr.where == {"code": ("0123", "1e3"), "channel": ("on", "null_", "~")}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("7d", 604_800),
        ("1w", 604_800),
        ("1500ms", 1.5),
        ("0", 0),
        ("PT10M", 600),
        ("P1DT2H", 93_600),
        ("P1W", 604_800),
        ("PT0.5S", 0.5),
        ("P1Y1D", 31_622_400),
    ],
)
def test_durations_are_those_of_prometheus_and_iso_8601(text: str, seconds: float) -> None:
    assert durations.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "10 mins", "m", "1m1h", "-5m", "1.5h", "P", "PT", "P1M", "１０m", "9" * 12 + "y", "1e3s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="; write"):
        durations.parse(text)


@given(
    st.timedeltas(timedelta(0), timedelta(days=400)).map(lambda d: d - timedelta(microseconds=d.microseconds % 1000))
)
def test_a_written_duration_is_read_back(duration: timedelta) -> None:
    assert durations.parse(durations.written(duration)) == duration


# ── Defaults ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_defaults_are_whole() -> None:
    """Else a shop that writes no rules sees a kind of fault not at all, or without a text in its language."""
    result = loaded(defaults_text())
    assert not [str(problem) for problem in result.problems]
    assert result.rule_set == defaults()
    assert {rule.expr.kind for rule in defaults().rules} == set(KINDS) == MODELS.keys()
    for rule in defaults().rules:
        assert rule.annotations.keys() == {"en", "zh"}, rule.name
        assert rule.playbook and rule.playbook.startswith("docs/alerts.md#"), rule.name
        if isinstance(rule.expr, rules.Sql):
            assert safe_sql.problem_of_query(rule.expr) is None
    covered = {code for rule in defaults().rules if isinstance(rule.expr, rules.Violations) for code in rule.expr.codes}
    assert {"used_when_used", "orphan_use", "over_issue", "discount_above_value", "below_min_after_refund"} <= covered
    health = {rule.expr.of for rule in defaults().rules if isinstance(rule.expr, rules.Health)}
    assert health == set(rules.HEALTH)


def test_above_each_default_stands_why() -> None:
    """Else nobody dares to change a threshold."""
    lines = defaults_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  - alert: ") and "budget_spent" not in line:
            assert lines[number - 1].strip().startswith("#") or lines[number + 1].strip().startswith("#"), line


def test_without_a_file_the_defaults_apply() -> None:
    assert load(None).rule_set == load("").rule_set == defaults() == loaded("groups: []").rule_set


def test_a_default_of_the_same_name_is_changed_in_the_named_fields_alone() -> None:
    """Else whoever raises one threshold loses the texts, or has to copy the whole rule."""
    result = loaded(
        "groups:\n- rules:\n  - alert: device_farm\n    expr: {at_least: 50}\n    annotations: {en: {summary: x}}\n"
    )
    assert not result.problems
    before, after = (next(r for r in s.rules if r.name == "device_farm") for s in (defaults(), result.rule_set))
    assert isinstance(after.expr, rules.Velocity) and isinstance(before.expr, rules.Velocity)
    assert (after.expr.at_least, after.expr.window) == (50, before.expr.window)
    assert after.annotations["en"].summary == "x" and after.annotations["zh"] == before.annotations["zh"]
    assert after.version != before.version and len(result.rule_set.rules) == len(defaults().rules)


def test_a_default_can_become_a_rule_of_another_kind() -> None:
    rule = "alert: sold_out_soon, expr: {kind: reconciliation}, annotations: {en: {summary: x}, zh: {summary: y}}"
    text = f"groups:\n- rules:\n  - {{{rule}}}\n"
    assert rule_of(loaded(text), "sold_out_soon").expr.kind == "reconciliation"


def test_a_broken_change_of_a_default_leaves_the_default() -> None:
    """Else a typing error switches off what the shop relies on."""
    result = loaded("groups:\n- rules:\n  - alert: device_farm\n    expr: {at_least: many}\n")
    assert len(result.problems) == 1 and result.rule_set == defaults()


def test_a_group_with_the_name_of_one_of_the_defaults_gives_its_fields_to_them() -> None:
    """Else every default has to be named once to get an owner or a channel."""
    result = loaded(
        "channels: {wecom: {}}\ngroups:\n- {name: farming, owner: ann, channels: [wecom], severity: info}\n"
    )
    assert not result.problems
    farming = [rule for rule in result.rule_set.rules if rule.group == "farming"]
    assert len(farming) > 10
    assert {(rule.owner, rule.channels, rule.severity) for rule in farming} == {("ann", ("wecom",), "info")}
    others = [rule for rule in result.rule_set.rules if rule.group != "farming"]
    assert others == [rule for rule in defaults().rules if rule.group != "farming"]


def test_the_file_says_which_defaults_it_uses() -> None:
    assert names(loaded("use_defaults: false")) == []
    some = loaded("use_defaults: [over_issue, double_use]")
    assert names(some) == ["double_use", "over_issue"] and not some.problems
    wrong = loaded("use_defaults: [double_usage]")
    assert str(wrong.problems[0]).endswith("use_defaults[0]: no default rule 'double_usage'; did you mean double_use?")


def test_an_inhibitor_that_the_file_does_not_use_is_left_out_silently() -> None:
    result = loaded("use_defaults: [orphan_use]")
    assert rule_of(result, "orphan_use").inhibited_by == () and not result.problems


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────────────────

BAD: Final = {
    "a duration": (
        "window: 10m",
        "window: 10 mins",
        11,
        "groups[0].rules[0].expr.window: '10 mins' is no duration; write for example 10m",
    ),
    "no unit": (
        "window: 10m",
        "window: 10",
        11,
        "groups[0].rules[0].expr.window: '10' has no unit; write for example 10m",
    ),
    "without an end": (", window: 10m", "", 11, "groups[0].rules[0].expr.window: is missing; add it"),
    "too long": (
        "window: 10m",
        "window: 9y",
        11,
        "groups[0].rules[0].expr.window: '9y' is too large; write at most 366d",
    ),
    "an unknown field": (
        "severity: high",
        "sevrity: high",
        14,
        "groups[0].rules[0].sevrity: no field 'sevrity'; did you mean severity?",
    ),
    "a field of the model": ("for: 0s", "hold: 0s", 12, "groups[0].rules[0].hold: no field 'hold'; did you mean for?"),
    "an unknown kind": ("velocity", "velocty", 11, "did you mean velocity?"),
    "no kind": ("kind: velocity, ", "", 11, "groups[0].rules[0].expr: has no kind; write kind: and one of violation"),
    "another event": ("[claimed]", "[claimd]", 11, "did you mean claimed?"),
    "no expression": (
        "expr: {kind: stock, sold_out_within: 10m}",
        "severity: info",
        18,
        "groups[0].rules[1].expr: is missing; add it",
    ),
    "names nothing": (
        "- alert: sold_out",
        "- severity: info",
        18,
        "groups[0].rules[1]: names no rule; write alert: and a name",
    ),
    "no list": (
        "by: [device_id]",
        "by: device_id",
        11,
        "groups[0].rules[0].expr.by: 'device_id' is no list; write [device_id]",
    ),
    "empty": ("for: 0s", "for:", 12, "groups[0].rules[0].for: is empty; give it a value, or leave it out"),
    "distinct of its key": (
        "distinct: user_id",
        "distinct: device_id",
        11,
        "groups[0].rules[0].expr: counts the values of a field of its own key",
    ),
    "twice in a list": ("[device_id]", "[ip, ip]", 11, "names a value twice"),
    "not a number": ("at_least: 5", "at_least: .nan", 11, "'.nan' is no whole number"),
    "PromQL": (
        "{kind: stock, sold_out_within: 10m}",
        "up == 0",
        19,
        "groups[0].rules[1].expr: 'up == 0' is no mapping",
    ),
    "a wide colon": ("- alert: sold_out", "- alert：sold_out", 18, "write the colon : and a blank instead of ："),
    "no language": (
        "en: {summary",
        "fr: {summary",
        16,
        "groups[0].rules[0].annotations.fr: 'fr' is none of en, zh; write one of these",
    ),
    "texts without language": (
        '      en: {summary: "Device {device_id}: {value} users"}',
        "      summary: x",
        16,
        "'summary' belongs into a language",
    ),
    "no name": ("alert: sold_out", "alert: 售罄", 18, "groups[0].rules[1].alert: '售罄' is no name"),
    "a name twice": (
        "alert: sold_out",
        "alert: farm",
        18,
        "groups[0].rules[1].alert: a rule 'farm' is already in line 10; rename one, or delete it",
    ),
    "a severity": (
        "severity: high",
        "severity: hihg",
        14,
        "'hihg' is none of critical, high, warning, info; did you mean high?",
    ),
    "an anchor": ("owner: risk-team", "owner: &x risk-team", 6, "has an anchor, &x; leave it out"),
    "an alias": ("severity: high", "severity: *x", 14, "is an alias, *x; write the value itself"),
    "a tag": (
        "severity: high",
        "severity: !!python/name:os.system high",
        14,
        "has a tag, tag:yaml.org,2002:python/name:os.system; leave it out",
    ),
    "a key twice": ("for: 0s", "severity: info", 14, "severity stands twice, first in line 12; delete one"),
    "a tab": ("    for: 0s", "\tfor: 0s", 12, "is indented with a tab; YAML takes blanks"),
    "a quote": ("severity: high", 'severity: "high', 16, "the entry that begins in line 10 is left out"),
    "a bracket": ("events: [claimed]", "events: [claimed", 11, "the entry that begins in line 10 is left out"),
    "too little indented": ("    severity", " severity", 14, "the entry that begins in line 10 is left out"),
    "too much indented": ("    severity", "       severity", 14, "the entry that begins in line 10 is left out"),
    "a zero byte": ("severity: high", "severity: hi\0gh", 14, "has the unprintable character '\\x00'; delete it"),
    "a channel": (
        "channels: [wecom]",
        "channels: [wecon]",
        7,
        "groups[0].channels[0]: no channel 'wecon'; there are wecom",
    ),
    "an inhibitor": ("[farm]", "[farn]", 20, "groups[0].rules[1].inhibited_by[0]: no rule 'farn'; did you mean farm?"),
    "itself": ("[farm]", "[sold_out]", 20, "groups[0].rules[1].inhibited_by[0]: names the rule itself; leave it out"),
    "a field of a template": (
        "{device_id}: {value}",
        "{device}: {value}",
        16,
        "annotations.en.summary: has no field device in alerts of this rule; did you mean device_id?",
    ),
    "half a brace": ("{value} users", "{value users", 16, "has a brace { without its other half; write {{ for a brace"),
    "an attribute": (
        "{value} users",
        "{value.__class__} users",
        16,
        "has no field value.__class__ in alerts of this rule",
    ),
    "an index": ("{value} users", "{value[0]} users", 16, "has the place {value[0]}; write the name of a field"),
    "a conversion": ("{value} users", "{value!r} users", 16, "has the place {value!r}"),
    "a format": ("{value} users", "{value:>1000000} users", 16, "has the place {value:>1000000}"),
    "another format": (
        "{value} users",
        "{value:money} users",
        16,
        "writes value as money; this field takes count, number, text",
    ),
    "another top": (
        "use_defaults: false",
        "use_default: false",
        1,
        "use_default: no field 'use_default'; did you mean use_defaults?",
    ),
    "a half escalation": (
        "for: 0s",
        "escalate_to: [wecom]",
        10,
        "escalate_to without escalate_after never happens; name both",
    ),
    "a webhook without channel": (
        "for: 0s",
        "action: {do: webhook}",
        12,
        "groups[0].rules[0].action: a webhook needs a channel",
    ),
}
GOES_ON: Final = {
    "half a brace",
    "an attribute",
    "an index",
    "a conversion",
    "a format",
    "another format",
    "itself",
    "a field of a template",
    "an inhibitor",
    "a channel",
    "an anchor",
}
"""Faults that leave both rules in force, without what is wrong."""


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_is_told_with_its_line_and_the_other_rules_go_on(fault: str) -> None:
    """Else a risk person searches 300 lines, or a typing error in one rule switches off the others."""
    old, new, line, said = BAD[fault]
    result = loaded(changed(old, new))
    told = [str(problem) for problem in result.problems]
    assert any(text.startswith(f"risk.yaml line {line}: ") and said in text for text in told), told
    assert len(told) <= 2, told
    if fault not in ("a zero byte", "another top"):
        assert result.readable and len(result.rule_set.rules) >= (2 if fault in GOES_ON else 1)
    if fault in GOES_ON:
        assert names(result) == ["farm", "sold_out"]


def test_all_faults_are_told_at_once() -> None:
    """Else a file with five faults takes five rounds."""
    text = changed("window: 10m", "window: 10 mins").replace("severity: high", "severity: hihg")
    text = text.replace("sold_out_within: 10m", "sold_out_within: soon").replace("[farm]", "[farn")
    assert [problem.line for problem in loaded(text).problems] == [11, 14, 20]


def test_a_circle_of_inhibitions_is_cut() -> None:
    """Else two rules silence each other for good."""
    text = changed("for: 0s", "inhibited_by: [sold_out]")
    result = loaded(text)
    assert "inhibit each other in a circle" in str(result.problems[0]) and len(result.problems) == 1
    assert [rule.inhibited_by for rule in result.rule_set.rules] == [(), ()]


@pytest.mark.long
def test_a_thicket_of_inhibitions_is_cut_in_bounded_time() -> None:
    rule = "  - {{alert: r{n}, expr: {{kind: reconciliation}}, inhibited_by: [{by}]}}\n"
    text = "use_defaults: false\ngroups:\n- rules:\n" + "".join(
        rule.format(n=n, by=", ".join(f"r{(n * 7 + k * k + 1) % 1_000}" for k in range(12))) for n in range(1_000)
    )
    began = time.monotonic()
    result = loaded(text)
    assert any("inhibit each other" in str(problem) for problem in result.problems)
    TopologicalSorter({rule.name: rule.inhibited_by for rule in result.rule_set.rules}).prepare()
    assert time.monotonic() - began < 20


@pytest.mark.long
def test_a_slip_in_one_rule_leaves_nearly_all_others() -> None:
    """Else one bracket too many switches off what watches the shop."""
    draw = random.Random(17)
    text = defaults_text()
    survivors = []
    for _ in range(60):
        at = text.index("groups:") + draw.randrange(len(text) - text.index("groups:"))
        slip = draw.choice(["\t", "'", '"', "[", "{", "}", ": ", "\n", "- ", "&a", "*a", "", "：", "\n  "])
        result = loaded(text[:at] + slip + text[at + draw.choice([0, 1, 5]) :])
        survivors.append(len(result.rule_set.rules) if result.readable else 0)
    nine_of_ten = sorted(survivors)[len(survivors) // 10 :]
    assert nine_of_ten[0] >= len(defaults().rules) - 3, sorted(survivors)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"", 1, "is empty; write rules under groups:, or leave the setting alert-rules empty for the defaults"),
        (b"# only this\n\n", 1, "is empty; write rules"),
        (b"a\nb", 1, "has no fields; begin with groups:"),
        (b"groups:\n- name: \xff\n", 2, "is not in UTF-8; save it as UTF-8"),
        ("groups: []".encode("utf-16"), 1, "is not in UTF-8"),
        (b"x" * (document.MOST_BYTES + 1), 1, "is larger than 1,048,576 bytes; split it"),
        (b"[" * 100_000, 1, "is nested more than 20 levels deep; write it flatter"),
        (b"a: " + b"{a: " * 100_000, 1, "is nested more than 20 levels deep"),
        (b"- " * 100_000, 1, "is nested more than 20 levels deep"),
        (b"groups: [\n", 1, "is no YAML here"),
        (b"%YAML 9.9\n---\ngroups: []\n", 1, ""),
    ],
    ids=["empty", "comment", "text", "latin", "utf-16", "large", "lists", "mappings", "dashes", "open", "directive"],
)
def test_a_file_that_cannot_be_read_leaves_the_defaults(content: bytes, line: int, said: str) -> None:
    """Else an empty or broken file means that nothing is watched."""
    began = time.monotonic()
    result = loaded(content)
    assert result.rule_set == defaults()
    if said:
        assert not result.readable
        assert result.problems[0].line == line and said in str(result.problems[0])
    assert time.monotonic() - began < 20


def test_a_file_with_a_byte_order_mark_and_windows_lines_is_read() -> None:
    result = loaded(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert not result.problems and result.rule_set == loaded(GOOD).rule_set and result.lines["sold_out"] == 18


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    began = time.monotonic()
    told = [str(problem) for problem in loaded("\n".join(lines)).problems]
    assert any("is an alias, *a0; write the value itself" in text for text in told)
    assert time.monotonic() - began < 20


def test_a_label_of_a_megabyte_is_refused_without_being_repeated() -> None:
    text = changed("{team: risk}", "{team: " + "x" * 1_000_000 + "}")
    told = str(loaded(text).problems[0])
    assert "has 1,000,000 characters; write at most 200" in told and len(told) < 200


@pytest.mark.long
def test_a_file_full_of_faults_is_told_in_bounded_time() -> None:
    began = time.monotonic()
    result = loaded("\n".join(f"field_{n}: {n}" for n in range(50_000)))
    assert len(result.problems) == MOST_PROBLEMS + 1 and "more problems follow" in str(result.problems[-1])
    assert time.monotonic() - began < 20


@pytest.mark.long
def test_more_rules_than_can_be_meant_are_refused() -> None:
    rule = "  - {{alert: r{n}, expr: {{kind: reconciliation}}}}\n"
    text = "use_defaults: false\ngroups:\n- rules:\n" + "".join(rule.format(n=n) for n in range(2_100))
    result = loaded(text)
    assert len(result.rule_set.rules) == 2_000 and [problem.line for problem in result.problems] == [2_004]


def test_paths_that_are_no_file_are_told(tmp_path: Path) -> None:
    assert "is a folder or device, not a file" in str(load(tmp_path).problems[0])
    assert "is not there; check the path" in str(load(tmp_path / "x.yaml").problems[0])
    assert "is not there" in str(load("a\0b").problems[0])
    assert load(tmp_path).rule_set == defaults() and not load(tmp_path).readable


CALENDAR: Final = """\
calendar:
- {name: 双11, starts: 2026-11-10T20:00:00+08:00, ends: 2026-11-12T00:00:00+08:00}
- {name: 双12, starts: 2026-12-11T20:00:00+08:00, ends: 2026-12-13T00:00:00+08:00, like: 双11}
"""


def test_the_calendar_is_read_and_checked() -> None:
    """Else a planned sale raises alerts, or is compared with nothing."""
    sales = loaded(CALENDAR).rule_set.calendar
    assert [sale.starts for sale in sales] == [
        datetime(2026, 11, 10, 12, tzinfo=UTC),
        datetime(2026, 12, 11, 12, tzinfo=UTC),
    ]
    for old, new, said in [
        ("like: 双11", "like: 618", "calendar[1].like: no sale '618' is in the calendar"),
        ("2026-12-13T00:00:00+08:00", "2026-12-13", "calendar[1].ends: '2026-12-13' is no instant with a zone"),
        ("2026-12-13", "2026-12-01", "calendar[1]: ends before it starts; exchange them"),
        ("name: 双12", "name: 双11", "calendar[1]: a sale '双11' is there already"),
    ]:
        told = [str(problem) for problem in loaded(CALENDAR.replace(old, new)).problems]
        assert len(told) == 1 and told[0].startswith(f"risk.yaml line 3: {said}"), told


# ── SQL ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT coupon_id FROM coupons WHERE state = 'used'", None),
        ("WITH x AS (SELECT coupon_id FROM coupons) SELECT coupon_id FROM x; -- end", None),
        (
            "SELECT order_id AS coupon_id FROM orders WHERE stands(paid_at, cancelled_at, net_minor, refunded_minor)",
            None,
        ),
        ("SELECT 1 AS coupon_id; SELECT 2 AS coupon_id", "has 2 statements; write one SELECT"),
        ("-- nothing", "has 0 statements; write one SELECT"),
        ("SELEC coupon_id", "is no SQL: Parser Error"),
        ("DELETE FROM coupons", "is a DELETE statement; write one SELECT"),
        ("COPY coupons TO '/tmp/x'", "is a COPY statement; write one SELECT"),
        ("INSTALL httpfs", "is a LOAD statement; write one SELECT"),
        ("PRAGMA database_list", "is no SQL: Only SELECT statements"),
        ("ATTACH 'x.db'", "is a ATTACH statement"),
        ("SELECT * FROM read_csv('/etc/passwd')", "reads from read_csv; read tables of the database only"),
        ("SELECT * FROM coupons WHERE EXISTS (FROM sniff_csv('/etc/passwd'))", "reads from sniff_csv"),
        ("SELECT * FROM 'https://example.org/x.parquet'", "reads from https://example.org/x.parquet"),
        ("SELECT coupon_id, getenv('HOME') FROM coupons", "calls getenv, which a rule may not; leave it out"),
        ("SELECT coupon_id, pg_sleep(1) FROM coupons", "calls pg_sleep"),
        ("SELECT coupon_id FROM kupons", "reads from kupons, which is not there; did you mean coupons?"),
        ("SELECT coupon FROM coupons", "does not fit the tables: Binder Error: Referenced column"),
        ("SELECT order_id FROM orders", "returns no column coupon_id; it returns order_id"),
        ("SELECT coupon_id FROM coupons WHERE state = $state", "uses PARAMETER, which a rule may not"),
        ("SELECT " + "(" * 9_000, "is no SQL"),
        ("SELECT " + "NOT " * 3_000 + "true AS coupon_id", "is no SQL"),
    ],
)
def test_a_query_is_one_select_over_the_tables(query: str, said: str | None) -> None:
    """Else a rule writes, reads files of the machine, or fails only once it is in force."""
    text = (
        "groups:\n- rules:\n  - alert: mine\n    expr:\n      kind: sql\n      key: [coupon_id]\n      query: "
        + json.dumps(query)
    )
    result = loaded(text)
    if said is None:
        assert not result.problems
        return
    [problem] = result.problems
    assert str(problem).startswith(f"risk.yaml line 7: groups[0].rules[0].expr.query: {said}")
    assert "mine" not in names(result)


# ── TOML ─────────────────────────────────────────────────────────────────────────────────────────────────────

TOML: Final = '''\
use_defaults = false

[channels.wecom]
url = "x"
limit = 5
on = true

[[groups]]
name = "risk"
owner = "risk-team"
channels = ["wecom"]
labels = {team = "risk"}

[[groups.rules]]
alert = "farm"
for = "0s"
keep_firing_for = "1h30m"
severity = "high"
[groups.rules.expr]
kind = "velocity"
events = ["claimed"]
by = ["device_id"]
distinct = "user_id"
at_least = 5
window = "10m"
[groups.rules.annotations]
en.summary = """Device {device_id}: {value} users"""
zh.summary = "设备 {device_id}：{value} 个用户"

[[groups.rules]]
alert = "sold_out"
inhibited_by = ["farm"]
expr = {kind = "stock", sold_out_within = "10m"}
'''


def test_toml_says_the_same() -> None:
    result = loaded(TOML, "toml")
    assert not result.problems and result.rule_set == loaded(GOOD).rule_set
    assert result.channels == {"wecom": {"url": "x", "limit": 5, "on": True}}
    assert (result.channel_lines["wecom",], result.channel_lines["wecom", "limit"]) == (3, 5)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('window = "10m"', 'window = "10 mins"', 25, "groups[0].rules[0].expr.window: '10 mins' is no duration"),
        ('window = "10m"', "window = 10", 25, "groups[0].rules[0].expr.window: 10 has no unit"),
        ('"farm"]', '"farn"]', 32, "groups[0].rules[1].inhibited_by[0]: no rule 'farn'; did you mean farm?"),
        ('alert = "sold_out"', "alert = ", 31, "the entry that begins in line 30 is left out"),
        ('"10m"}', '"soon"}', 33, "groups[0].rules[1].expr.sold_out_within: 'soon' is no duration"),
        ("at_least = 5", 'at_least = 5\nkind = "stock"', 25, "the entry that begins in line 14 is left out"),
        ("{value} users", "{valu} users", 27, "has no field valu in alerts of this rule; did you mean value?"),
    ],
)
def test_a_fault_in_toml_is_told_with_its_line(old: str, new: str, line: int, said: str) -> None:
    assert old in TOML
    result = loaded(TOML.replace(old, new, 1), "toml")
    assert [problem.line for problem in result.problems][:1] == [line], list(map(str, result.problems))
    assert said in str(result.problems[0]) and {"farm", "sold_out"} & set(names(result))


@pytest.mark.parametrize("text", ["x = " + "[" * 50_000, "x = " + "9" * 10_000, "a = 1\na = 2", "[a", "\tx=1\n\0"])
def test_toml_that_is_none_is_told(text: str) -> None:
    result = loaded(text, "toml")
    assert result.problems and not result.readable and result.rule_set == defaults()


# ── Any file at all ──────────────────────────────────────────────────────────────────────────────────────────

PIECES: Final = st.one_of(
    st.sampled_from(
        [
            "\n",
            "\t",
            ":",
            ": ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            '"',
            "'",
            "#",
            "&a ",
            "*a",
            "!!x ",
            "|",
            "\0",
            "---\n",
            "\ufeff",
            "\u2028",
            "：",
            "groups:",
            "- alert: x\n",
            "null",
            "0",
            "10m",
            "en:",
            "<<: ",
            "\r",
            "\\x",
            "? ",
            "%YAML",
        ]
    ),
    st.text(max_size=6),
)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """The text after some edits: pieces put in, cut out, or moved."""
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 3, 20, 200])))
        text = text[:start] + draw(st.one_of(PIECES, st.just(text[end : end + 60]))) + text[end:]
    return text


def check_problems(text: str, result: Loaded) -> None:
    lines = max(1, len(text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")))
    speaker = Speaker("zh")
    for problem in result.problems:
        assert 1 <= problem.line <= lines and problem.column >= 1, str(problem)
        assert str(problem).startswith(f"risk.yaml line {problem.line}: ") and len(str(problem)) < 2_000
        assert problem.in_words(speaker)
    known = {rule.name for rule in result.rule_set.rules}
    TopologicalSorter({rule.name: rule.inhibited_by for rule in result.rule_set.rules}).prepare()
    for rule in result.rule_set.rules:
        assert set(rule.inhibited_by) <= known and set(rule.channels) <= result.channels.keys()
        assert Rule.model_validate(rule.as_json()).version == rule.version


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(mutated(GOOD + CALENDAR))
def test_no_mutation_of_a_file_is_a_crash_and_every_problem_has_its_line(text: str) -> None:
    """Else a half-saved file ends the consumer, or a problem points to nowhere."""
    check_problems(text, loaded(text.encode("utf-8", "replace")))


@pytest.mark.long
@settings(max_examples=30, deadline=None)
@given(mutated(GOOD))
def test_the_loader_in_python_is_as_good(text: str) -> None:
    """Else a machine whose PyYAML has no C library reads other rules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "_LOADER", yaml.SafeLoader)
        check_problems(text, loaded(text.encode("utf-8", "replace")))
        assert loaded(GOOD).rule_set.rules and not loaded(GOOD).problems


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(mutated(TOML))
def test_no_mutation_of_a_toml_file_is_a_crash(text: str) -> None:
    check_problems(text, loaded(text.encode("utf-8", "replace"), "toml"))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_a_crash(content: bytes) -> None:
    assert loaded(content).problems is not None


VALUES: Final = st.recursive(
    st.one_of(st.none(), st.text(max_size=8), st.integers().map(str), st.sampled_from(["10m", "claimed", "ip"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_value_of_any_field_is_a_crash(data: st.DataObject) -> None:
    """As above, for files that are YAML and say nonsense."""
    kind = data.draw(st.sampled_from(list(MODELS)))
    expr = data.draw(st.dictionaries(st.sampled_from(list(MODELS[kind].model_fields)), VALUES, max_size=4))
    rule = data.draw(
        st.dictionaries(
            st.sampled_from(
                "expr for every labels annotations action owner channels inhibited_by escalate_to enabled x".split()
            ),
            VALUES,
            max_size=4,
        )
    )
    text = json.dumps(
        {
            "groups": [{"rules": [{"alert": "a", "expr": {**expr, "kind": kind}, **rule}]}],
            **data.draw(st.dictionaries(st.sampled_from(["calendar", "channels", "use_defaults"]), VALUES)),
        }
    )
    check_problems(text, loaded(text))


# ── Round trips ──────────────────────────────────────────────────────────────────────────────────────────────

SPANS: Final = st.integers(1, 86_400_000).map(lambda ms: timedelta(seconds=1) + timedelta(milliseconds=ms))
NAMES: Final = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True)
TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), min_size=1, max_size=40)
EVENTS: Final = st.sampled_from(["claimed", "used", "returned"])
EXPRESSIONS: Final = st.one_of(
    st.fixed_dictionaries(
        {
            "kind": st.just("velocity"),
            "events": st.lists(EVENTS, min_size=1, unique=True),
            "by": st.just(["ip"]),
            "at_least": st.integers(2, 10**7),
            "window": SPANS,
        },
        optional={
            "distinct": st.just("user_id"),
            "after": st.fixed_dictionaries({"event": EVENTS, "within": SPANS}),
            "where": st.fixed_dictionaries({"code": st.lists(TEXTS, min_size=1, unique=True)}),
        },
    ),
    st.fixed_dictionaries(
        {"kind": st.just("metric"), "metric": st.sampled_from(METRICS)},
        optional={"relative": st.floats(0, 1000), "score": st.floats(0.001, 1), "calendar": st.booleans()},
    ),
    st.fixed_dictionaries({"kind": st.just("threshold"), "metric": st.just("orders"), "above": st.floats(-1e15, 1e15)}),
    st.fixed_dictionaries({"kind": st.just("stock"), "sold_out_within": SPANS}),
    st.just({"kind": "reconciliation"}),
)
RULES: Final = st.builds(
    lambda **fields: Rule.model_validate({name: value for name, value in fields.items() if value is not None}),
    name=NAMES,
    group=NAMES,
    expr=EXPRESSIONS,
    hold=st.none() | SPANS,
    keep=st.none() | SPANS,
    severity=st.sampled_from(rules.SEVERITIES),
    labels=st.dictionaries(NAMES, TEXTS, max_size=3),
    owner=st.none() | TEXTS,
    annotations=st.dictionaries(
        st.sampled_from(["en", "zh"]), st.fixed_dictionaries({"summary": TEXTS}, optional={"description": TEXTS})
    ),
    enabled=st.booleans(),
    playbook=st.none() | TEXTS,
)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(st.lists(RULES, min_size=1, max_size=4, unique_by=lambda rule: rule.name))
def test_a_rule_that_is_written_and_read_again_is_the_same(written: list[Rule]) -> None:
    """Else `alerts rules show > file` changes a rule, and its alerts count as those of another."""
    text = rules_yaml(RuleSet(rules=tuple(written)))
    result = loaded(text)
    assert not result.problems, [str(problem) for problem in result.problems]
    assert [rule.version for rule in result.rule_set.rules] == [rule.version for rule in written]
    for rule in written:
        assert Rule.model_validate(json.loads(json.dumps(rule.as_json()))).version == rule.version


def test_the_defaults_and_the_calendar_survive_being_written() -> None:
    whole = RuleSet(rules=defaults().rules, calendar=loaded(CALENDAR).rule_set.calendar)
    again = loaded(rules_yaml(whole))
    assert not again.problems and again.rule_set == whole
    assert [r.version for r in again.rule_set.rules] == [r.version for r in whole.rules]


def test_a_version_follows_what_is_in_the_rule() -> None:
    """Else a changed rule passes for the old one."""
    farm = rule_of(loaded(GOOD), "farm")
    assert len(farm.version) == 12
    other = rule_of(loaded(changed("at_least: 5", "at_least: 6")), "farm")
    spelled = rule_of(loaded(changed("window: 10m", "window: PT600S")), "farm")
    assert other.version != farm.version == spelled.version
    without = rule_of(loaded(changed("{device_id}: {value}", "{device}: {value}")), "farm")
    assert without.version != farm.version and "en" not in without.annotations


# ── Texts ────────────────────────────────────────────────────────────────────────────────────────────────────


def written(template: str, values: dict[str, Any], lang: str = "en", name: str = "farm") -> str:
    rule = rule_of(loaded(GOOD), name)
    return templates.render(template, rule, values, templates.Reader(lang, lambda at: f"{at:%H:%M}"))


def test_values_are_written_for_people_in_both_languages() -> None:
    """Else a reader sees 1800000 and does not know whether that is fen or yuan."""
    values = {
        "value": 12_345,
        "money": (1_800_000, "CNY"),
        "since": datetime(2026, 11, 11, 20),
        "window": timedelta(minutes=10),
        "severity": "high",
        "device_id": "d-1",
        "top": [("u-1", 12), ("u-2", 4)],
        "lasted": 5400.0,
    }
    template = "{severity}: {device_id} {value}, {money}, {since}, {window}, {top}, {lasted}, {users}, {{}}"
    assert (
        written(template, values) == "high: d-1 12,345, 18,000.00 CNY, 20:00, 10 min, u-1 (12), u-2 (4), 90 min, –, {}"
    )
    assert (
        written(template, values, "zh")
        == "严重: d-1 12,345, 18,000.00 CNY, 20:00, 10 分钟, u-1 (12)、u-2 (4), 90 分钟, –, {}"
    )
    assert written("{key}", values) == "device id d-1" and written("{key}", values, "zh") == "设备 d-1"


def test_a_value_is_written_in_the_unit_of_what_the_rule_measures() -> None:
    by_name = {rule.name: rule for rule in defaults().rules}
    for name, value, said in [
        ("use_rate_collapse", 0.25, "25.0%"),
        ("discount_surge", (5_000, "CNY"), "50.00 CNY"),
        ("claims_surge", 1200, "1,200"),
        ("claims_concentrated", 0.5, "50.0%"),
        ("consumer_lag", 150, "2.5 min"),
        ("budget_runaway", timedelta(hours=3), "3 h"),
    ]:
        assert templates.render("{value}", by_name[name], {"value": value}) == said
    double = by_name["double_use"]
    texts = {lang: templates.summary(double, lang) for lang in ("en", "zh")}
    values = {"campaign_id": "8", "count": 27, "money": (2_700, "CNY"), "since": datetime(2026, 1, 1)}
    assert templates.render(texts["zh"], double, values).startswith("活动 8 的已用券被再次核销 27 次，涉及 27.00 CNY")
    after = by_name["use_after_end"]
    zh = templates.Reader("zh")
    assert templates.render("{code}", after, {"code": "used_when_expired"}, zh) == "失效后核销"


def test_a_rule_without_texts_has_one_in_each_language() -> None:
    bare = Rule.model_validate({"name": "bare", "expr": {"kind": "stock", "sold_out_within": "10m"}})
    assert templates.summary(bare, "en") == templates.GENERIC != templates.summary(bare, "zh")
    assert (
        not templates.problems(templates.summary(bare, "zh"), fields_of(bare), measured(bare))
        and templates.description(bare, "en") is None
    )
    assert templates.summary(rule_of(loaded(GOOD), "farm"), "zh").startswith("设备")


ANYTHING: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=300),
    st.lists(st.integers(), max_size=3),
    st.tuples(st.integers(), st.text()),
    st.timedeltas(),
    st.just((1, "CNY")),
    st.just([("a", 1)]),
    st.just([("a", "b"), None]),
)


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from([r.name for r in defaults().rules]), st.data())
def test_no_template_and_no_value_is_a_crash(text: str, name: str, data: st.DataObject) -> None:
    """Else one odd device id keeps a message from being sent."""
    rule = next(rule for rule in defaults().rules if rule.name == name)
    values = {field: data.draw(ANYTHING) for field in data.draw(st.sets(st.sampled_from(sorted(fields_of(rule)))))}
    whole = text + " ".join(f"{{{field}}}" for field in values)
    for lang in ("en", "zh"):
        rendered = templates.render(whole, rule, values, templates.Reader(lang))
        assert isinstance(rendered, str) and len(rendered) < 60 + 400 * (len(values) + 1)


def test_a_value_cannot_bring_a_place_or_a_control_character_of_its_own() -> None:
    """Else a device that calls itself {money} or an escape sequence writes into messages."""
    assert written("{device_id}", {"device_id": "{money}\x1b[2J\n", "money": (1, "CNY")}) == "{money}\ufffd[2J\ufffd"


def test_personal_data_in_a_text_is_known() -> None:
    """Else a device or a user id goes to a channel that is not for it."""
    farm = rule_of(loaded(GOOD), "farm")
    assert templates.is_personal("{device_id}", farm) and templates.is_personal("{key}", farm)
    assert not templates.is_personal("{value} since {since}", farm)
    public = templates.Reader(personal=False)
    values = {"device_id": "d-1", "value": 7, "top": [("d-1", 7)]}
    assert templates.render("{device_id} {key} {top} {value}", farm, values, public) == "••• device id ••• ••• 7"
    by_name = {rule.name: rule for rule in defaults().rules}
    assert not templates.is_personal("{code}", by_name["use_after_end"])
    assert templates.is_personal("{code}", by_name["leaked_code"])


# ── Words, commands ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_models_say_is_in_both_languages() -> None:
    """Else a Chinese reader gets half a sentence in English."""
    said = [
        *validators_say(),
        durations.EXAMPLE,
        durations.NO_UNIT,
        durations.TOO_FINE,
        durations.TOO_LONG,
        templates.GENERIC,
    ]
    assert len(said) > 10 and not [text for text in said if text not in catalogue()]


def validators_say() -> Iterator[str]:
    """The texts of the errors that the validators of the models raise."""
    source = Path(rules.__file__).read_text(encoding="utf-8")
    for line in source.splitlines():
        if "raise ValueError(" in line:
            yield line.partition('"')[2].rpartition('"')[0]


def test_a_rule_in_code_has_the_same_bounds_as_in_a_file() -> None:
    with pytest.raises(ValidationError, match="366d"):
        rules.Stock(kind="stock", sold_out_within=timedelta(days=400))


def test_the_first_file_of_the_reference_can_be_copied() -> None:
    """Else the first thing that a newcomer tries ends in an error."""
    text = (Path(__file__).parent.parent / "docs" / "alert-rules.md").read_text(encoding="utf-8")
    first, *examples = re.findall(r"```yaml\n(.*?)```", text.partition("\n## Tests\n")[0], re.DOTALL)
    result = loaded(first)
    assert not [str(problem) for problem in result.problems]
    assert rule_of(result, "store_rush").owner == "risk-team" and len(result.rule_set.calendar) == 1
    assert len(examples) == len(KINDS)
    for example in examples:
        assert not loaded("groups:\n- rules:\n" + "".join(f"  {line}\n" for line in example.splitlines())).problems


def test_commands_list_and_show_the_rules_in_force(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody can say which rules watch the shop."""
    monkeypatch.delenv("COUPON_LEDGER_ALERT_RULES")
    assert {row["rule"] for row in done("alerts", "rules", "list", "--output", "json").json} == {
        r.name for r in defaults().rules
    }
    (home / "risk.yaml").write_text(changed("for: 0s", "fro: 0s"), encoding="utf-8")
    (home / "coupon-ledger.toml").write_text('[coupon-ledger]\nalert-rules = "risk.yaml"\n', encoding="utf-8")
    listed = ledger("alerts", "rules", "list", "--output", "ndjson")
    assert [(row["rule"], row["origin"]) for row in listed.rows] == [("sold_out", "risk.yaml:18")]
    assert "warning: risk.yaml:12:5: groups[0].rules[0].fro: no field 'fro'; did you mean for?" in listed.err
    (home / "risk.yaml").write_text(GOOD, encoding="utf-8")
    shown = done("alerts", "rules", "show", "farm")
    assert "- alert: farm\n" in shown.out and "keep_firing_for: 1h30m" in shown.out and "owner: risk-team" in shown.out
    content = done("alerts", "rules", "show", "farm", "--output", "json").json["content"]
    assert Rule.model_validate(content) == rule_of(loaded(GOOD), "farm")
    missing = ledger("alerts", "rules", "show", "fram")
    assert missing.code == 1 and "no alert rule fram; did you mean farm?" in missing.err


GOOD_CHANNEL: Final = "{url: x, limit: 5, on: true}"
CHANNELS_APART: Final = '{url: "wecombot://{secret}", secret: {env: WECOM_KEY}}'


def test_check_prints_each_problem_with_file_and_line_and_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a deployment takes a broken file into force."""
    text = CHANNELS_APART.join(changed("window: 10m", "window: 10 mins").split(GOOD_CHANNEL))
    (home / "risk.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("WECOM_KEY", "k-1")
    ran = ledger("alerts", "rules", "check", "risk.yaml")
    assert ran.code == 6
    assert (
        ran.out == "risk.yaml:11:104: groups[0].rules[0].expr.window: '10 mins' is no duration; write for example 10m\n"
    )
    assert "risk.yaml: 1 problem; 1 rules apply all the same" in ran.err
    chinese = ledger("--lang", "zh", "alerts", "rules", "check", "risk.yaml")
    assert "'10 mins' 不是时长；例如 10m" in chinese.out
    rows = ledger("alerts", "rules", "check", "risk.yaml", "--output", "json").json
    assert [(row["line"], row["column"], row["rule"]) for row in rows] == [(11, 104, "farm")]
    good = CHANNELS_APART.join(GOOD.split(GOOD_CHANNEL))
    (home / "risk.yaml").write_text(good, encoding="utf-8")
    monkeypatch.delenv("WECOM_KEY")
    without = ledger("alerts", "rules", "check", "risk.yaml")
    assert without.code == 6 and "risk.yaml:3:1: channel wecom, secret: " in without.out
    assert "the environment variable WECOM_KEY is not set" in without.out
    monkeypatch.setenv("WECOM_KEY", "k-1")
    assert "risk.yaml: 2 rules, no problem" in done("alerts", "rules", "check", "risk.yaml").out
    assert "the defaults: " in done("alerts", "rules", "check").out
    assert "-: 2 rules, no problem" in done("alerts", "rules", "check", "-", stdin=good.encode()).out


def test_the_printed_defaults_are_a_file_to_begin_with(home: Path) -> None:
    (home / "rules.yaml").write_text(done("alerts", "rules", "defaults").out, encoding="utf-8")
    done("alerts", "rules", "check", "rules.yaml")
    assert load("rules.yaml").rule_set == defaults()
    for rule in defaults().rules:
        assert rule_yaml(rule).startswith(f"- alert: {rule.name}\n")


# ── All mistakes at once ─────────────────────────────────────────────────────────────────────────────────────

MISTAKES: Final = {
    "for: 0s": ("for: 5x", "is no duration"),
    "severity: high": ("severity: hgih", "is none of"),
    "at_least: 5": ("at_least: x", "is no whole number"),
    'zh: {summary: "设备 {device_id}：{value} 个用户"}': ('zh: {summary: "设备 {ip}"}', "has no field ip"),
    'en: {summary: "Device {device_id}: {value} users"}': ('en: {summary: "{value users"}', "has a brace {"),
    "keep_firing_for: 1h30m": ("inhibited_by: [nobody]", "no rule 'nobody'"),
    "alert: sold_out": ("alert: sold_out\n    colour: red", "no field 'colour'"),
    "expr: {kind: stock, sold_out_within: 10m}": (
        "expr: {kind: stock, sold_out_within: 10m}\n    escalate_to: [pager]",
        "without escalate_after never happens",
    ),
    "labels: {team: risk}": ("labels: {team: risk}\n  owner: ''", "stands twice"),
}
"""Independent mistakes in `GOOD`: what is replaced by what, and what is said of it."""


@pytest.mark.long
@given(wrong=st.sets(st.sampled_from(sorted(MISTAKES)), min_size=1))
def test_each_mistake_is_told_whatever_else_is_wrong(wrong: set[str]) -> None:
    """Else whoever mends a file learns of the next mistake only after the last one is gone."""
    text = GOOD
    for good in wrong:
        text = text.replace(good, MISTAKES[good][0], 1)
    said = [str(problem) for problem in loaded(text).problems]
    for good in wrong:
        assert [one for one in said if MISTAKES[good][1] in one], (MISTAKES[good], said)
    if "expr: {kind: stock, sold_out_within: 10m}" in wrong:
        assert any("no channel 'pager'" in one for one in said)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("expr: {kind: velocty}", {"expr.kind", "annotations.en.summary"}),
        ("expr: 5", {"expr", "annotations.en.summary"}),
        ("expr: {kind: sql, query: SELECT 1 AS a, key: [a], timeout: 5x}", {"expr.timeout", "annotations.en.summary"}),
        ("expr: {kind: sql, query: SELECT 1 AS a}", {"expr.key", "annotations.en.summary"}),
        ("expr: {kind: budget}", {"expr", "annotations.en.summary"}),
        ("action: {do: nothing}", {"expr", "action.do", "annotations.en.summary"}),
        ("expr: {kind: stock, sold_out_within: 10m}\n    labels: {a: [1]}", {"labels.a", "annotations.en.summary"}),
    ],
)
def test_a_brace_without_its_half_is_told_beside_any_other_mistake(fields: str, wanted: set[str]) -> None:
    """Else it is told after the next try only."""
    text = f'groups:\n- rules:\n  - alert: a\n    annotations: {{en: {{summary: "{{value"}}}}\n    {fields}\n'
    assert {problem.path.removeprefix("groups[0].rules[0].") for problem in loaded(text).problems} == wanted


@pytest.mark.parametrize("kind", ["plan", "proof"])
def test_a_file_that_is_named_by_a_rule_is_called_as_the_rule_calls_it(tmp_path: Path, kind: str) -> None:
    """Else an error is two long paths, and the sentence between them is lost."""
    folder = tmp_path / "a-long-way-down"
    folder.mkdir()
    expr = "{kind: threshold, metric: claimed, by: [campaign], against: plan, plan: plan.csv}"
    if kind == "proof":
        expr = "{kind: stock, sold_out_within: 10m}\n    action: {do: unpublish_campaign, automatic: proof.json}"
    (folder / "rules.yaml").write_text(f"groups:\n- rules:\n  - alert: a\n    severity: bad\n    expr: {expr}\n")
    bad_severity, problem = load(folder / "rules.yaml").problems
    assert bad_severity.path.endswith("severity")
    assert str(problem).count(str(folder)) == 1 and f"{kind}." in str(problem.said)
