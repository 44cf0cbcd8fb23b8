"""Routes that answer the questions of `questions.registry`, in several formats, whole or in pages.

An answer says which committed state it is of. A client that has it already, and names its entity tag, is told so
without the question being asked again. With the header `Wait-For`, a question is asked once the named positions were
read, so that a client sees what it has published.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from coupon_ledger.api.answers import as_of_fields, json_rows
from coupon_ledger.api.client import Remote
from coupon_ledger.api.described import address_parameters, inlined
from coupon_ledger.api.service.auditing import Audit, without_personal
from coupon_ledger.api.service.bodies import body_of
from coupon_ledger.api.service.callers import Caller, allowed, check_csrf
from coupon_ledger.api.service.formats import FORMATS, JSON, Format, format_of, pieces_of
from coupon_ledger.api.service.kept_answers import KeptAnswers, Page
from coupon_ledger.api.service.openapi import reference, responses
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.questions.registry import QUESTIONS, Answer, AsOf, Question

PAGE: Final = 1_000
"""Rows of a page of JSON, unless the request says how many."""
LARGEST_PAGE: Final = 100_000
WAIT_S: Final = 10.0
"""How long a question waits for positions at most."""
_OWN: Final = ("format", "page_size", "cursor")
_POSITION: Final = re.compile(r"([a-z]+\.[a-z-]+):([0-9]{1,9}):([0-9]{1,18})")
_BODY: Final = 4_000_000
INTERNAL: Final = frozenset(
    {"digest-buckets", "digest-rows", "histories", "across", "log-identity", "standing", "oddities", "evidence"}
)
"""Questions for commands only; they are not served over HTTP."""
_UNTAGGED: Final = ("dead-letter", "digest", "audit", "summary", "operations")
"""Questions (by how their names begin) whose answers may change without a commit."""
PUBLIC: Final[Mapping[str, Question[Any]]] = {n: q for n, q in QUESTIONS.items() if n not in INTERNAL}


class _Wanted(NamedTuple):
    """How an answer is to be sent. `page_size`: None for the whole answer."""

    form: Format
    page_size: int | None


class Asking:
    """Answers the questions of callers."""

    def __init__(self, link: OwnerLink, kept: KeptAnswers, key: bytes, audit: Audit) -> None:
        """`key`: signs cursors. `audit`: records who asked what."""
        self._audit = audit
        self._link = link
        self._kept = kept
        self._key = key

    def add_to(self, app: FastAPI) -> None:
        for name, question in PUBLIC.items():
            about: dict[str, Any] = {
                "description": question.ask.__doc__,
                "response_model": None,
                "responses": _RESPONSES,
                "tags": ["questions"],
            }
            get = {"name": f"question:{name}", "operation_id": f"get_{name}", **about}
            post = {"name": f"question:{name}", "operation_id": f"ask_{name}", **about}
            app.get(f"/v1/questions/{name}", **get)(partial(self._by_address, name, question))
            app.post(f"/v1/questions/{name}", **post)(partial(self._by_body, name, question))

    async def _by_address(self, name: str, question: Question[Any], request: Request) -> Response:
        caller = allowed(request, "ask")
        given = dict(request.query_params)
        if cursor := given.get("cursor"):
            return await self._next_page(caller, name, question, request, cursor, given)
        values = {
            key: _from_json(key, value)
            if key in question.parameters and question.parameters[key].takes_json(value)
            else value
            for key, value in given.items()
            if key not in _OWN
        }
        return await self._answer(caller, name, question, request, values, given)

    async def _by_body(self, name: str, question: Question[Any], request: Request) -> Response:
        caller = allowed(request, "ask")
        check_csrf(request)
        given = dict(request.query_params)
        if unknown := given.keys() - set(_OWN):
            raise Refusal(422, f"{min(unknown)}: POST takes the question's parameters in the body, as a JSON object")
        if "cursor" in given:
            return await self._next_page(caller, name, question, request, given["cursor"], given)
        values = _from_json("body", (await body_of(request, _BODY)) or b"{}")
        if not isinstance(values, dict):
            raise Refusal(422, "body: is no JSON object of parameters; write it as one")
        return await self._answer(caller, name, question, request, values, given)

    async def _answer(
        self,
        caller: Caller,
        name: str,
        question: Question[Any],
        request: Request,
        values: dict[str, Any],
        given: Mapping[str, str],
    ) -> Response:
        wanted = _wanted(request, given)
        checked = question.read(name, values)
        await wait_for_positions(self._link, request)
        state, tag = self._link.state, None  # read before the question is asked: the answer is at least as new
        if state is not None and not name.startswith(_UNTAGGED):
            tag = self._tag(caller, name, question.as_json(checked), wanted, state.version)
            if tag in _tags(request.headers.get("if-none-match", "")):
                return Response(status_code=304, headers={"ETag": tag, **_VARY})
        self._note(caller, name, request, question.as_json(checked), wanted)
        found = await self._link.run(partial(self._asked, caller, name, values, wanted))
        return self._sent(found, name, question, wanted, tag)

    def _note(self, caller: Caller, name: str, request: Request, parameters: bytes, wanted: _Wanted) -> None:
        """Record who asks what, and from where."""
        place = request.client.host if request.client is not None else None
        details = {"parameters": without_personal(json.loads(parameters)), "format": wanted.form.name, "from": place}
        self._audit.view(
            "asked" if wanted.page_size and wanted.form is JSON else "exported", caller.name, name, details
        )

    def _asked(
        self, caller: Caller, name: str, values: dict[str, Any], wanted: _Wanted, remote: Remote
    ) -> tuple[Page, str | None] | Answer:
        answer = on_behalf_of(caller, remote).ask(name, **values)
        if wanted.page_size is None:
            return Answer(answer.as_of, answer.frames)
        return self._kept.first(answer.as_of, answer.frames, wanted.page_size, whose(caller))

    def _sent(
        self,
        found: tuple[Page, str | None] | Answer,
        name: str,
        question: Question[Any],
        wanted: _Wanted,
        tag: str | None,
    ) -> Response:
        headers = dict(_VARY) | ({"ETag": tag} if tag else {"Cache-Control": "no-store"})
        if isinstance(found, Answer):
            headers |= _about(found.as_of)
            if wanted.form is JSON:
                pieces = _whole_json(found, question.json)
            else:
                pieces = pieces_of(wanted.form, found.frames, question.json)
            # The first piece is made before the status is sent, so that an error still has a status of its own.
            return StreamingResponse(iterate_in_threadpool(pieces), headers=headers, media_type=wanted.form.media_type)
        page, kept = found
        cursor = self._cursor(name, kept, page.then, wanted) if kept is not None and page.then is not None else None
        return _page(page, cursor, wanted, question, headers, f"/v1/questions/{name}")

    async def _next_page(
        self,
        caller: Caller,
        name: str,
        question: Question[Any],
        request: Request,
        cursor: str,
        given: Mapping[str, str],
    ) -> Response:
        if unknown := given.keys() - set(_OWN):
            raise Refusal(422, f"{min(unknown)}: a cursor stands for all parameters; leave the others out")
        kept, start, size = self._opened(cursor, name)
        wanted = _wanted(request, {**given, "page_size": given.get("page_size", str(size))})
        assert wanted.page_size is not None
        page = self._kept.page(kept, start, wanted.page_size, whose(caller))
        if page is None:
            raise Refusal(410, "this answer is no longer kept; ask the question again")
        following = self._cursor(name, kept, page.then, wanted) if page.then is not None else None
        headers = {**_VARY, "Cache-Control": "no-store"}
        return _page(page, following, wanted, question, headers, f"/v1/questions/{name}")

    def _cursor(self, name: str, kept: str, start: int, wanted: _Wanted) -> str:
        text = json.dumps([name, kept, start, wanted.page_size], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._signature(text) + text).decode().rstrip("=")

    def _opened(self, cursor: str, name: str) -> tuple[str, int, int]:
        try:
            signed = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        except (ValueError, binascii.Error):
            signed = b""
        text = signed[16:]
        if not hmac.compare_digest(signed[:16], self._signature(text)):
            raise Refusal(422, "cursor: is none of this service; take `next` from an answer as it is")
        of, kept, start, size = json.loads(text)
        if of != name:
            raise Refusal(422, f"cursor: is of the question {of}; ask that one")
        return kept, start, size

    def _signature(self, text: bytes) -> bytes:
        return hmac.digest(self._key, b"cursor" + text, "sha256")[:16]

    def _tag(self, caller: Caller, name: str, parameters: bytes, wanted: _Wanted, version: str) -> str:
        what = [whose(caller), name, parameters.decode(), wanted.form.name, wanted.page_size]
        return f'"{version}-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]}"'


def on_behalf_of(caller: Caller, remote: Remote) -> Remote:
    """The owner, asked with the caller's rights."""
    return remote.restricted(caller.access)


