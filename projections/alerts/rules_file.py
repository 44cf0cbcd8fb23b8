"""Reads rules from a file, in YAML or TOML, in the shape that people know from Prometheus (docs/alert-rules.md).

    loaded = load("risk.yaml")
    loaded.rule_set, loaded.problems

What always holds: reading never fails for what the file says. Every problem has a line that exists in the file, says
what is wrong there and what to write. A rule with a problem is left out, and the others go on; if it was to change a
default, the default goes on unchanged. Texts and references with a problem are left out of their rule, which goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path as File
from typing import Any, Final

from pydantic import ValidationError

from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.words import Note, Speaker, note
from coupon_ledger.projections.alerts import document
from coupon_ledger.projections.alerts.checks import without_bad_references, without_bad_texts
from coupon_ledger.projections.alerts.document import MOST_BYTES, Node, Path, Place
from coupon_ledger.projections.alerts.groups import Entry, Group, groups_of
from coupon_ledger.projections.alerts.rules import Rule, RuleSet, Sale, Sql
from coupon_ledger.projections.alerts.sql_check import problem_of_query
from coupon_ledger.projections.alerts.troubles import Trouble, own_field, path_of, shown, troubles_of

DEFAULTS: Final = "defaults.yaml"
MOST_PROBLEMS: Final = 1_000
_MOST_RULES: Final = 2_000
_MOST_REPEATS: Final = 100
"""How far back a repeated problem is looked for: a group's field is a field of each of its rules."""
_TOP: Final = ("groups", "calendar", "channels", "use_defaults")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file. `path`: the path of the field, empty for the file as a whole. `rule`: the name of the
    rule that it is in, if it is in one. `said`: what is wrong and what to do."""

    file: str
    line: int
    column: int
    path: str
    said: Note
    rule: str | None = None

    def __str__(self) -> str:
        return f"{self.file} line {self.line}: {self.in_words()}"

    def in_words(self, speaker: Speaker = Speaker()) -> str:  # noqa: B008
        """The path and the sentence, without the place."""
        said = speaker.say(self.said)
        return f"{self.path}: {said}" if self.path else said


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file says. `rule_set`: the rules to apply, defaults included. `lines`: where each rule stands in the file,
    by name; defaults that the file does not name are absent. `channels`: the content of each channel, by name, as
    dicts, lists and scalars; `channel_lines`: the lines of channels and of what is in them, by path, such as
    `("wecom", "url")`. `readable`: False if nothing of the file could be read; `rule_set` are then the defaults."""

    rule_set: RuleSet
    problems: tuple[Problem, ...] = ()
    channels: Mapping[str, Any] = field(default_factory=dict)
    channel_lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    readable: bool = True


def load(path: File | str | None) -> Loaded:
    """The rules of the file; without a path, the defaults. A path that ends in `.toml` is TOML, any other YAML."""
    if path is None or str(path) == "":
        return Loaded(defaults())
    file = File(path)
    try:
        if not file.is_file():
            said = note("is a folder or device, not a file") if file.exists() else note("is not there; check the path")
            return _unreadable(str(file), document.START, said)
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return _unreadable(str(file), document.START, note("cannot be read: {why}", why=why))
    return load_bytes(content, str(file), "toml" if file.suffix.lower() == ".toml" else "yaml")


def load_bytes(content: bytes, name: str, syntax: str = "yaml") -> Loaded:
    """As `load`, for the content of a file. `name`: what problems call it. `syntax`: `yaml` or `toml`."""
    if len(content) > MOST_BYTES:
        return _unreadable(name, document.START, note("is larger than {n:count} bytes; split it", n=MOST_BYTES))
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = (before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        return _unreadable(name, place, note("is not in UTF-8; save it as UTF-8"))
    root, faults = document.read(text, syntax)
    reading = _Reading(name, max(1, text.count("\n") + (text[-1:] != "\n")))
    for fault in faults:
        reading.report(Trouble(fault.place, (), fault.said))
    if root is None or not isinstance(root.value, dict):
        if not faults:
            reading.report(Trouble(document.START, (), _no_document(root)))
        return Loaded(defaults(), tuple(reading.problems), readable=False)
    return reading.loaded(root)


def _no_document(root: Node | None) -> Note:
    if root is None or root.value is None:
        return note("is empty; write rules under groups:, or leave the setting alert-rules empty for the defaults")
    return note("has no fields; begin with groups:")


def _unreadable(name: str, place: Place, said: Note) -> Loaded:
    return Loaded(defaults(), (Problem(name, *place, "", said),), readable=False)


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
    """Reads one file, and collects its problems. `lines`: how many the file has."""

    def __init__(self, name: str, lines: int) -> None:
        self._name = name
        self._lines = lines
        self.problems: list[Problem] = []

    def report(self, trouble: Trouble) -> None:
        line = min(max(trouble.place[0], 1), self._lines)
        path, said, rule = path_of(trouble.path), trouble.said, trouble.rule
        if len(self.problems) == MOST_PROBLEMS:
            path, said, rule = "", note("more problems follow, which are not listed; mend these first"), None
        problem = Problem(self._name, line, max(trouble.place[1], 1), path, said, rule)
        if not self._full and problem not in self.problems[-_MOST_REPEATS:]:
            self.problems.append(problem)

    @property
    def _full(self) -> bool:
        """Whether no more problems are listed."""
        return len(self.problems) > MOST_PROBLEMS

    def _report_all(self, troubles: Iterable[Trouble]) -> None:
        for trouble in troubles:
            if self._full:
                return
            self.report(trouble)

    def loaded(self, root: Node) -> Loaded:
        """What the file with this root says."""
        for name in root.value:
            if name not in _TOP and not self._full:
                self.report(Trouble(root.keys[name], (name,), own_field(name, _TOP)))
        channels = self._channels(root)
        groups = groups_of(root, self.report, channels)
        adopted = self._adopted(root, groups)
        rules, entries = self._rules(adopted)
        rules = without_bad_references(rules, entries, adopted, channels, self.report)
        rules = [without_bad_texts(rule, entries.get(rule.name), self.report) for rule in rules]
        calendar = tuple(self._calendar(root))
        self.problems.sort(key=lambda problem: (problem.line, problem.column))
        return Loaded(
            RuleSet(rules=tuple(rules), calendar=calendar),
            tuple(self.problems),
            channels,
            dict(root.value["channels"].lines()) if channels else {},
            {name: min(entry.node.place[0], self._lines) for name, entry in entries.items() if entry.of_file},
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
        try:
            rule = Rule.model_validate(entry.data())
        except ValidationError as error:
            self._report_all(troubles_of(error, entry.node, entry.path, Rule, entry.name))
            return None
        if entry.node.has_flaw():
            return None
        default = _default_rules().get(entry.name)
        if isinstance(rule.expr, Sql) and (default is None or default.expr != rule.expr):
            said = problem_of_query(rule.expr)
            if said is not None:
                place = entry.node.under(("expr", "query"))[1]
                self.report(Trouble(place, (*entry.path, "expr", "query"), said, entry.name))
                return None
        return rule

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
            self._report_all(troubles_of(error, node, path, Sale))
            return None
        return None if node.has_flaw() else sale


def _no_default(name: str, known: Mapping[str, Entry]) -> Note:
    near = alike([name[:60]], known)[:1]
    if near:
        return note("no default rule {name}; did you mean {near}?", name=shown(name), near=near)
    return note("no default rule {name}; `coupon-ledger alerts rules list` shows them", name=shown(name))
