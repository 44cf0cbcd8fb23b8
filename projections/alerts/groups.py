"""The groups of a rules file: each gives fields to its rules, and a rule may change a default of its name.

Of several values of one field, the rule's own stands before its group's, and that before the default rule's. Labels,
annotations and expressions of one kind are put together field by field; lists are replaced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coupon_ledger.ledger.words import note
from coupon_ledger.projections.alerts.document import Node, Path, Place
from coupon_ledger.projections.alerts.rules import MOST_LABELS, Label, Name, Names, Severity
from coupon_ledger.projections.alerts.troubles import IN_FILE, Report, Trouble, no_channel, shown, troubles_of

_OF_FILE: Final = {there: here for here, there in IN_FILE.items()}
_GIVEN: Final = ("owner", "channels", "labels", "severity")
_NESTED: Final = frozenset({"expr", "labels", "annotations", "action", "en", "zh", "where", "after"})


class GroupFields(BaseModel):
    """A group of rules, with what its rules have unless they say otherwise."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[Name, "Name of the group."] = "default"
    rules: Annotated[Any, "Its rules."] = None
    owner: Annotated[Label | None, "Who is responsible for its rules."] = None
    channels: Annotated[Names, "Where messages of its rules go."] = ()
    labels: Annotated[dict[Name, Label], Field(max_length=MOST_LABELS), "Labels of its rules."] = Field(
        default_factory=dict
    )
    severity: Annotated[Severity | None, "Severity of its rules."] = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule as the file has it. `node`: its fields; `path`: where it stands; `name_place`: where its name stands;
    `of_file`: False for a default that the file does not name; `changed`: whether the file changes anything of it."""

    name: str
    node: Node
    path: Path
    name_place: Place
    group: str
    of_file: bool = True
    changed: bool = True

    def data(self) -> dict[str, Any]:
        """The fields of a `Rule`. A name that is no field in the file gets a zero byte in front, so that the model
        refuses it even if it is a field of the model."""
        data: dict[str, Any] = {"group": self.group}
        for name, node in self.node.value.items():
            hidden = name in (*IN_FILE, "group")
            data["\0" + name if hidden else _OF_FILE.get(name, name)] = node.data()
        return data

    def changing(self, default: Entry | None) -> Entry:
        """The entry with the fields of the default that it does not name."""
        if default is None:
            return self
        return replace(self, node=_merged(default.node.moved(self.node.place), self.node))

    def in_group(self, fields: Mapping[str, Node]) -> Entry:
        """The entry with the group's fields instead of its own."""
        if not fields:
            return self
        place = next(iter(fields.values())).place
        return replace(self, node=_merged(self.node, Node(dict(fields), place)), changed=True)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the file. `fields`: what it gives to its rules; `names_rules`: whether anything is under `rules`."""

    name: str
    fields: Mapping[str, Node]
    place: Place
    path: Path
    names_rules: bool
    entries: list[Entry] = field(default_factory=list)


def groups_of(root: Node, report: Report, channels: Collection[str] | None = None) -> list[Group]:
    """The groups of a file. A rule without a name is reported and left out; so is the name of a channel, of a group,
    that is not in `channels` (None: any)."""
    node = root.value.get("groups")
    if node is None or node.value is None:
        return []
    if not isinstance(node.value, list):
        report(Trouble(node.place, ("groups",), note("is no list; begin each group with - name:")))
        return []
    return [
        _group(item, ("groups", i), report, channels)
        for i, item in enumerate(node.value)
        if _is_mapping(item, ("groups", i), report)
    ]


def _is_mapping(node: Node, path: Path, report: Report) -> bool:
    if isinstance(node.value, dict):
        return True
    said = note("{value} is no mapping; write its fields, each with a colon", value=shown(node.data()))
    report(Trouble(node.place, path, said))
    return False


def _group(node: Node, path: Path, report: Report, channels: Collection[str] | None) -> Group:
    wrong: set[str] = set()
    data = node.data()
    try:
        GroupFields.model_validate(data)
    except ValidationError as error:
        wrong = {str(details["loc"][0]) for details in error.errors() if details["loc"]}
        for trouble in troubles_of(error, node, path, GroupFields):
            report(trouble)
    name = "default" if "name" in wrong else data.get("name", "default")
    fields = {
        f: n
        for f, n in node.value.items()
        if f in _GIVEN and f not in wrong and n.value is not None and not n.has_flaw()
    }
    if channels is not None and "channels" in fields:
        fields["channels"] = _known(fields["channels"], (*path, "channels"), channels, report)
    rules = node.value.get("rules")
    group = Group(name, fields, node.place, path, bool(rules and rules.value))
    if rules is not None and rules.value is not None:
        if isinstance(rules.value, list):
            group.entries.extend(_entries(rules.value, (*path, "rules"), group, report))
        else:
            report(Trouble(rules.place, (*path, "rules"), note("is no list; begin each rule with - alert:")))
    return group


def _known(names: Node, path: Path, channels: Collection[str], report: Report) -> Node:
    """The names that are in `channels`. The others are reported."""
    for i, name in enumerate(names.value):
        if name.value not in channels:
            report(Trouble(name.place, (*path, i), no_channel(name.value, channels)))
    return replace(names, value=[name for name in names.value if name.value in channels])


def _entries(items: list[Node], path: Path, group: Group, report: Report) -> list[Entry]:
    entries = []
    for i, item in enumerate(items):
        here = (*path, i)
        if not _is_mapping(item, here, report):
            continue
        name = item.value.get("alert")
        if name is None or not isinstance(name.value, str):
            report(Trouble(item.place, here, note("names no rule; write alert: and a name")))
            continue
        node = _merged(Node(dict(group.fields), item.place), item)
        entries.append(Entry(name.value, node, here, name.place, group.name))
    return entries


def _merged(below: Node, above: Node) -> Node:
    """Both mappings as one, at the place of the upper one; where both have a field, that of the upper one stands, or
    both are put together if they are mappings."""
    values = dict(below.value)
    for name, node in above.value.items():
        old = values.get(name)
        values[name] = node
        if old is not None and name in _NESTED and _both_mappings(name, old, node):
            values[name] = _merged(old, node)
    return Node(values, above.place, {**below.keys, **above.keys}, flawed=above.flawed)


def _both_mappings(name: str, below: Node, above: Node) -> bool:
    """Whether both nodes can be put together. Expressions of two kinds cannot."""
    mappings = isinstance(below.value, dict) and isinstance(above.value, dict)
    return mappings and (name != "expr" or _same_kind(below, above))


def _same_kind(below: Node, above: Node) -> bool:
    kind = above.value.get("kind")
    return kind is None or "kind" not in below.value or kind.value == below.value["kind"].value