async def wait_for_positions(link: OwnerLink, request: Request) -> None:
    """Wait for the positions in the header `Wait-For`, if there is one. Raises `Refusal` (422, 504)."""
    text = request.headers.get("wait-for")
    if text and not await link.wait_for(positions_of(text), WAIT_S):
        raise Refusal(
            504, f"Wait-For: these positions were not read within {WAIT_S:g} s; ask again", {"Retry-After": "1"}
        )


def positions_of(text: str) -> dict[tuple[str, int], int]:
    """The positions in a header `Wait-For`. Raises `Refusal` (422)."""
    positions = {}
    for one in text.split(","):
        matched = _POSITION.fullmatch(one.strip())
        if not matched:
            raise Refusal(422, f"Wait-For {one.strip()[:60]}: is no position; write TOPIC:PARTITION:OFFSET")
        positions[matched[1], int(matched[2])] = int(matched[3])
    return positions


def _wanted(request: Request, given: Mapping[str, str]) -> _Wanted:
    form = format_of(request.headers.get("accept", ""), given.get("format"))
    size = given.get("page_size")
    if size is None:
        return _Wanted(form, PAGE if form is JSON else None)
    if not (size.isascii() and size.isdigit() and 1 <= int(size) <= LARGEST_PAGE):
        raise Refusal(422, f"page_size {size[:20]}: is no number from 1 to {LARGEST_PAGE:,}")
    return _Wanted(form, int(size))


