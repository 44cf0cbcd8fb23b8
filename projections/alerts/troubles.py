"""What the models refuse, as sentences with the place in the file: what is wrong, and what to write."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.rules import VIOLATIONS
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts import rules
from coupon_ledger.projections.alerts.document import Node, Path, Place
from coupon_ledger.projections.alerts.durations import written
from coupon_ledger.projections.alerts.planned import Planned

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

IN_FILE: Final = {"name": "alert", "hold": "for", "keep": "keep_firing_for"}
"""By field of `Rule`, its name in the file, where that is another one."""
FIELDS: Final = tuple(IN_FILE.get(name, name) for name in rules.Rule.model_fields if name != "group")
"""The fields of a rule in the file."""
KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "violation": rules.Violations,
    "velocity": rules.Velocity,
    "concentration": rules.Concentration,
    "linked": rules.Linked,
    "metric": rules.Metric,
    "threshold": rules.Threshold,
    "budget": rules.Budget,
    "stock": rules.Stock,
    "reconciliation": rules.Reconciliation,
    "guardrail": rules.Guardrail,
    "health": rules.Health,
    "sql": rules.Sql,
}
_INSTEAD: Final = {
    **IN_FILE,
    **{"interval": "every", "evaluation_interval": "every", "keep_firing": "keep_firing_for", "query": "expr"},
    **{"summary": "annotations", "description": "annotations", "inhibit": "inhibited_by", "runbook": "playbook"},
}
"""By a name that people write, the field that they mean."""
_SHOWN: Final = 60
_FULL_WIDTH: Final = "："


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something wrong at a path of the file. `rule`: the name of the rule that it is in, if it is in one."""

    place: Place
    path: Path
    said: Note
    rule: str | None = None


Report = Callable[[Trouble], None]


def path_of(path: Path) -> str:
    """The path as people write it: `groups[0].rules[2].expr.window`."""
    said = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:_SHOWN]}" for step in path)
    return said.removeprefix(".")


def own_field(name: str, known: Iterable[str]) -> Note:
    """That there is no field of this name, and which one may be meant."""
    known = list(known)
    meant = _INSTEAD.get(name)
    near = [meant] if meant in known else alike([name[:_SHOWN]], known)[:1] if len(name) <= _SHOWN else []
    if near:
        return note("no field {name}; did you mean {near}?", name=shown(name), near=near)
    return note("no field {name}; there are {known}", name=shown(name), known=known)


def shown(value: Any) -> str:
    """A value of the file as it is quoted in a sentence."""
    text = written(value) if isinstance(value, timedelta) else str(value)
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return f"'{text}'" if isinstance(value, str) else text


def no_channel(name: str, known: Collection[str]) -> Note:
    """That the file has no channel of this name."""
    if not known:
        return note("no channel {name}; the file has no channels: at its top level", name=shown(name))
    return note("no channel {name}; there are {known}", name=shown(name), known=sorted(known)[:20])


def no_rule(name: str, known: Iterable[str]) -> Note:
    """That there is no rule of this name, and which one may be meant."""
    near = alike([name], known)[:1]
    if near:
        return note("no rule {name}; did you mean {near}?", name=shown(name), near=near)
    return note("no rule {name}; write the name of another rule, or leave it out", name=shown(name))


def troubles_of(
    error: ValidationError, node: Node, path: Path, model: type[BaseModel], rule: str | None = None
) -> Iterator[Trouble]:
    """The problems that a model found in a node of the file. `path`: the node's path; `model`: what it was to be."""
    kind = _kind(node) if model is rules.Rule else None
    seen: set[Path] = set()
    for details in error.errors():
        inner = _path_in_file(details, model, kind)
        if details["type"] == "union_tag_invalid":
            inner = (*inner, "kind")
        found, place = node.under(inner)
        if found.flawed or inner in seen or (details["type"] == "too_short" and details["input"]):
            continue  # reported already: when it was read, for a key, or for the entries of a list
        seen.add(inner)
        if details["type"] == "extra_forbidden" and inner:
            place = node.under(inner[:-1])[0].keys.get(str(inner[-1]), place)
            said = own_field(str(inner[-1]), _known_at(inner[:-1], model, kind))
        else:
            said = _said(details)
        yield Trouble(place, (*path, *inner), said, rule)


def said_of(error: ValidationError) -> Note:
    """The first thing that a model found wrong, as a sentence."""
    return _said(error.errors()[0])


def _kind(node: Node) -> str | None:
    kind = node.under(("expr", "kind"))[0].value
    return kind if isinstance(kind, str) else None


def _path_in_file(details: ErrorDetails, model: type[BaseModel], kind: str | None) -> Path:
    path = [step for step in details["loc"] if step != "[key]"]
    if model is rules.Rule and path:
        if path[0] == "expr" and len(path) > 1 and path[1] == kind:
            del path[1]
        path[0] = IN_FILE.get(str(path[0]), str(path[0]).removeprefix("\0"))
    return tuple(path)


def _known_at(path: Path, model: type[BaseModel], kind: str | None) -> Iterable[str]:
    if model is not rules.Rule:
        return model.model_fields
    match path:
        case ():
            return FIELDS
        case ("expr",):
            return KINDS[kind].model_fields if kind is not None and kind in KINDS else ("kind",)
        case ("expr", "after"):
            return rules.After.model_fields
        case ("expr", "plan", _):
            return Planned.model_fields
        case ("action",):
            return rules.Action.model_fields
    return rules.Annotations.model_fields


