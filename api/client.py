"""Finds who answers questions about a database. If a process owns the database, that owner answers them over HTTP.
Otherwise this process opens the database and answers them itself. The questions and answers are the same either way.

This module does not import the web framework, so the command line works without it.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import polars as pl
import pyarrow as pa

from coupon_ledger.api.contact import ACCESS, ARROW, FOLLOWED, INTERFACE, LIMIT, SNAPSHOT, read_token
from coupon_ledger.ledger.errors import (
    LedgerError,
    OwnerGone,
    OwnerRefused,
    StoreError,
    StoreNotInitialised,
    StoreOwned,
    StoreVersionMismatch,
)
from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.ledger.words import Note
from coupon_ledger.projections.backup import Copied
from coupon_ledger.projections.connection import frames_of
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.ownership import owner
from coupon_ledger.questions.access.access import Access
from coupon_ledger.questions.local import Local
from coupon_ledger.questions.registry import QUESTIONS, Answer, AsOf, Source

_PATIENCE_S: Final = 10.0
_AGAIN_S: Final = 0.05
SNAPSHOT_PATIENCE_S: Final = 120.0
"""How long to wait for a free snapshot."""
_SWEEP_S: Final = 330.0
_REPAIR_S: Final = 630.0
"""Timeouts for a sweep, and for a repair or a swap. They are longer than the owner's own limits."""
_SILENT_S: Final = 20.0
"""The owner's feed counts as broken if no line comes for so long. Longer than `api.feed.ALIVE_S`."""
_ANSWER_S: Final = 30.0
"""Added to the owner's limit for a question, since the question may have to wait its turn."""


def _error(refusal: Mapping[str, Any], status: int | None = None) -> OwnerRefused:
    message = Note.loads(refusal["note"]) if "note" in refusal else refusal["error"]
    return OwnerRefused(message, refusal["exit_code"], status)


