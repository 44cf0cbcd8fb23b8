"""Reads rules from a file, in YAML or TOML, in the shape that people know from Prometheus (docs/alert-rules.md).

    loaded = load("risk.yaml")
    loaded.rule_set, loaded.problems

What always holds: reading never fails for what the file says. Every problem has a line that exists in the file, says
what is wrong there and what to write. A rule with a problem is left out, and the others go on; if it was to change a
default, the default goes on unchanged. Texts and references with a problem are left out of their rule, which goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path as File
from typing import Any, Final

from pydantic import ValidationError

from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts import document
from coupon_ledger.projections.alerts.checks import check_rest, without_bad_references, without_bad_texts
from coupon_ledger.projections.alerts.document import Node, Path
from coupon_ledger.projections.alerts.groups import Entry, Group, groups_of
from coupon_ledger.projections.alerts.planned import rows_of
from coupon_ledger.projections.alerts.proofs import proof_of
from coupon_ledger.projections.alerts.rest import Rest, rest_of
from coupon_ledger.projections.alerts.rules import Rule, RuleSet, Sale, Sql
from coupon_ledger.projections.alerts.safe_sql import problem_of_query
from coupon_ledger.projections.alerts.text_file import Problem, Problems, TextFile, read_bytes, read_file
from coupon_ledger.projections.alerts.troubles import Trouble, own_field, shown, troubles_of

DEFAULTS: Final = "defaults.yaml"
_MOST_RULES: Final = 2_000
_TOP: Final = ("groups", "calendar", "channels", "use_defaults")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file says. `rule_set`: the rules to apply, defaults included. `lines`: where each rule stands in the file,
    by name; defaults that the file does not name are absent. `file`: what problems call the file; empty without one.
    `channels`: the content of each channel, by name, as dicts, lists and scalars; `channel_lines`: the lines of
    channels and of what is in them, by path, such as `("wecom", "url")`. `beside`: the other files that were read for
    it. `readable`: False if nothing of the file could be read; `rule_set` are then the defaults. `whole`: False if a
    part of the text could not be read; a rule that is missing may stand there."""

    rule_set: RuleSet
    problems: tuple[Problem, ...] = ()
    channels: Mapping[str, Any] = field(default_factory=dict)
    channel_lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    readable: bool = True
    whole: bool = True
    beside: tuple[File, ...] = ()
    file: str = ""


def load(path: File | str | None) -> Loaded:
    """The rules of the file; without a path, the defaults. A path that ends in `.toml` is TOML, any other YAML."""
    if path is None or str(path) == "":
        return Loaded(defaults())
    return _loaded(read_file(File(path)))


def load_bytes(content: bytes, name: str, syntax: str = "yaml") -> Loaded:
    """As `load`, for the content of a file. `name`: what problems call it. `syntax`: `yaml` or `toml`."""
    return _loaded(read_bytes(content, name, syntax))


def _loaded(file: TextFile) -> Loaded:
    problems = file.problems()
    if file.root is None or not isinstance(file.root.value, dict):
        if not file.faults:
            problems.report(Trouble(document.START, (), _no_document(file.root)))
        return Loaded(defaults(), tuple(problems.found), readable=False, whole=False, file=file.name)
    return replace(_Reading(problems).loaded(file.root), whole=not file.faults)


def _no_document(root: Node | None) -> Note:
    if root is None or root.value is None:
        return note("is empty; write rules under groups:, or leave the setting alert-rules empty for the defaults")
    return note("has no fields; begin with groups:")


# --- the defaults


def defaults_text() -> str:
    """The file of the defaults, with its comments."""
    return files(__package__).joinpath(DEFAULTS).read_text(encoding="utf-8")


@cache
def _default_entries() -> Mapping[str, Entry]:
    root, faults = document.read(defaults_text(), "yaml")
    assert root is not None and not faults, faults
    entries = (entry for group in groups_of(root, _never) for entry in group.entries)
    return {entry.name: replace(entry, of_file=False, changed=False) for entry in entries}


def _never(trouble: Trouble) -> None:
    raise AssertionError(f"{DEFAULTS} line {trouble.place[0]}: {trouble.said}")


@cache
def _default_rules() -> Mapping[str, Rule]:
    return {name: Rule.model_validate(entry.data()) for name, entry in _default_entries().items()}


def defaults() -> RuleSet:
    """The default rules."""
    return RuleSet(rules=tuple(_default_rules().values()))


# --- one file