def _from_json(name: str, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error).partition(";")[0].partition(":")[0]
        raise Refusal(422, f"{name}: cannot be read as JSON ({why}); correct it") from None


def _tags(header: str) -> set[str]:
    return {one.strip().removeprefix("W/") for one in header.split(",")}


def whose(caller: Caller) -> str:
    """Callers with the same text get the same answers."""
    return hashlib.sha256(caller.access.dumps().encode()).hexdigest()


_VARY: Final = {"Vary": "Accept, Authorization, Cookie", "X-Content-Type-Options": "nosniff"}


def _about(state: AsOf) -> dict[str, str]:
    """Headers that say which state an answer is of, for formats that have no place for it."""
    clock = as_of_fields(state)["data_clock"]
    return {"Ledger-Commits": str(state.commits), **({"Ledger-Data-Clock": clock} if clock else {})}


def _page(
    page: Page, cursor: str | None, wanted: _Wanted, question: Question[Any], headers: dict[str, str], path: str
) -> Response:
    headers = headers | _about(page.as_of)
    if cursor is not None:
        headers["Link"] = f'<{path}?cursor={cursor}>; rel="next"'
    if wanted.form is JSON:
        rows = b",".join(json_rows(page.rows, question.json))
        state = json.dumps(as_of_fields(page.as_of)).encode()
        following = json.dumps(cursor).encode()
        body = b'{"as_of": ' + state + b', "next": ' + following + b', "rows": [' + rows + b"]}\n"
        return Response(body, 200, headers, JSON.media_type)
    body = b"".join(pieces_of(wanted.form, [page.rows], question.json))
    return Response(body, 200, headers, wanted.form.media_type)


def _whole_json(answer: Answer, json_columns: tuple[str, ...]) -> Iterator[bytes]:
    yield b'{"as_of": ' + json.dumps(as_of_fields(answer.as_of)).encode() + b', "next": null, "rows": ['
    first = True
    for frame in answer.frames:
        for rows in json_rows(frame, json_columns):
            yield rows if first else b"," + rows
            first = False
    yield b"]}\n"


def describe(operation: dict[str, Any], name: str, *, in_body: bool) -> None:
    """Complete the OpenAPI description of a question's route, with its parameters."""
    question = PUBLIC[name]
    schema = inlined(question.validator.model_json_schema())
    operation.setdefault("parameters", []).extend(_PARAMETERS)
    if in_body:
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": bool(schema.get("required")), "content": content}
    else:
        operation["parameters"].extend(address_parameters(question, schema))


_AS_OF: Final[dict[str, Any]] = {
    "type": "object",
    "description": "The committed state that the answer is of.",
    "required": ["commits", "committed_at", "data_clock", "positions"],
    "properties": {
        "commits": {"type": "integer"},
        "committed_at": {"type": ["string", "null"], "format": "date-time"},
        "data_clock": {"type": ["string", "null"], "format": "date-time"},
        "positions": {"type": "array", "items": {"type": "object"}},
    },
}
ANSWER: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["as_of", "next", "rows"],
    "properties": {
        "as_of": _AS_OF,
        "next": {"type": ["string", "null"], "description": "The cursor of the next page; null after the last one."},
        "rows": {"type": "array", "items": {"type": "object"}},
    },
}
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **responses(400, 401, 403, 404, 406, 408, 410, 413, 415, 422, 429, 503, 504),
    200: {
        "description": "The answer.",
        "content": {f.media_type: {"schema": reference("Answer")} if f is JSON else _BINARY for f in FORMATS},
    },
    304: {"description": "The client has this answer already."},
}
_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "format",
        "in": "query",
        "description": "Format of the answer; comes before the header Accept.",
        "schema": {"enum": [f.name for f in FORMATS]},
    },
    {
        "name": "page_size",
        "in": "query",
        "description": f"Rows in a page. Without it, JSON comes in pages of {PAGE:,} rows, other formats whole.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "The page after another: `next` of that page. Stands for all other parameters of the question.",
        "schema": {"type": "string"},
    },
    {
        "name": "Wait-For",
        "in": "header",
        "description": "Ask once these positions were read: `wait_for` of a publishing answer.",
        "schema": {"type": "string"},
    },
]
