"""Bodies of requests that do something: small JSON objects, each checked by a model that also describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from coupon_ledger.api.described import inlined
from coupon_ledger.api.service.bodies import body_of
from coupon_ledger.api.service.callers import Caller, Right, allowed, check_csrf
from coupon_ledger.api.service.openapi import responses
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.events import MAX_ID_CHARS, MAX_TEXT_CHARS, problems_of
from coupon_ledger.ledger.plain import plain

MOST_BYTES: Final = 64_000

Why = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS),
    Field(description="In a few words, for those who wonder later."),
]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_ID_CHARS)]


class Body(BaseModel):
    """A body without fields."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


_Body = TypeVar("_Body", bound=Body)


async def taken(request: Request, right: Right, model: type[_Body]) -> tuple[Caller, _Body]:
    """The caller of a request that needs this right, and its body. Raises `Refusal` (400, 401, 403, 413, 422)."""
    caller = allowed(request, right)
    check_csrf(request)
    text = await body_of(request, MOST_BYTES)
    try:
        values = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        raise Refusal(422, "body: cannot be read as JSON; correct it") from None
    if not isinstance(values, dict):
        raise Refusal(422, "body: is no JSON object; write it as one")
    try:
        return caller, model.model_validate(values)
    except ValidationError as error:
        problems = [{"field": p.field, "rule": p.rule} for p in problems_of(error)]
        raise Refusal(422, "; ".join(f"{p['field']}: {p['rule']}" for p in problems), problems=problems) from None


def aware(at: datetime) -> datetime:
    """The instant, in UTC if it names no zone."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(plain(dict(body)), ensure_ascii=False).encode(errors="backslashreplace")
    return Response(text, status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")


def described(
    model: type[Body] | None, example: Mapping[str, Any] | None, reply: Mapping[str, Any], **further: Any
) -> Any:
    """The arguments of FastAPI that describe a route. `example`: of a body; `reply`: of an answer. `further`:
    `status` of the answer, and statuses of refusals (`refusals`)."""
    status = further.get("status", 200)
    refusals = further.get("refusals", (400, 401, 403, 404, 409, 413, 422, 503))
    content = {"application/json": {"schema": {"type": "object"}, "example": reply}}
    arguments: dict[str, Any] = {
        "status_code": status,
        "response_model": None,
        "responses": {**responses(*refusals), status: {"description": "Done.", "content": content}},
    }
    if model is not None:
        schema = inlined(model.model_json_schema())
        body = {"application/json": {"schema": schema, "example": dict(example or {})}}
        arguments["openapi_extra"] = {"requestBody": {"required": bool(schema.get("required")), "content": body}}
    return arguments