@contextmanager
def asking(
    database: Path,
    progress: Progress | None = None,
    limit_s: float | None = None,
    access: Access = Access.FULL,
) -> Iterator[Source]:
    """Within the block, a source answers questions about this database. `progress` is called while the past is folded.
    `limit_s`: the time limit of a question that the owner answers; None for the question's usual limit. `access`: what
    the caller may ask and see.

    If the owner is stopping or has just started, waits a few seconds. Raises `StoreOwned` if the owner answers no
    questions, and the errors of `open_database`.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            store = open_database(database, read_only=True)
        except StoreOwned as owned:
            remote = _remote(database, owned, progress, limit_s, access)
            if remote is not None:
                yield remote
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
        else:
            with store, closing(Local(store, progress or ignore, access)) as local:
                yield local
            return


def owner_of(database: Path) -> Remote | None:
    """The `Remote` for the process that owns the database. None if no process owns the database, or there is no
    database."""
    try:
        with asking(database) as source:
            return source if isinstance(source, Remote) else None
    except (StoreNotInitialised, StoreVersionMismatch):
        return None


def _remote(
    database: Path, owned: StoreOwned, progress: Progress | None, limit_s: float | None, access: Access
) -> Remote | None:
    """The `Remote` for the owner. None if the owner does not answer yet. Raises `StoreOwned` if the owner will not
    answer: it has no endpoint, or is another version of coupon-ledger. `owned`: the error with which opening the
    database failed."""
    announced = owner(database)
    if announced.get("pid") != owned.pid or "interface" not in announced:
        # The file is from an earlier owner, or the owner has only just opened the database.
        return None
    who = str(owned).partition("; ")[0]
    if announced["interface"] is None:
        because = announced.get("because")
        raise StoreOwned(f"{who}; it answers no questions ({because}); wait for it or stop it") from owned
    if announced["interface"] != INTERFACE:
        raise StoreOwned(
            f"{who}; it is another version of coupon-ledger ({announced.get('release')}); use that one, or restart it"
            " with this one"
        ) from owned
    remote = Remote(announced["url"], database, progress, limit_s, access=access)
    return remote if remote.answers() else None


class Remote:
    """A source whose questions are answered by the process that owns the database."""

    def __init__(
        self,
        url: str,
        database: Path,
        progress: Progress | None = None,
        limit_s: float | None = None,
        snapshot: str | None = None,
        access: Access = Access.FULL,
    ) -> None:
        """`progress`, `limit_s`, `access`: as in `asking`. `snapshot`: the name of the owner's snapshot from which
        questions are answered; None for the last committed state."""
        self._snapshot = snapshot
        self._access = access
        self._address = urlsplit(url).netloc
        self._database = database
        self._progress = progress
        self._limit_s = limit_s

    @contextmanager
    def snapshot(self) -> Iterator[Source]:
        """Within the block, a source answers all questions from one committed state, which the owner holds until the
        block ends. Raises `OwnerRefused`, `OwnerGone`."""
        held = self._held()
        same = Remote(f"//{self._address}", self._database, self._progress, self._limit_s, held, self._access)
        try:
            yield same
        finally:
            with suppress(OSError, http.client.HTTPException, LedgerError):
                self._get(f"/v1/snapshots/{held}", _ANSWER_S, "DELETE").read()

    def _held(self) -> str:
        """Have the owner hold a snapshot, and return the snapshot's name. The owner holds only a few at once, so the
        request is repeated until one is free, for `SNAPSHOT_PATIENCE_S` at most."""
        deadline = time.monotonic() + SNAPSHOT_PATIENCE_S
        while True:
            try:
                response = self._get("/v1/snapshots", _ANSWER_S, "POST")
                if response.status == http.HTTPStatus.OK:
                    return str(json.loads(response.read())["snapshot"])
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise self._gone(error) from error
            if response.status != http.HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise self._refusal(response)
            response.read()
            time.sleep(float(response.headers.get("Retry-After", 1)))

    def restricted(self, access: Access, limit_s: float | None = None) -> Remote:
        """The same owner, asked with these rights. `limit_s`: as in `asking`."""
        return Remote(f"//{self._address}", self._database, self._progress, limit_s, self._snapshot, access)

    def answers(self) -> bool:
        try:
            return self._get("/v1/health", 2.0).status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def ask(self, question: str, **parameters: Any) -> Answer:
        """Send a question to the owner and return the answer. Raises `WrongQuestion`, `OwnerRefused`, `OwnerGone`."""
        entry = QUESTIONS[question]
        checked = entry.read(question, parameters)
        body = entry.as_json(checked)
        headers = {"Content-Type": "application/json"}
        if self._limit_s:
            headers[LIMIT] = f"{self._limit_s:g}"
        limit_s = self._limit_s or entry.limit_for(checked)
        if self._progress is not None:
            headers[FOLLOWED] = "lines"
        if self._snapshot is not None:
            headers[SNAPSHOT] = self._snapshot
        if self._access != Access.FULL:
            headers[ACCESS] = self._access.dumps()
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                response = self._get(f"/v1/{question}", limit_s + _ANSWER_S, "POST", body, headers)
            except (OSError, http.client.HTTPException) as error:
                raise self._gone(error) from error
            if response.status == http.HTTPStatus.OK:
                self._follow(response)
                return self._read(response)
            if response.status != http.HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise self._refusal(response)
            response.read()
            time.sleep(float(response.headers.get("Retry-After", 1)))

    def _follow(self, response: http.client.HTTPResponse) -> None:
        """Read the lines of progress that precede the answer, and report each. Afterwards, the rest of the response is
        the answer."""
        if self._progress is None:
            return
        try:
            while line := response.readline():
                message = json.loads(line)
                if "error" in message:
                    raise _error(message)
                if "answer" in message:
                    return
                self._progress(message["done"], message["total"])
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._gone(error) from error
        raise self._gone(EOFError())

    def follow(self) -> Iterator[dict[str, Any]]:
        """Yields the lines of the owner's feed (`api.feed`): the first at once, then one for each state that was
        committed. Ends when the owner stops. Raises `OwnerRefused`, `OwnerGone`."""
        try:
            response = self._get("/v1/feed", _SILENT_S)
            if response.status != http.HTTPStatus.OK:
                raise self._refusal(response)
            with response:
                while line := response.readline():
                    yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._gone(error) from error

    def expire(self, until: datetime | None) -> dict[str, int]:
        """Have the owner append the expiries and releases of holds that are due at `until` (None: at the data's clock).
        Returns how many events were appended, by reason. Raises `OwnerRefused`, `OwnerGone`."""
        swept: dict[str, int] = self._post("/v1/expire", _SWEEP_S, {"until": until}, "sweep")
        return swept

    def succeed(self, *, back: bool) -> dict[str, Any]:
        """Have the owner replace the live database with the rebuilt one or, if `back`, with the one that was live
        before it. Returns the fields of `Succeeded`.

        Raises `OwnerRefused`, `OwnerGone`.
        """
        done: dict[str, Any] = self._post("/v1/succeed", _REPAIR_S, {"back": back}, "swap")
        return done

    def replay(self, progress: Progress, **parameters: Any) -> list[dict[str, Any]]:
        """Have the owner replay dead letters. `parameters`: the fields of the server's `Repair`. Returns the outcome by
        partition, with the fields of `Replayed`. Raises `OwnerRefused`, `OwnerGone`."""
        done: list[dict[str, Any]] = self._followed(
            "/v1/dead-letters/replay", parameters, "replayed", "repair", progress
        )
        return done

    def discard(self, **parameters: Any) -> list[dict[str, Any]]:
        """Have the owner discard dead letters. `parameters`: the fields of the server's `Repair`. Returns their number
        (`records`) by topic, partition and reason. Raises `OwnerRefused`, `OwnerGone`."""
        done: list[dict[str, Any]] = self._post("/v1/dead-letters/discard", _REPAIR_S, parameters, "repair")
        return done

    def _post(self, path: str, timeout_s: float, parameters: Mapping[str, Any], what: str) -> Any:
        try:
            return json.loads(self._posted(path, timeout_s, parameters, what).read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._gone(error) from error

    def _posted(
        self, path: str, timeout_s: float, parameters: Mapping[str, Any], what: str
    ) -> http.client.HTTPResponse:
        query = urlencode({k: _text(v) for k, v in parameters.items() if v is not None})
        response = self._get(f"{path}?{query}" if query else path, timeout_s, "POST")
        if response.status == http.HTTPStatus.NOT_FOUND:
            raise OwnerRefused(
                f"database {self._database}: its owner stops at the end of the log and does not {what}; run again"
                " when it has, or start it with --follow",
                StoreError.exit_code,
            )
        if response.status != http.HTTPStatus.OK:
            raise self._refusal(response)
        return response

    def _followed(self, path: str, parameters: Mapping[str, Any], result: str, what: str, progress: Progress) -> Any:
        """Send a request for a long job, and report each line of progress in the response. Returns the value of the key
        `result` in the last line. `what`: the job, for messages."""
        try:
            for line in self._posted(path, _ANSWER_S, parameters, what):
                message = json.loads(line)
                if "error" in message:
                    raise _error(message)
                if result in message:
                    return message[result]
                progress(message["done"], message["total"])
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._gone(error) from error
        raise self._gone(EOFError())

    def backup(self, to: Path, full: bool, progress: Progress) -> Copied:
        """Have the owner copy the database to the file `to`. `full`: also compute the digest of all tables. Returns
        what the copy is to be checked against. Raises `OwnerRefused`, `OwnerGone`."""
        copied = self._followed("/v1/backup", {"to": to, "full": full}, "copied", "copy", progress)
        return Copied({table: (rows, total) for table, (rows, total) in copied["sums"].items()}, copied["full"])

    def close(self) -> None:
        pass

    def _get(
        self,
        path: str,
        timeout_s: float,
        method: str = "GET",
        body: bytes | None = None,
        more: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._address, timeout=timeout_s)
        headers = {"Accept": ARROW, "Connection": "close", **(more or {})}
        if path != "/v1/health":
            headers["Authorization"] = f"Bearer {read_token(self._database)}"
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def _read(self, response: http.client.HTTPResponse) -> Answer:
        try:
            reader = pa.ipc.open_stream(response)
        except (OSError, pa.ArrowException, http.client.HTTPException) as error:
            raise self._gone(error) from error
        return Answer(_as_of(reader.schema.metadata), self._frames(reader, response))

    def _frames(self, reader: Any, response: http.client.HTTPResponse) -> Iterator[pl.DataFrame]:
        try:
            yield from frames_of(reader)
        except (OSError, pa.ArrowException, http.client.HTTPException) as error:
            raise self._gone(error) from error
        finally:
            response.close()

    def _gone(self, error: Exception) -> OwnerGone:
        return OwnerGone(
            f"database {self._database}: its owner ended before it had answered"
            f" ({type(error).__name__}); run the command again"
        )

    def _refusal(self, response: http.client.HTTPResponse) -> LedgerError:
        try:
            return _error(json.loads(response.read()), response.status)
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
            return OwnerRefused(
                f"database {self._database}: its owner answered with HTTP status {response.status};"
                " restart it with this version of coupon-ledger",
                StoreError.exit_code,
            )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _as_of(metadata: dict[bytes, bytes]) -> AsOf:
    state = json.loads(metadata[b"as_of"])
    instants = {k: datetime.fromisoformat(state[k]) if state[k] else None for k in ("committed_at", "data_clock")}
    return AsOf(state["commits"], instants["committed_at"], instants["data_clock"], state["positions"])
