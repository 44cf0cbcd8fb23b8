"""Describes the parameters of questions for OpenAPI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coupon_ledger.questions.registry import Question


def address_parameters(question: Question[Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Describe the parameters of a question's GET route for OpenAPI. In the URL, lists of names are separated by
    commas, and nested values are JSON."""
    for name, parameter in question.parameters.items():
        own = dict(schema["properties"][name])
        own.pop("title", None)
        if "anyOf" in own:
            own["anyOf"] = [one for one in own["anyOf"] if one != {"type": "null"}]
        described = {"name": name, "in": "query", "required": parameter.required, "description": parameter.description}
        if parameter.nested:
            yield described | {"content": {"application/json": {"schema": own}}}
        else:
            yield described | {"schema": own} | ({"explode": False} if own.get("type") == "array" else {})


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema with every reference (`$ref`) replaced by the definition to which it refers."""
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(definitions[part["$ref"].rpartition("/")[2]])
        return {name: inlined(value) for name, value in part.items()}

    whole: dict[str, Any] = inlined(schema)
    return whole
