"""Checks what rules refer to: channels, other rules, and the fields in their texts. What does not exist is left out of
the rule, which goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts import templates
from coupon_ledger.projections.alerts.groups import Entry
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.troubles import Report, Trouble, no_channel, shown


def changed(rule: Rule, **fields: Any) -> Rule:
    """The rule with other values of these fields. A copy would keep the version of the old rule."""
    return Rule.model_validate({**rule.model_dump(), **fields})


def without_bad_references(
    rules: Sequence[Rule],
    entries: Mapping[str, Entry],
    named: Collection[str],
    channels: Collection[str],
    report: Report,
) -> list[Rule]:
    """The rules without channels that are not in `channels`, and without inhibitors that are not among the rules or
    inhibit each other in a circle. `entries`: of the rules that the file names or changes, by name. `named`: the
    names of all rules of the file, also of those that are left out. What a default refers to and the file does not use
    is left out silently, and so is a rule that is left out itself."""
    names = {rule.name for rule in rules}
    mended = []
    for rule in rules:
        entry = entries.get(rule.name)
        fields: dict[str, Any] = {}
        for field, known in (("channels", channels), ("escalate_to", channels), ("inhibited_by", names)):
            wanted = getattr(rule, field)
            bad = [name for name in wanted if name not in known or name == rule.name]
            if bad:
                fields[field] = tuple(name for name in wanted if name not in bad)
                if entry is not None and entry.changed:
                    told = [name for name in bad if field != "inhibited_by" or name == rule.name or name not in named]
                    _report_names(field, told, wanted, known, entry, report)
        if rule.action is not None and rule.action.channel not in (None, *channels):
            fields["action"] = None
            if entry is not None:
                path = ("action", "channel")
                report(_trouble(entry, path, no_channel(str(rule.action.channel), channels)))
        mended.append(changed(rule, **fields) if fields else rule)
    return _without_circles(mended, entries, report)


def _report_names(
    field: str, bad: Iterable[str], wanted: Sequence[str], known: Collection[str], entry: Entry, report: Report
) -> None:
    for name in bad:
        if name == entry.name:
            said = note("names the rule itself; leave it out")
        else:
            said = _no_rule(name, known) if field == "inhibited_by" else no_channel(name, known)
        report(_trouble(entry, (field, wanted.index(name)), said))


def _trouble(entry: Entry, path: tuple[str | int, ...], said: Note) -> Trouble:
    return Trouble(entry.node.under(path)[1], (*entry.path, *path), said, entry.name)


def _no_rule(name: str, known: Iterable[str]) -> Note:
    near = alike([name], known)[:1]
    if near:
        return note("no rule {name}; did you mean {near}?", name=shown(name), near=near)
    return note("no rule {name}; write the name of another rule, or leave it out", name=shown(name))


def _without_circles(rules: list[Rule], entries: Mapping[str, Entry], report: Report) -> list[Rule]:
    """The rules without the inhibitions that form circles: in a circle, no rule would ever send anything."""
    inhibitors = {rule.name: list(rule.inhibited_by) for rule in rules}
    cut: set[str] = set()
    while circle := _circle(inhibitors):
        for name, by in pairwise(circle):
            # graphlib gives a circle in the order in which each inhibits the next.
            inhibitors[by].remove(name)
            cut.add(by)
        entry = next((entries[name] for name in circle if name in entries), None)
        if entry is not None:
            said = note("these rules inhibit each other in a circle: {rules}; leave one out", rules=circle)
            report(_trouble(entry, ("inhibited_by",), said))
    return [changed(r, inhibited_by=tuple(inhibitors[r.name])) if r.name in cut else r for r in rules]


def _circle(inhibitors: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of one circle, the first one again at the end; empty if there is none."""
    try:
        TopologicalSorter(inhibitors).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def without_bad_texts(rule: Rule, entry: Entry | None, report: Report) -> Rule:
    """The rule without the texts that are no templates, or that name fields which its alerts do not have. `entry`: of
    the rule, if it stands in the file."""
    if entry is None:
        return rule
    good = {}
    for language, texts in rule.annotations.items():
        bad = {
            name for name, template in texts if template and _reported(rule, entry, language, name, template, report)
        }
        if "summary" not in bad:
            good[language] = texts.model_copy(update=dict.fromkeys(bad))
    return rule if good == rule.annotations else changed(rule, annotations=good)


def _reported(rule: Rule, entry: Entry, language: str, name: str, template: str, report: Report) -> bool:
    found = templates.problems(template, rule)
    for said in found:
        report(_trouble(entry, ("annotations", language, name), said))
    return bool(found)