def _said(details: ErrorDetails) -> Note:
    kind, limits, value = details["type"], details.get("ctx", {}), details["input"]
    if kind == "missing":
        return note("is missing; add it")
    if value is None:
        return note("is empty; give it a value, or leave it out")
    for names, sentence in _SENTENCES:
        if kind in names:
            return sentence(value, limits)
    return note("{value} is refused: {why}", value=shown(value), why=details["msg"][:200])


def _of_validator(value: Any, limits: Mapping[str, Any]) -> Note:
    """The sentence of a validator of a model."""
    why = Note(str(limits["error"]), {})
    return why if isinstance(value, dict | BaseModel) else note("{value} {why}", value=_listed(value), why=why)


def _listed(value: Any) -> str:
    return shown(list(value)) if isinstance(value, tuple) else shown(value)


def _choice(value: Any, allowed: list[str]) -> Note:
    if allowed == ["en", "zh"] and value in rules.Annotations.model_fields:
        return note("{value} belongs into a language; write it under en: or zh:", value=shown(value))
    near = alike([value[:_SHOWN]], allowed)[:1] if isinstance(value, str) else []
    if near:
        return note(
            "{value} is none of {allowed}; did you mean {near}?", value=shown(value), allowed=allowed, near=near
        )
    return note("{value} is none of {allowed}; write one of these", value=shown(value), allowed=allowed)


def _no_violation(value: Any, limits: Mapping[str, Any]) -> Note:
    near = alike([str(value)[:_SHOWN]], VIOLATIONS)[:1]
    if near:
        return note("{value} is no violation; did you mean {near}?", value=shown(value), near=near)
    return note("{value} is no violation; docs/events.md lists them", value=shown(value))


def _pattern(value: Any, limits: Mapping[str, Any]) -> Note:
    pattern = limits["pattern"]
    if pattern.startswith("^("):
        return _choice(value, pattern[2:-2].split("|"))
    return note(
        "{value} is no name; write a letter, then letters, digits, _, . or -, at most 100 in all", value=shown(value)
    )


def _bound(limit: Any) -> str:
    return limit if isinstance(limit, str) else f"{limit:,}"


def _tag(value: Any, limits: Mapping[str, Any]) -> Note:
    tag = str(limits["tag"])
    return _choice(tag, list(KINDS))


def _mapping(value: Any, limits: Mapping[str, Any]) -> Note:
    if isinstance(value, str) and _FULL_WIDTH in value:
        return note("{value} is no mapping; write the colon : and a blank instead of ：", value=shown(value))
    return note("{value} is no mapping; write its fields, each with a colon", value=shown(value))


_NO_LIST: Final = ("tuple_type", "list_type")
_NO_MAPPING: Final = ("dict_type", "model_type", "model_attributes_type", "model_class_type")
NO_SINGLE_VALUE: Final = frozenset({*_NO_LIST, *_NO_MAPPING})
"""Pydantic's types of errors for a text in the place of a list or mapping."""
Sentence = Callable[[Any, Mapping[str, Any]], Note]
_SENTENCES: Final[tuple[tuple[tuple[str, ...], Sentence], ...]] = (
    (("value_error", "assertion_error"), _of_validator),
    (("instant",), lambda value, _: note("{value} is no instant with a zone; write for example {example}",
                                         value=shown(value), example="2026-11-11T00:00:00+08:00")),
    (("violation",), _no_violation),
    (("literal_error",), lambda value, limits: _choice(value, re.findall(r"'([^']*)'", limits["expected"]))),
    (("string_pattern_mismatch",), _pattern),
    (("union_tag_invalid",), _tag),
    (("union_tag_not_found",), lambda value, _: note("has no kind; write kind: and one of {kinds}", kinds=list(KINDS))),
    (("greater_than_equal", "too_brief"), lambda value, limits: note("{value} is too small; write at least {limit}",
                                                         value=shown(value), limit=_bound(limits["ge"]))),
    (("greater_than",), lambda value, limits: note("{value} is too small; write more than {limit}",
                                                   value=shown(value), limit=_bound(limits["gt"]))),
    (("less_than_equal", "too_lasting"), lambda value, limits: note("{value} is too large; write at most {limit}",
                                                      value=shown(value), limit=_bound(limits["le"]))),
    (("too_short", "string_too_short"), lambda value, _: note("is empty; write at least one")),
    (("too_long",), lambda value, limits: note("has {n:count} entries; write at most {limit:count}",
                                               n=len(value), limit=limits["max_length"])),
    (("string_too_long",), lambda value, limits: note("has {n:count} characters; write at most {limit:count}",
                                                      n=len(value), limit=limits["max_length"])),
    (("int_parsing", "int_type", "int_from_float", "int_parsing_size"),
     lambda value, _: note("{value} is no whole number; write for example 5", value=shown(value))),
    (("float_parsing", "float_type", "finite_number"),
     lambda value, _: note("{value} is no number; write for example 0.5", value=shown(value))),
    (("bool_parsing", "bool_type"), lambda value, _: note("{value} is neither true nor false; write one",
                                                        value=shown(value))),
    (_NO_LIST, lambda value, _: note("{value} is no list; write [{bare}]",
                                                        value=shown(value), bare=shown(value).strip("'"))),
    (_NO_MAPPING, _mapping),
    (("string_type",), lambda value, _: note("{value} is no text; put a text in quotes", value=shown(value))),
)  # fmt: skip
"""By pydantic's types of errors, the sentence for a value and its limits."""
