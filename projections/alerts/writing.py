"""Writes rules as YAML, as a rules file has them. Read again, each rule has the version that it had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from io import StringIO
from itertools import groupby
from typing import Any, Final

import yaml

from coupon_ledger.projections.alerts.document import UNPRINTABLE
from coupon_ledger.projections.alerts.durations import written
from coupon_ledger.projections.alerts.rules import Rule, RuleSet
from coupon_ledger.projections.alerts.troubles import IN_FILE

_WIDTH: Final = 110


def fields_in_file(rule: Rule) -> dict[str, Any]:
    """The fields of the rule as the file has them, without those that have their default."""
    data = rule.model_dump(exclude_defaults=True, exclude={"group"})
    return {IN_FILE.get(name, name): _plain(value) for name, value in data.items()}


def rule_yaml(rule: Rule) -> str:
    """One rule, as an entry of the list under `rules:`."""
    return _dumped([fields_in_file(rule)])


def rules_yaml(rule_set: RuleSet) -> str:
    """A rules file with these rules and this calendar, which uses no defaults."""
    document: dict[str, Any] = {"use_defaults": False, "groups": list(_groups(rule_set.rules))}
    if rule_set.calendar:
        document["calendar"] = [_plain(sale.model_dump(exclude_defaults=True)) for sale in rule_set.calendar]
    return _dumped(document)


def _groups(rules: Iterable[Rule]) -> Iterable[Mapping[str, Any]]:
    for name, members in groupby(rules, lambda rule: rule.group):
        yield {"name": name, "rules": [fields_in_file(rule) for rule in members]}


def _dumped(document: Any) -> str:
    dumper = yaml.SafeDumper(StringIO(), sort_keys=False)
    root = dumper.represent_data(document)
    _readable(root)
    text = yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True, width=_WIDTH)
    if UNPRINTABLE.search(text):  # written as escapes, they are read back
        text = yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=False, width=_WIDTH)
    return str(text)


def _readable(node: Any) -> None:
    """Write lists of scalars as `[a, b]`, and texts of several lines as such."""
    if isinstance(node, yaml.ScalarNode) and "\n" in node.value:
        node.style = "|"
    elif isinstance(node, yaml.SequenceNode):
        node.flow_style = all(isinstance(item, yaml.ScalarNode) for item in node.value)
        for item in node.value:
            _readable(item)
    elif isinstance(node, yaml.MappingNode):
        node.flow_style = False
        for _, value in node.value:
            _readable(value)


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return written(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