class _Reading:
    """Reads one file, and collects its problems."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._beside: dict[File, None] = {}
        self._left_out: list[tuple[Rest, Entry]] = []
        self.report = problems.report

    def loaded(self, root: Node) -> Loaded:
        """What the file with this root says."""
        for name in root.value:
            if name not in _TOP and not self._problems.full:
                self.report(Trouble(root.keys[name], (name,), own_field(name, _TOP)))
        channels = self._channels(root)
        groups = groups_of(root, self.report, channels)
        adopted = self._adopted(root, groups)
        rules, entries = self._rules(adopted)
        for rest, entry in self._left_out:
            check_rest(rest, entry, adopted, channels, self.report)
        rules = without_bad_references(rules, entries, adopted, channels, self.report)
        rules = [without_bad_texts(rule, entries.get(rule.name), self.report) for rule in rules]
        calendar = tuple(self._calendar(root))
        return Loaded(
            RuleSet(rules=tuple(rules), calendar=calendar),
            self._problems.in_order(),
            channels,
            dict(root.value["channels"].lines()) if channels else {},
            {name: self._problems.line(entry.node.place) for name, entry in entries.items() if entry.of_file},
            beside=tuple(self._beside),
            file=self._problems.name,
        )

    def _adopted(self, root: Node, groups: list[Group]) -> dict[str, Entry]:
        """The entries of the file and of the defaults that it uses, by name. A default that the file names, or whose
        group it names, is changed by what the file says."""
        known = _default_entries()
        wanted = self._wanted(root)
        of_file: dict[str, Entry] = {}
        for entry in (entry for group in groups for entry in group.entries):
            first = of_file.get(entry.name)
            if first is not None:
                said = note("a rule {name} is already in line {line}; rename one, or delete it",
                            name=shown(entry.name), line=first.node.place[0])  # fmt: skip
                self.report(Trouble(entry.name_place, (*entry.path, "alert"), said, entry.name))
            elif len(of_file) < _MOST_RULES:
                of_file[entry.name] = entry.changing(known.get(entry.name))
            else:
                said = note("is one of more than {n:count} rules; delete some", n=_MOST_RULES)
                self.report(Trouble(entry.name_place, entry.path, said))
                break
        fields = {group.name: group.fields for group in groups}
        used = {name: known[name].in_group(fields.get(known[name].group, {})) for name in wanted}
        self._check_empty(groups)
        return used | of_file

    def _check_empty(self, groups: list[Group]) -> None:
        of_defaults = {entry.group for entry in _default_entries().values()}
        for group in groups:
            if not group.names_rules and group.name not in of_defaults:
                said = note("has no rules; add some under rules:, or give it the name of a group of defaults: {groups}",
                            groups=sorted(of_defaults))  # fmt: skip
                self.report(Trouble(group.place, group.path, said))

    def _wanted(self, root: Node) -> list[str]:
        """The names of the defaults that `use_defaults` says; all if it says nothing."""
        known = _default_entries()
        node = root.value.get("use_defaults")
        if node is None or node.typed() is True:
            return list(known)
        if node.typed() is False:
            return []
        if not isinstance(node.value, list):
            said = note("is neither true nor false nor a list of names; write one of these")
            self.report(Trouble(node.place, ("use_defaults",), said))
            return list(known)
        names = [str(item.data()) for item in node.value]
        for i, name in enumerate(names):
            if name not in known:
                self.report(Trouble(node.value[i].place, ("use_defaults", i), _no_default(name, known)))
        return [name for name in known if name in names]

    def _rules(self, adopted: Mapping[str, Entry]) -> tuple[list[Rule], dict[str, Entry]]:
        """The rules that can be applied; and by name the entries of those that the file names or changes."""
        rules: list[Rule] = []
        entries: dict[str, Entry] = {}
        for name, entry in adopted.items():
            rule = self._rule(entry) if entry.changed else _default_rules()[name]
            if rule is not None:
                rules.append(rule)
                if entry.changed:
                    entries[name] = entry
            elif name in _default_rules():
                rules.append(_default_rules()[name])
        return rules, entries

    def _rule(self, entry: Entry) -> Rule | None:
        """The rule; None if it is left out. Its other mistakes are reported all the same."""
        data = entry.data()
        found = [self._with_plan(entry, data), self._with_proof(entry, data)]
        rule: Rule | None = None
        with suppress(ValidationError):  # reported below, with all others
            rule = Rule.model_validate(data)
            found.append(self._query_fits(entry, rule))
        if rule is not None and all(found) and not entry.node.has_flaw():
            return rule
        rest = rest_of(data, lambda error: self._report_errors(error, entry))
        if rest is not None:
            self._left_out.append((rest, entry))
            if rule is None:
                self._query_fits(entry, rest.rule)
        return None

    def _report_errors(self, error: ValidationError, entry: Entry) -> None:
        self._problems.report_all(troubles_of(error, entry.node, entry.path, Rule, entry.name))

    def _query_fits(self, entry: Entry, rule: Rule) -> bool:
        """Whether the query of the rule, if it has one, may run and fits the tables."""
        default = _default_rules().get(entry.name)
        if not isinstance(rule.expr, Sql) or (default is not None and default.expr == rule.expr):
            return True
        return self._could_be_read(entry, ("expr", "query"), problem_of_query(rule.expr))

    def _with_plan(self, entry: Entry, data: dict[str, Any]) -> bool:
        """Put the rows of the file that `plan` names in its place. Returns whether they could be read; if not, a target
        stands in for them."""
        expr = data.get("expr")
        if not (isinstance(expr, dict) and isinstance(expr.get("plan"), str)):
            return True
        rows, said = rows_of(self._beside_it(expr["plan"]), expr["plan"])
        data["expr"] = expr | ({"plan": rows} if said is None else {"plan": [], "against": "target", "target": 1})
        return self._could_be_read(entry, ("expr", "plan"), said)

    def _with_proof(self, entry: Entry, data: dict[str, Any]) -> bool:
        """Put what the file that `automatic` names says in its place. Returns whether it could be read; if not, it is
        left out."""
        action = data.get("action")
        if not isinstance(action, dict) or action.get("automatic") is None:
            return True
        name, proof = action["automatic"], None
        said: Note | None = note("names no file; write that of `alerts backtest --labels FILE --output json`")
        if isinstance(name, str):
            proof, said = proof_of(self._beside_it(name), name, entry.name)
        data["action"] = action | {"automatic": proof if said is None else None}
        return self._could_be_read(entry, ("action", "automatic"), said)

    def _beside_it(self, name: str) -> File:
        """The path of another file that belongs to this one."""
        path = File(self._problems.name).parent / name
        self._beside[path] = None
        return path

    def _could_be_read(self, entry: Entry, field: tuple[str, ...], said: Note | None) -> bool:
        if said is not None:
            self.report(Trouble(entry.node.under(field)[1], (*entry.path, *field), said, entry.name))
        return said is None

    def _channels(self, root: Node) -> dict[str, Any]:
        node = root.value.get("channels")
        if node is None or node.value is None:
            return {}
        if not isinstance(node.value, dict):
            said = note("is no mapping; write the name of each channel and a colon")
            self.report(Trouble(node.place, ("channels",), said))
            return {}
        return {name: channel.typed() for name, channel in node.value.items()}

    def _calendar(self, root: Node) -> Iterator[Sale]:
        node = root.value.get("calendar")
        if node is None or node.value is None:
            return
        if not isinstance(node.value, list):
            self.report(Trouble(node.place, ("calendar",), note("is no list; begin each sale with - name:")))
            return
        sales: dict[str, Sale] = {}
        for i, item in enumerate(node.value):
            sale = self._sale(item, ("calendar", i))
            if sale is not None and sale.name in sales:
                said = note("a sale {name} is there already; rename one", name=shown(sale.name))
                self.report(Trouble(item.place, ("calendar", i), said))
            elif sale is not None:
                sales[sale.name] = sale
        for i, item in enumerate(node.value):
            like, place = item.under(("like",))
            if isinstance(item.value, dict) and "like" in item.value and str(like.value) not in sales:
                said = note("no sale {name} is in the calendar; add it, or leave like out", name=shown(like.data()))
                self.report(Trouble(place, ("calendar", i, "like"), said))
        yield from sales.values()

    def _sale(self, node: Node, path: Path) -> Sale | None:
        try:
            sale = Sale.model_validate(node.data())
        except ValidationError as error:
            self._problems.report_all(troubles_of(error, node, path, Sale))
            return None
        return None if node.has_flaw() else sale


def _no_default(name: str, known: Mapping[str, Entry]) -> Note:
    near = alike([name[:60]], known)[:1]
    if near:
        return note("no default rule {name}; did you mean {near}?", name=shown(name), near=near)
    return note("no default rule {name}; `coupon-ledger alerts rules list` shows them", name=shown(name))
