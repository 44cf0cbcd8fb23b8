"""Keeps what is valid in a rule that the models refuse, so that its other mistakes are reported too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.template_fields import TemplateField, fields_of, measured
from coupon_ledger.projections.alerts.troubles import KINDS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_ROUNDS: Final = 4
"""How often a rule is validated: mistakes that an earlier one hides show in the next round."""
_STAND_IN: Final = {"kind": "reconciliation"}
_NAMING: Final = frozenset({"by", "key", "of", "metric", "share"})
"""Fields of expressions that decide which fields alerts have, and in which unit they are measured."""
_JUDGED: Final = frozenset({"expr", "hold", "keep", "every"})
"""Fields that a proof is about."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What is valid in a rule that is left out. `rule`: with a stand-in in place of a bad expression. `fields`: the
    fields that its texts may name; None if its expression does not say. `unit`: how its values are written."""

    rule: Rule
    fields: Mapping[str, TemplateField] | None
    unit: str | None


def rest_of(data: Mapping[str, Any], report: Callable[[ValidationError], None]) -> Rest | None:
    """What is valid in a rule. `data`: the fields of a `Rule`. `report` is called with every error of the models that
    is not due to an earlier one. None if nothing can be said of it."""
    good = dict(data)
    bad_expr: set[str] | None = None
    for _ in range(_ROUNDS):
        try:
            rule = Rule.model_validate(good)
        except ValidationError as error:
            report(error)
            found = error.errors()
            if any(details["loc"][:1] == ("expr",) for details in found):
                bad_expr = {str(d["loc"][2]) for d in found if d["loc"][:1] == ("expr",) and len(d["loc"]) > 2}
            good = _without(good, found)
        else:
            return _rest(rule, data.get("expr"), bad_expr)
    return None


def _rest(rule: Rule, expr: Any, bad: set[str] | None) -> Rest:
    """`bad`: the fields of the expression that are refused; None if nothing of it is."""
    whole = rule if bad is None else _with_expression(rule, expr, bad)
    return Rest(rule, None, None) if whole is None else Rest(rule, fields_of(whole), measured(whole))


def _with_expression(rule: Rule, expr: Any, bad: set[str]) -> Rule | None:
    """The rule with what is good in its expression, which is only fit to be asked for its fields. None if that does
    not decide which ones there are."""
    model = KINDS.get(str(expr.get("kind"))) if isinstance(expr, dict) else None
    if model is None:
        return None
    good = {name: value for name, value in expr.items() if name in model.model_fields and name not in bad}
    naming = [(name, field) for name, field in model.model_fields.items() if name in _NAMING]
    if any(name in bad or (name not in good and field.is_required()) for name, field in naming):
        return None
    return rule.model_copy(update={"expr": model.model_construct(**good)})


def _without(data: Mapping[str, Any], found: list[ErrorDetails]) -> dict[str, Any]:
    """The data without what these errors are about, and without what would be refused for the lack of it."""
    good = dict(data)
    for details in found:
        path = [step for step in details["loc"] if step != "[key]"]
        _take_out(good, path, details["type"])
    if _JUDGED & {str(details["loc"][0]) for details in found if details["loc"]}:
        good["action"] = _unproved(good.get("action"))
    return {name: value for name, value in good.items() if value is not None}


def _take_out(good: dict[str, Any], path: list[str | int], kind: str) -> None:
    match path:
        case []:  # of the rule as a whole: its escalation first, then its proof
            if good.get("escalate_to") and good.get("escalate_after") is None:
                good["escalate_after"] = "1h"
            else:
                good["action"] = _unproved(good.get("action"))
        case ["expr", *_]:
            good["expr"] = dict(_STAND_IN)
        case ["name"]:
            good["name"] = "unnamed"
        case ["group"]:
            good["group"] = "default"
        case ["escalate_after"]:
            good["escalate_after"] = "1h"
        case ["annotations", language, *field] if isinstance(good.get("annotations"), dict):
            good["annotations"] = dict(_texts(good["annotations"], language, field, kind))
        case [name, *_]:
            good.pop(str(name), None)


def _texts(texts: Mapping[str, Any], bad: str | int, field: list[str | int], kind: str) -> Iterator[tuple[str, Any]]:
    """The texts by language, without one language or one of its fields. A text that is missing or refused becomes
    another, since the language would be refused without it."""
    for language, own in texts.items():
        if language != bad:
            yield language, own
        elif field and isinstance(own, dict):
            rest = {name: text for name, text in own.items() if name != field[0]}
            yield language, rest if kind == "extra_forbidden" else {**rest, str(field[0]): "-"}


def _unproved(action: Any) -> Any:
    return {n: v for n, v in action.items() if n != "automatic"} if isinstance(action, dict) else action
