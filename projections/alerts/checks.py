"""Checks what rules refer to: channels, other rules, and the fields in their texts. What does not exist is left out of
the rule, which goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts import templates
from coupon_ledger.projections.alerts.groups import Entry
from coupon_ledger.projections.alerts.rest import Rest
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.template_fields import TemplateField, fields_of, measured
from coupon_ledger.projections.alerts.troubles import Report, Trouble, no_channel, no_rule


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
        fields = _bad_references(rule, entries.get(rule.name), names, named, channels, report)
        mended.append(changed(rule, **fields) if fields else rule)
    return _without_circles(mended, entries, report)


def check_rest(rest: Rest, entry: Entry, named: Collection[str], channels: Collection[str], report: Report) -> None:
    """Report what is wrong with references and texts in the rest of a rule that is left out."""
    _bad_references(rest.rule, entry, named, named, channels, report)
    for language, texts in rest.rule.annotations.items():
        for name, template in texts:
            if template:
                _reported(template, rest.fields, rest.unit, entry, ("annotations", language, name), report)


def _bad_references(
    rule: Rule,
    entry: Entry | None,
    names: Collection[str],
    named: Collection[str],
    channels: Collection[str],
    report: Report,
) -> dict[str, Any]:
    """The fields of the rule that refer to something that is not there, as they are without it. `names`: of the rules
    that there are."""
    fields: dict[str, Any] = {}
    for field, known in (("channels", channels), ("escalate_to", channels), ("inhibited_by", names)):
        wanted = getattr(rule, field)
        own = rule.name if entry is None else entry.name
        bad = [name for name in wanted if name not in known or name == own]
        if bad:
            fields[field] = tuple(name for name in wanted if name not in bad)
            if entry is not None and entry.changed:
                reported = [name for name in bad if field != "inhibited_by" or name == own or name not in named]
                _report_names(field, reported, known, entry, report)
    if rule.action is not None and rule.action.channel not in (None, *channels):
        fields["action"] = None
        if entry is not None:
            report(_trouble(entry, ("action", "channel"), no_channel(str(rule.action.channel), channels)))
    return fields


def _report_names(field: str, bad: Iterable[str], known: Collection[str], entry: Entry, report: Report) -> None:
    written = entry.node.under((field,))[0].data()
    for name in bad:
        if name == entry.name:
            said = note("names the rule itself; leave it out")
        else:
            said = no_rule(name, known) if field == "inhibited_by" else no_channel(name, known)
        report(_trouble(entry, (field, written.index(name)), said))


def _trouble(entry: Entry, path: tuple[str | int, ...], said: Note) -> Trouble:
    return Trouble(entry.node.under(path)[1], (*entry.path, *path), said, entry.name)


def _without_circles(rules: list[Rule], entries: Mapping[str, Entry], report: Report) -> list[Rule]:
    """The rules without the inhibitions that form circles: in a circle, no rule would ever send anything."""
    inhibitors = {rule.name: rule.inhibited_by for rule in rules}
    circle_of = {name: circle for circle in _circles(inhibitors) for name in circle}
    for circle in {id(circle): circle for circle in circle_of.values()}.values():
        entry = next((entries[name] for name in circle if name in entries), None)
        if entry is not None:
            said = note("these rules inhibit each other in a circle: {rules}; leave one out", rules=circle[:20])
            report(_trouble(entry, ("inhibited_by",), said))
    return [_outside(rule, circle_of.get(rule.name, ())) for rule in rules]


def _outside(rule: Rule, circle: Collection[str]) -> Rule:
    """The rule without the inhibitors in its circle."""
    if not circle:
        return rule
    return changed(rule, inhibited_by=tuple(name for name in rule.inhibited_by if name not in set(circle)))


def _circles(inhibitors: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """The groups of names of which each leads to each other (the strongly connected components, by Kosaraju's
    algorithm)."""
    inhibited: dict[str, list[str]] = {name: [] for name in inhibitors}
    for name, by in inhibitors.items():
        for one in by:
            inhibited[one].append(name)
    seen: set[str] = set()
    order = [name for start in inhibitors for name in _finished(start, inhibitors, seen)]
    seen.clear()
    for start in reversed(order):
        if start not in seen:
            group = _finished(start, inhibited, seen)
            if len(group) > 1:
                yield sorted(group)


def _finished(start: str, edges: Mapping[str, Sequence[str]], seen: set[str]) -> list[str]:
    """The names that are reached from `start` and not yet in `seen`, in the order in which a search in depth leaves
    them. They are added to `seen`."""
    if start in seen:
        return []
    seen.add(start)
    left: list[str] = []
    path = [(start, iter(edges[start]))]
    while path:
        name, rest = path[-1]
        following = next((one for one in rest if one not in seen), None)
        if following is None:
            left.append(name)
            path.pop()
        else:
            seen.add(following)
            path.append((following, iter(edges[following])))
    return left


def without_bad_texts(rule: Rule, entry: Entry | None, report: Report) -> Rule:
    """The rule without the texts that are no templates, or that name fields which its alerts do not have. `entry`: of
    the rule, if it stands in the file."""
    if entry is None:
        return rule
    known, unit, good = fields_of(rule), measured(rule), {}
    for language, texts in rule.annotations.items():
        path = ("annotations", language)
        bad = {
            name
            for name, template in texts
            if template and _reported(template, known, unit, entry, (*path, name), report)
        }
        if "summary" not in bad:
            good[language] = texts.model_copy(update=dict.fromkeys(bad)) if bad else texts
    return rule if good == rule.annotations else changed(rule, annotations=good)


def _reported(
    template: str,
    known: Mapping[str, TemplateField] | None,
    unit: str | None,
    entry: Entry,
    path: tuple[str, ...],
    report: Report,
) -> bool:
    found = templates.problems(template, known, unit)
    for said in found:
        report(_trouble(entry, path, said))
    return bool(found)
