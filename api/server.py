"""The owner's web application. It answers every question of `questions.registry` under `/v1`, reports health and
metrics, and does backups, sweeps, repairs and swaps.

- Every request must have the owner's token. The only exception is `/v1/health`, which says nothing but that the owner
  is running.
- A request is refused if its host name is not one of loopback's, or if it comes from a web page of another origin. So
  no web page can make a browser on this machine send requests on its behalf.
- Only a few questions run at once, each on its own cursor and in its own snapshot. Further questions wait. If too many
  wait, further ones are refused.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import json
import math
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coupon_ledger.api.answers import Spool, pieces, spooled
from coupon_ledger.api.contact import ACCESS, ARROW, FOLLOWED, LIMIT, SNAPSHOT
from coupon_ledger.api.described import address_parameters, inlined
from coupon_ledger.api.feed import Feed
from coupon_ledger.api.metrics import Metrics
from coupon_ledger.api.snapshots import Held, Snapshots
from coupon_ledger.consumers.discards import Signed, discard
from coupon_ledger.consumers.owner import Owner, Succeeded, waiting
from coupon_ledger.consumers.replay import Replay, Rows
from coupon_ledger.consumers.sweeper import Swept, over
from coupon_ledger.ledger.errors import (
    Forbidden,
    InvalidEvent,
    LedgerError,
    NoSnapshot,
    NothingChosen,
    NotThere,
    QueryStopped,
    StillToCome,
    StoreError,
    TooManySnapshots,
    WrongQuestion,
)
from coupon_ledger.ledger.labels import personal_columns
from coupon_ledger.ledger.log import EventLog
from coupon_ledger.ledger.words import Note
from coupon_ledger.projections.backup import Copied, copy_to
from coupon_ledger.projections.dead_letters import Chosen
from coupon_ledger.projections.readers import Readers, Running
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.access.access import Access
from coupon_ledger.questions.access.compiled import check
from coupon_ledger.questions.parameters import Parameters, naive_utc
from coupon_ledger.questions.registry import QUESTIONS, Answer, Question, answer_to

_IN_FLIGHT: Final = 64
"""Maximum number of questions that run, wait or are being sent. Further ones get status 503 and may retry."""
_SEND_S: Final = 120.0
"""A client that receives no data for this long is disconnected."""
SWEEP_S: Final = 300.0
"""Time limit for a sweep. It begins when the consumer has caught up."""
REPAIR_S: Final = 600.0
"""Time limit for a repair. It begins between two batches."""
URGENT_S: Final = 5.0
"""Questions with a limit up to this are urgent: a customer waits to pay. They have threads of their own."""
_QUICK_S: Final = 30.0
"""Questions with a longer limit count as slow: they may read all rows, and run one at a time."""
_COPY_S: Final = 3600.0
"""Time limit for a backup, because the write-ahead log grows while it runs."""
_PROGRESS_S: Final = 0.2
"""Interval between two lines of progress."""
_LONGEST_S: Final = 86_400.0
_LONGEST: Final = 64_000_000
"""Maximum size of a question, in bytes."""
_NICER: Final = 5
_TOO_LONG: Final = HTTPException(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the question is too long; ask for less")
_OF_THE_QUESTION: Final = (http.HTTPStatus.UNPROCESSABLE_ENTITY, http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""Statuses of errors that whoever asks can correct."""
_OPEN: Final = "/v1/health"
_GONE: Final = "the client has disconnected"


_REFUSAL: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error", "exit_code"],
    "properties": {
        "error": {"type": "string", "description": "What is wrong, and what to do about it."},
        "exit_code": {"type": "integer", "description": "The exit code that the command line would return."},
    },
}
_AS_OF: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["commits", "committed_at", "data_clock", "positions"],
    "properties": {
        "commits": {"type": "integer"},
        "committed_at": {"type": ["string", "null"]},
        "data_clock": {"type": ["string", "null"]},
        "positions": {"type": "array", "items": {"type": "object"}},
    },
}
_ANSWER: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["as_of", "rows"],
    "properties": {"as_of": _AS_OF, "rows": {"type": "array", "items": {"type": "object"}}},
}


_HELD: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["snapshot"],
    "properties": {"snapshot": {"type": "string", "description": "The name of the snapshot."}},
}


