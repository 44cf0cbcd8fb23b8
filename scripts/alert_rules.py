"""The reference of the rules file, docs/alert-rules.md: from the models, and with an example of each kind from the
defaults."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, StringConstraints
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from coupon_ledger.projections.alerts import rule_test_events, rule_tests, rules, template_fields
from coupon_ledger.projections.alerts.document import MOST_BYTES
from coupon_ledger.projections.alerts.durations import Between, written
from coupon_ledger.projections.alerts.groups import GroupFields
from coupon_ledger.projections.alerts.planned import Planned
from coupon_ledger.projections.alerts.rules_file import defaults, defaults_text
from coupon_ledger.projections.alerts.troubles import IN_FILE, KINDS

_PLURAL: Final = {"name": "names", "text": "texts"}
_INNER: Final[dict[str, type[BaseModel]]] = {"after": rules.After, "plan": Planned}


def document() -> str:
    """The reference as Markdown."""
    template = Path(__file__).with_name("alert-rules.md").read_text(encoding="utf-8")
    groups = {
        "event by event, or at ticks of the data's clock, and so alike live, rebuilt and in a backtest": rules.STREAMED,
        "whenever the tables change": rules.SETTLED,
        "by asking a question now and then (`every`)": rules.ASKED,
    }
    return template.format(
        count=len(defaults().rules),
        bytes=MOST_BYTES,
        group="\n".join(_table(GroupFields)),
        rule="\n".join(_table(rules.Rule, leave_out=("group",))),
        action="\n".join(_table(rules.Action)),
        sale="\n".join(_table(rules.Sale)),
        case="\n".join(_table(rule_tests.CaseFields)),
        repeated="\n".join(_table(rule_test_events.Repeated)),
        expected="\n".join(_table(rule_tests.ExpectedAlert)),
        kinds=" ".join(
            f"Evaluated {how}: {', '.join(f'`{k}`' for k in KINDS if k in kinds)}." for how, kinds in groups.items()
        ),
        sections="\n".join(line for kind, model in KINDS.items() for line in _kind(kind, model)),
        fields="\n".join(_template_fields()),
        labels="\n".join(f"| `{n}`{_star(f)} | {f.format} | {f.meaning} |" for n, f in template_fields.LABELS.items()),
        formats="\n".join(f"| `{name}` | {meaning} |" for name, meaning in template_fields.FORMATS.items()),
    )


def _kind(kind: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"### `{kind}`\n"
    yield inspect.cleandoc(model.__doc__ or "") + "\n"
    if len(model.model_fields) > 1:
        yield from _table(model, leave_out=("kind",))
        yield ""
    for name, inner in _INNER.items():
        if name in model.model_fields:
            yield f"`{name}`:\n"
            yield from _table(inner)
            yield ""
    if kind == "health":
        yield "| `of` | the number |\n|---|---|"
        yield from (f"| `{of}` | {meaning} |" for of, meaning in rules.HEALTH.items())
        yield ""
    yield "```yaml"
    yield _example(kind)
    yield "```\n"


def _example(kind: str) -> str:
    """The first default of the kind, as it stands in the file of defaults, with the reason for its thresholds."""
    name = next(rule.name for rule in defaults().rules if rule.expr.kind == kind)
    lines = defaults_text().splitlines()
    start = lines.index(f"  - alert: {name}")
    end = start + 1
    while end < len(lines) and lines[end].startswith("    "):
        end += 1
    while lines[start - 1].startswith("  #"):
        start -= 1
    return inspect.cleandoc("\n" + "\n".join(lines[start:end]))


def _table(model: type[BaseModel], leave_out: tuple[str, ...] = ()) -> Iterator[str]:
    yield "| field | values | default | |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        if name not in leave_out:
            shown = IN_FILE.get(name, name) if model is rules.Rule else name
            about = next((text for text in field.metadata if isinstance(text, str)), "")
            yield f"| `{shown}` | {_values(field)} | {_default(field)} | {about} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
    if value is None or value is PydanticUndefined or value in ((), {}):
        return ""
    if isinstance(value, timedelta):
        return f"`{written(value)}`"
    if isinstance(value, datetime):
        return f"`{value:%Y-%m-%dT%H:%M:%SZ}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(field: FieldInfo) -> str:
    return _type(Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation)


def _type(kind: Any, bounds: tuple[Any, ...] = ()) -> str:
    """What may be written for a type."""
    if kind is Any:
        return ""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inside[0], (*inside[1:], *bounds))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        models = [one for one in inside if one is not type(None)]
        return _type(models[0], bounds) if len(models) == 1 else "an expression, below"
    if origin is tuple:
        one = _type(inside[0])
        return f"file, or list of {one}" if inside[0] is Planned else f"list of {_PLURAL.get(one, one)}"
    if origin is dict:
        return f"{_type(inside[1])} by {_type(inside[0])}"
    return _plain(kind, bounds)


def _plain(kind: Any, bounds: tuple[Any, ...]) -> str:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "rows" if kind is Planned else "its fields"
    if kind is timedelta:
        between = [b.func for b in bounds if isinstance(b, AfterValidator) and isinstance(b.func, Between)]
        return f"duration, {written(between[0].least)} to {written(between[0].most)}" if between else "duration"
    pattern = next((b.pattern for b in bounds if isinstance(b, StringConstraints) and b.pattern), None)
    if isinstance(pattern, str) and pattern.startswith("^("):
        return ", ".join(f"`{value}`" for value in pattern[2:-2].split("|"))
    names = {bool: "`true`, `false`", int: "whole number", float: "number", str: "name" if pattern else "text"}
    limits = {sign: _limit(bounds, sign) for sign in ("ge", "gt", "le")}
    least = f"from {limits['ge']}" if limits["ge"] else f"above {limits['gt']}" if limits["gt"] else ""
    most = f"to {limits['le']}" if limits["le"] else ""
    return " ".join(
        part for part in (names.get(kind, "instant" if "datetime" in str(kind) else "rules"), least, most) if part
    )


def _limit(bounds: tuple[Any, ...], sign: str) -> str:
    for bound in bounds:
        for one in (bound, *getattr(bound, "metadata", ())):
            value = getattr(one, sign, None)
            if value is not None:
                return f"{value:,}" if abs(value) < 1e15 else f"{value:.0e}".replace("e+", "e")
    return ""


def _star(field: template_fields.TemplateField) -> str:
    return "*" if field.personal else ""


def _template_fields() -> Iterator[str]:
    for name, field in template_fields.FIELDS.items():
        kinds = "all" if field.kinds is None else ", ".join(f"`{kind}`" for kind in KINDS if kind in field.kinds)
        form = f"*{field.format}*" if field.format == "measured" else field.format
        yield f"| `{name}`{_star(field)} | {form} | {kinds} | {field.meaning} |"
