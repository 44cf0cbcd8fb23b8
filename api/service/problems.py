"""Errors as `application/problem+json` (RFC 9457): what is wrong and what to do, with a code for programs."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from coupon_ledger.ledger.errors import (
    InvalidEvent,
    LedgerError,
    LogError,
    LogFull,
    LogNotInitialised,
    NotThere,
    OwnerGone,
    OwnerRefused,
    QueryStopped,
    SettingsStoreError,
    StoreOwned,
    TooManySnapshots,
    UnknownAccount,
    UnusableFile,
)

MEDIA_TYPE: Final = "application/problem+json"
_TYPE: Final = "urn:coupon-ledger:problem:"
TITLES: Final[Mapping[str, str]] = {
    "bad-request": "The request cannot be read",
    "not-signed-in": "Sign in, or send a token",
    "forbidden": "The caller's role does not allow this",
    "not-there": "There is nothing of that name",
    "wrong-method": "This address does not take that method",
    "not-acceptable": "The answer is not available in that format",
    "conflict": "The state does not allow this",
    "gone": "This is no longer available",
    "too-large": "The request is too large",
    "unsupported": "The body's format is not supported",
    "refused": "The request was read and is refused",
    "wrong-host": "This service answers to other names",
    "too-many": "Too many requests",
    "failed": "The service failed",
    "unavailable": "The service cannot answer at the moment",
    "too-slow": "It took too long",
}
"""Every code of a problem, and its title."""
_OF_STATUS: Final[Mapping[int, str]] = {
    400: "bad-request",
    401: "not-signed-in",
    403: "forbidden",
    404: "not-there",
    405: "wrong-method",
    408: "too-slow",
    406: "not-acceptable",
    409: "conflict",
    410: "gone",
    413: "too-large",
    415: "unsupported",
    421: "wrong-host",
    422: "refused",
    429: "too-many",
    503: "unavailable",
    504: "too-slow",
}
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "enum": [_TYPE + code for code in TITLES]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and what to do about it."},
        "problems": {
            "type": "array",
            "description": "For events: every rule that is broken, with the field.",
            "items": {
                "type": "object",
                "required": ["field", "rule"],
                "properties": {"field": {"type": "string"}, "rule": {"type": "string"}},
            },
        },
    },
}


class Refusal(Exception):
    """A request that is refused with this status. `headers`, `further`: added to the response, and to its body."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **further: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.further = further


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **further: Any) -> Response:
    code = _OF_STATUS.get(status, "failed" if status >= 500 else "bad-request")
    body = {"type": _TYPE + code, "title": TITLES[code], "status": status, "detail": detail, **further}
    # Half a surrogate pair, which JSON can hold, is no text.
    text = json.dumps(body, ensure_ascii=False).encode(errors="backslashreplace")
    return Response(text, status, {**(headers or {}), "Cache-Control": "no-store"}, MEDIA_TYPE)


async def handled(_: Request, error: Exception) -> Response:
    """The response for an error that a route raised."""
    return of_error(error)


def of_error(error: Exception) -> Response:
    if isinstance(error, Refusal):
        return problem(error.status, error.detail, error.headers, **error.further)
    if isinstance(error, RequestValidationError):
        words = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or e['loc'][0]}: {e['msg']}" for e in error.errors())
        return problem(422, words)
    if isinstance(error, HTTPException):
        return problem(error.status_code, error.detail, error.headers)
    if isinstance(error, InvalidEvent):
        return problem(422, str(error), problems=[{"field": p.field, "rule": p.rule} for p in error.problems])
    if isinstance(error, LedgerError):
        status = _status(error)
        return problem(
            status, str(error), {"Retry-After": "1"} if status == http.HTTPStatus.SERVICE_UNAVAILABLE else {}
        )
    return problem(500, "an error of the program; the service's log has more")


def _status(error: LedgerError) -> int:
    if isinstance(error, OwnerRefused) and error.status is not None:
        return error.status
    if isinstance(error, NotThere | UnknownAccount):
        return 404
    if isinstance(error, QueryStopped):
        return 504
    if isinstance(error, OwnerGone | StoreOwned | TooManySnapshots | LogFull):
        return 503
    if isinstance(error, LogError) and not isinstance(error, LogNotInitialised):
        return 503
    if isinstance(error, SettingsStoreError):
        return 409
    if error.exit_code in (2, 3) or isinstance(error, UnusableFile):
        return 422
    return 503 if error.exit_code in (4, 5) else 422