def _responses(answer: dict[str, Any], *refusals: int) -> dict[int | str, dict[str, Any]]:
    """Describe the responses of a route for OpenAPI. `answer`: the content of status 200. `refusals`: the statuses of
    errors."""
    refused = {"application/json": {"schema": _REFUSAL}}
    return {
        200: {"description": "The answer.", "content": answer},
        **{status: {"description": http.HTTPStatus(status).phrase, "content": refused} for status in refusals},
    }


_ANSWERS: Final = _responses(
    {"application/json": {"schema": _ANSWER}, ARROW: {"schema": {"type": "string", "format": "binary"}}},
    *(401, 403, 404, 421, 422, 503, 504),
)


def application(
    readers: Readers,
    metrics: Metrics,
    threads: tuple[Executor, Executor, Executor],
    token: str,
    port: int,
    owner: Owner | None,
    copying: Executor,
    snapshots: Snapshots,
    feed: Feed,
) -> ASGIApp:
    """The web application, for a socket that listens on `port` of loopback. `threads`: run urgent questions, quick
    ones and slow ones. `copying`: runs backups. `owner`: does sweeps, repairs and swaps; if None, there are no
    routes for these."""
    personal = ", ".join(sorted(personal_columns()))
    app = FastAPI(
        title="coupon-ledger",
        description=f"Columns with personal data: {personal}.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )

    @app.get(_OPEN)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics_text() -> PlainTextResponse:
        await asyncio.get_running_loop().run_in_executor(threads[1], metrics.present.look, readers)
        return PlainTextResponse(metrics.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/v1/feed", response_model=None)
    async def follow() -> StreamingResponse:
        """A line of JSON for each state that was committed, without end: `as_of`, the positions of alerts, lag."""
        return StreamingResponse(feed.lines(), media_type="application/x-ndjson")

    if owner is not None:
        _add_expire(app, owner)
        _add_repairs(app, owner)
        _add_succeed(app, owner)
    _add_backup(app, readers, copying)
    _add_snapshots(app, snapshots)
    for name, question in QUESTIONS.items():
        _add(app, name, question, _QuestionHandler(readers, threads, metrics, name, question, snapshots))
    for kind in (LedgerError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _in_words)
    app.openapi = partial(_described, app)  # type: ignore[method-assign]
    return _Guard(_Bounded(_QuestionsOnly(app)), token, port)


def question_threads(number: int, name: str, *, nice: bool = True) -> ThreadPoolExecutor:
    """`nice`: give precedence to the consumer's thread."""
    return ThreadPoolExecutor(number, f"{name}-question", initializer=_be_nice if nice else None)


def _be_nice() -> None:
    """Lower the priority of the calling thread, so that the consumer's thread has precedence. Works only on Linux,
    where a thread's id can be passed as a process id. Elsewhere this does nothing."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICER)


def _add(app: FastAPI, name: str, question: Question[Any], ask: _QuestionHandler) -> None:
    """Add a question's two routes: GET takes the parameters from the URL, POST from a JSON object in the body. `ask`:
    answers the question."""

    async def by_address(request: Request) -> Response:
        return await ask(request, _of_address(question, request))

    async def by_body(request: Request) -> Response:
        try:
            values = await _of_body(name, request)
        except ClientDisconnect:
            return Response()  # nobody reads it
        return await ask(request, values)

    described: dict[str, Any] = {"description": question.ask.__doc__, "response_model": None, "responses": _ANSWERS}
    app.get(f"/v1/{name}", name=name, **described)(by_address)
    app.post(f"/v1/{name}", name=name, **described)(by_body)


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description. The schemas of the parameters are made when it is first asked for, so that the consumer
    does not start later for them."""
    if app.openapi_schema is None:
        for route in app.routes:
            if isinstance(route, APIRoute) and route.name in QUESTIONS:
                route.openapi_extra = _parameters_of(QUESTIONS[route.name], in_body="POST" in (route.methods or ()))
    return FastAPI.openapi(app)


def _parameters_of(question: Question[Any], *, in_body: bool) -> dict[str, Any]:
    """The part of a route's OpenAPI description that lists the question's parameters: in the body, or in the URL."""
    schema = inlined(question.validator.model_json_schema())
    if not in_body:
        return {"parameters": list(address_parameters(question, schema))}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": bool(schema.get("required")), "content": content}}


def _of_address(question: Question[Any], request: Request) -> dict[str, Any]:
    known = question.parameters
    return {
        name: _from_json(name, value) if name in known and known[name].takes_json(value) else value
        for name, value in request.query_params.items()
    }


async def _of_body(name: str, request: Request) -> dict[str, Any]:
    """The parameters in the body of a POST request, which is a JSON object or empty. `name`: the question, for
    messages. Raises `WrongQuestion` if the body is anything else, and `HTTPException` if it is too long."""
    if request.query_params:
        raise WrongQuestion(f"{name}: POST takes its parameters as JSON in the body; leave them out of the address")
    body = bytearray()
    if int(request.headers.get("content-length", 0)) > _LONGEST:
        raise _TOO_LONG
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST:
            raise _TOO_LONG
    values = await asyncio.to_thread(_from_json, name, bytes(body) or b"{}")
    if not isinstance(values, dict):
        raise WrongQuestion(f"{name}: the body is no JSON object of parameters; write it as one")
    return values


def _from_json(name: str, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error).partition(";")[0].partition(":")[0]
        raise WrongQuestion(f"{name}: cannot be read as JSON ({why}); correct it") from None


def _add_expire(app: FastAPI, owner: Owner) -> None:
    @app.post("/v1/expire")
    async def expire(until: datetime | None = None) -> dict[str, int]:
        """Append the expiries and releases of holds that are due at `until` (default: at the data's clock). Returns how
        many events were appended, by reason."""
        if until is not None:
            naive_utc("until", until)
        sweep = owner.sweeper.ask(over(until.replace(tzinfo=until.tzinfo or UTC) if until else None))
        try:
            swept: Swept = await asyncio.wait_for(asyncio.wrap_future(sweep), SWEEP_S)
            return dict(swept)
        except TimeoutError:
            raise HTTPException(503, "the owner has not read all of the log yet; ask again later") from None


def _add_succeed(app: FastAPI, owner: Owner) -> None:
    @app.post("/v1/succeed")
    async def succeed(back: bool = False) -> Succeeded:
        """Replace the live database with the rebuilt one or, if `back`, with the one that was live before it."""
        return await asyncio.wrap_future(owner.ask(waiting(owner.store.path, back=back)))


class Repair(Chosen):
    """The parameters of a replay or discard: the filter that chooses the dead letters (`Chosen`), who requests it
    (`operator`), why, and whether only to try it (`dry_run`)."""

    operator: str
    why: str
    dry_run: bool = False

    @property
    def chosen(self) -> Chosen:
        return Chosen(**self.model_dump(include=set(Chosen.model_fields)))

    @property
    def by(self) -> Signed:
        return Signed(self.operator, self.why)

    def discard(self, store: Store, log: EventLog) -> Rows:
        return discard(store, log, self.chosen, self.by, dry_run=self.dry_run)


def _add_repairs(app: FastAPI, owner: Owner) -> None:
    @app.post("/v1/dead-letters/replay", response_model=None)
    async def replayed(repair: Annotated[Repair, Query()]) -> StreamingResponse:
        """Replay the chosen dead letters: fold those that can be folded by now. The replay is done in pieces; between
        two of them, the consumer continues.

        The response is lines of JSON: while the replay runs, lines with the keys `done` and `total`, in dead letters;
        at the end, a line with the key `replayed`, the outcome by partition, or with the keys `error` and `exit_code`.
        """
        progress = _ProgressLine()
        replay = Replay(repair.chosen, repair.by, dry_run=repair.dry_run, progress=progress)
        under_way = asyncio.wrap_future(owner.repairs.ask(replay))
        return _followed(under_way, progress, lambda rows: {"replayed": rows}, replay.stop)

    @app.post("/v1/dead-letters/discard")
    async def discarded(repair: Annotated[Repair, Query()]) -> Rows:
        """Discard the chosen dead letters: mark them as discarded, without folding them. Returns their number
        (`records`) by topic, partition and reason."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(owner.repairs.ask(repair.discard)), REPAIR_S)
        except TimeoutError:
            raise HTTPException(503, "the owner has not come to it yet; look again later, then ask again") from None


def _add_backup(app: FastAPI, readers: Readers, thread: Executor) -> None:
    @app.post("/v1/backup", response_model=None)
    async def backup(to: Path, full: bool = False) -> StreamingResponse:
        """Copy the database to the new file `to`. `full`: also compute the digest of all tables.

        The response is lines of JSON: while the copy runs, lines with the keys `done` and `total`, in rows; at the end,
        a line with the key `copied`, what the copy is to be checked against, or with the keys `error` and `exit_code`.
        """
        running, progress = Running(), _ProgressLine()

        def copied() -> Copied:
            with readers.cursor(running, _COPY_S) as cursor:
                return copy_to(cursor, to, full=full, progress=progress)

        under_way = asyncio.get_running_loop().run_in_executor(thread, copied)
        return _followed(under_way, progress, lambda copied: {"copied": asdict(copied)}, partial(running.stop, _GONE))


def _add_snapshots(app: FastAPI, snapshots: Snapshots) -> None:
    @app.post("/v1/snapshots", responses=_responses({"application/json": {"schema": _HELD}}, 503))
    async def hold() -> dict[str, str]:
        """Hold a snapshot of the last committed state, and return the snapshot's name. Questions that have this name in
        the header `x-snapshot` are answered from the snapshot. A snapshot ends when it is deleted, when it was not used
        for 20 seconds, and at the latest after 15 minutes."""
        return {"snapshot": await asyncio.get_running_loop().run_in_executor(None, snapshots.hold)}

    @app.delete("/v1/snapshots/{name}")
    async def let_go(name: str) -> dict[str, str]:
        """End a snapshot. If it has already ended, nothing happens."""
        await asyncio.get_running_loop().run_in_executor(None, snapshots.let_go, name)
        return {"let_go": name}


class _ProgressLine:
    """The latest progress of a job. The job's thread calls this object as its progress function. Another thread reads
    `line` and sends it to the client."""

    def __init__(self) -> None:
        self._progress = {"done": 0, "total": 0}

    def __call__(self, done: int, total: int) -> None:
        self._progress = {"done": done, "total": total}

    def line(self) -> bytes:
        return json.dumps(self._progress).encode() + b"\n"


def _followed(
    under_way: asyncio.Future[Any],
    progress: _ProgressLine,
    result: Callable[[Any], dict[str, Any]],
    gone: Callable[[], None],
) -> StreamingResponse:
    """The response to a request for a long job: while the job runs, a line of JSON with its progress every
    `_PROGRESS_S`; at the end, a line with its result or error. `under_way`: the running job. `result`: converts what
    the job returns to the last line. `gone`: called when the response ends, to stop the job if the client has
    disconnected."""

    async def lines() -> AsyncIterator[bytes]:
        try:
            while not under_way.done():
                await asyncio.wait([under_way], timeout=_PROGRESS_S)
                yield progress.line()
            yield json.dumps(result(under_way.result())).encode() + b"\n"
        except Exception as error:  # the status has been sent already
            yield _error_line(error)
        finally:
            gone()

    return StreamingResponse(lines(), media_type="application/x-ndjson")


class _QuestionHandler:
    """Answers the requests for one question."""

    def __init__(
        self,
        readers: Readers,
        threads: tuple[Executor, Executor, Executor],
        metrics: Metrics,
        name: str,
        question: Question[Any],
        snapshots: Snapshots,
    ) -> None:
        self._snapshots = snapshots
        self._readers = readers
        self._threads = threads
        self._metrics = metrics
        self._name = name
        self._question = question

    async def __call__(self, request: Request, values: dict[str, Any]) -> Response:
        access = access_of(request)
        check(self._question, self._name, access)
        parameters = await asyncio.to_thread(self._question.read, self._name, values)
        arrow = ARROW in request.headers.get("accept", "")
        limit_s = self._limit_s(request, parameters)
        held = self._snapshots.of(request.headers[SNAPSHOT]) if SNAPSHOT in request.headers else None
        running, progress = held.running if held else Running(), _ProgressLine()
        answered = asyncio.get_running_loop().run_in_executor(
            self._lane(limit_s),
            partial(self._answered, running, parameters, arrow, limit_s, progress, access)
            if held is None
            else partial(self._answered_of, held, parameters, arrow, limit_s, progress, access),
        )
        if held is not None:
            answered.add_done_callback(lambda _: held.answered())
        if FOLLOWED in request.headers:
            return StreamingResponse(_behind_lines(answered, progress, running))
        gone = asyncio.create_task(_stop_when_gone(request, running))
        try:
            spool = await answered
        finally:
            gone.cancel()
        return StreamingResponse(
            pieces(spool),
            headers={"Content-Length": str(spool.seek(0, os.SEEK_END)), "Cache-Control": "no-store"},
            media_type=ARROW if arrow else "application/json",
        )

    def _lane(self, limit_s: float) -> Executor:
        """The threads that answer this question: urgent, quick or slow ones."""
        urgent, quick, slow = self._threads
        if self._question.limit_s <= URGENT_S:
            return urgent
        return slow if limit_s > _QUICK_S else quick

    def _limit_s(self, request: Request, parameters: Parameters) -> float:
        """The question's time limit in seconds: the one that the client requests in the header, otherwise the usual
        limit of the question."""
        requested = request.headers.get(LIMIT)
        if requested is None:
            return self._question.limit_for(parameters)
        try:
            limit_s = float(requested)
            if math.isnan(limit_s):
                raise ValueError(requested)
            return min(max(limit_s, 0.1), _LONGEST_S)
        except ValueError:
            raise HTTPException(422, f"{LIMIT} {requested}: no number of seconds") from None

    def _answered(
        self,
        running: Running,
        parameters: Parameters,
        arrow: bool,
        limit_s: float,
        progress: _ProgressLine,
        access: Access,
    ) -> Spool:
        with (
            self._metrics.question(self._name),
            self._readers.snapshot(running, limit_s) as cursor,
            cursor.roomy() if limit_s > _QUICK_S else nullcontext(),
        ):
            return self._spooled(answer_to(self._name, self._question, cursor, parameters, progress, access), arrow)

    def _answered_of(
        self,
        held: Held,
        parameters: Parameters,
        arrow: bool,
        limit_s: float,
        progress: _ProgressLine,
        access: Access,
    ) -> Spool:
        with (
            self._metrics.question(self._name),
            held.asking(progress, limit_s) as snapshot,
            snapshot.roomy() if limit_s > _QUICK_S else nullcontext(),
        ):
            return self._spooled(snapshot.answer_to(self._name, self._question, parameters, access), arrow)

    def _spooled(self, answer: Answer, arrow: bool) -> Spool:
        try:
            return spooled(answer, arrow=arrow, json_columns=self._question.json)
        except OSError as error:
            raise StoreError(
                f"answer to {self._name}: cannot be kept in a temporary file ({error.strerror}); free space in the"
                " folder for those (TMPDIR), or ask for less"
            ) from error


def access_of(request: Request) -> Access:
    """The access rights in the request's header; all rights if there is none. Raises `Forbidden` if they cannot be
    read, or are there twice."""
    sent = request.headers.getlist(ACCESS)
    if len(sent) > 1:
        raise Forbidden("access rights: are sent twice; send them once")
    return Access.loads(sent[0]) if sent else Access.FULL


async def _behind_lines(
    answered: asyncio.Future[Spool], progress: _ProgressLine, running: Running
) -> AsyncIterator[bytes]:
    """Yields the response to a question whose client wants to follow its progress. While the question runs, these are
    lines of JSON with the keys `done` and `total`. Then there is a line with the key `answer`, the size of the answer
    in bytes, and after it the answer itself. If the question fails, there is instead a line with the keys `error` and
    `exit_code`."""
    try:
        while not answered.done():
            await asyncio.wait([answered], timeout=_PROGRESS_S)
            yield progress.line()
        spool = answered.result()
        yield json.dumps({"answer": spool.seek(0, os.SEEK_END)}).encode() + b"\n"
        for piece in pieces(spool):
            yield piece
    except Exception as error:  # the status has been sent already
        yield _error_line(error)
    finally:
        if not answered.done():
            running.stop(_GONE)


def _error_line(error: Exception) -> bytes:
    code = error.exit_code if isinstance(error, LedgerError) else StoreError.exit_code
    return json.dumps({"error": str(error), "exit_code": code, **_note(error)}).encode() + b"\n"


def _note(error: Exception) -> dict[str, str]:
    """If the error was raised with a `Note`: the key `note` with the note as JSON text, so that the client can
    translate it. Otherwise nothing."""
    message = error.args[0] if error.args else None
    return {"note": message.dumps()} if isinstance(message, Note) else {}


async def _stop_when_gone(request: Request, running: Running) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    running.stop(_GONE)


async def _in_words(_: Request, error: Exception) -> Response:
    """The response for an error, with the status that fits it. The body is `{"error": sentence, "exit_code": number}`:
    the exit code is the one with which the command line would end."""
    status, words, code = http.HTTPStatus.INTERNAL_SERVER_ERROR, str(error), StoreError.exit_code
    headers = {}
    if isinstance(error, LedgerError):
        code = error.exit_code
        if isinstance(error, NotThere):
            status = http.HTTPStatus.NOT_FOUND
        elif isinstance(error, Forbidden):
            status = http.HTTPStatus.FORBIDDEN
        elif (
            isinstance(error, StillToCome | NothingChosen | InvalidEvent) or error.exit_code == WrongQuestion.exit_code
        ):
            status = http.HTTPStatus.UNPROCESSABLE_ENTITY
        elif isinstance(error, NoSnapshot):
            status = http.HTTPStatus.NOT_FOUND
        elif isinstance(error, TooManySnapshots):
            status, headers = http.HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"}
        elif isinstance(error, QueryStopped):
            status = http.HTTPStatus.GATEWAY_TIMEOUT
    elif isinstance(error, RequestValidationError):
        status, code = http.HTTPStatus.UNPROCESSABLE_ENTITY, 2
        words = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
    elif isinstance(error, HTTPException):
        status, words, headers = http.HTTPStatus(error.status_code), error.detail, dict(error.headers or {})
        code = 2 if status in _OF_THE_QUESTION else code
    return _refusal(status, words, code, headers, _note(error))


def _refusal(
    status: int,
    words: str,
    code: int = StoreError.exit_code,
    headers: dict[str, str] | None = None,
    further: dict[str, str] | None = None,
) -> JSONResponse:
    words = words.encode(errors="backslashreplace").decode()  # half a character, which JSON can hold, is no text
    return JSONResponse({"error": words, "exit_code": code, **(further or {})}, status, headers)


class _Guard:
    """Access control: refuses requests with a wrong host name, origin or token, and passes all others to `app`."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._bearer = f"Bearer {token}".encode()
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost", "[::1]")}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _refusal(http.HTTPStatus.MISDIRECTED_REQUEST, "this address answers to its loopback name only")
        if any(origin.lower() not in self._origins for origin in headers.get(b"origin", [])):
            return _refusal(http.HTTPStatus.FORBIDDEN, "web pages of other origins may not ask here")
        if scope["path"] == _OPEN:
            return None
        tokens = headers.get(b"authorization", [])
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self._bearer):
            return _refusal(
                http.HTTPStatus.UNAUTHORIZED,
                "the token is missing or not this owner's; it is in the file <database>.token",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None


class _QuestionsOnly:
    """Refuses every request with access rights, except for a question or a snapshot: all other routes act, or show the
    whole ledger."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._paths = {f"/v1/{name}" for name in QUESTIONS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        restricted = any(name.lower() == ACCESS.encode() for name, _ in scope["headers"])
        path = scope["path"]
        allowed = path in self._paths or path == "/v1/snapshots" or path.startswith("/v1/snapshots/")
        if restricted and not allowed:
            refusal = _refusal(http.HTTPStatus.FORBIDDEN, "with access rights, only questions can be asked")
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


class _Bounded:
    """Limits how many requests `app` serves at once; further ones get status 503. A client that receives no data for
    `_SEND_S` is disconnected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in (_OPEN, "/metrics"):
            await self._app(scope, receive, send)
            return
        if self._in_flight >= _IN_FLIGHT:
            busy = _refusal(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                "too many questions at once; ask again",
                headers={"Retry-After": "1"},
            )
            await busy(scope, receive, send)
            return
        with self._counted():
            await self._app(scope, receive, _patient(send))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1


def _patient(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def within(message: Message) -> None:
        await asyncio.wait_for(send(message), _SEND_S)

    return within
