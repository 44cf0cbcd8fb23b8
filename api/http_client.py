"""The client of the service for programs that ask: questions, whether a coupon can be used, and the live feed.

    with Client("https://coupons.example.com", token="cl_…") as client:
        client.usable("c-1", order="o-7")["usable"]
        client.ask("metrics", names=["uses"]).rows
        for event in client.live():
            print(event.kind, event.data)

docs/http-api.md explains the API. Needs nothing beyond the base installation; `table` needs pyarrow.
"""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import quote, urlencode

from coupon_ledger.ledger.errors import LedgerError, ServiceUnavailable, SettingsError
from coupon_ledger.ledger.extras import is_missing, missing
from coupon_ledger.ledger.http_service import TIMEOUT_S, Reply, Service

if TYPE_CHECKING:
    import pyarrow as pa

SILENCE_S: Final = 45.0
"""The feed says something at least every 15 s. If nothing comes for this long, the connection is lost."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 10.0
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}
_ARROW: Final = {"Content-Type": "application/json", "Accept": "application/vnd.apache.arrow.stream"}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """All rows of an answer, and the committed state that it is of (`commits`, `committed_at`, `data_clock`,
    `positions`). Values are as in JSON: instants are text in RFC 3339, amounts are integers in minor units."""

    as_of: Row
    rows: list[Row]


class LiveEvent(NamedTuple):
    """An event of the live feed. `kind`: `commit`, `alert` or `away`. `id`: for `live(since=…)`; empty for `away`."""

    kind: str
    id: str
    data: Row


class Client:
    """Asks the service at an address. For one thread at a time.

    All methods raise `SettingsError` if the address, the token or the certificate is wrong, `ServiceRefused` with the
    reason and the HTTP status if the service refuses the request, and `ServiceUnavailable` if it cannot answer for
    `timeout_s`.
    """

    def __init__(self, url: str, *, token: str, ca_file: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """`url`, `token`, `ca_file`, `timeout_s`: as in `http_service.Service`."""
        self._service = Service(url, token, ca_file, timeout_s)
        self._timeout_s = timeout_s

    def ask(self, question: str, *, wait_for: str = "", page_size: int = 1_000, **parameters: Any) -> Answer:
        """The whole answer to a question of docs/questions.md, page by page, of one state.

        `parameters`: those of the question, as Python values. `wait_for`: `Publisher.wait_for`, or `wait_for` from the
        answer to a publishing request; the question is asked once the service has read up to there.
        """
        pages = self.pages(question, wait_for=wait_for, page_size=page_size, **parameters)
        first = next(pages)
        return Answer(first.as_of, [*first.rows, *(row for page in pages for row in page.rows)])

    def pages(
        self, question: str, *, wait_for: str = "", page_size: int = 1_000, **parameters: Any
    ) -> Iterator[Answer]:
        """As `ask`, but one page after the other, for answers that are too large for the memory. All pages are of one
        state; fetch the next one within a few minutes."""
        address = f"{_path(question)}?page_size={page_size}"
        body = _body(parameters)
        reply = self._service.request("POST", address, body, _JSON | _waiting(wait_for))
        while True:
            page = self._object(reply)
            yield Answer(page["as_of"], page["rows"])
            if page["next"] is None:
                return
            following = f"{_path(question)}?{urlencode({'cursor': page['next']})}"
            reply = self._service.request("GET", following, headers=_JSON)

    def table(self, question: str, *, wait_for: str = "", **parameters: Any) -> pa.Table:
        """The whole answer as an Arrow table, with the types of its columns. Needs pyarrow."""
        try:
            import pyarrow as pa
        except ModuleNotFoundError as error:
            raise (missing("pyarrow", "Client.table") if is_missing(error) else error) from None
        reply = self._service.request("POST", _path(question), _body(parameters), _ARROW | _waiting(wait_for))
        try:
            with pa.ipc.open_stream(reply.body) as stream:
                return stream.read_all()
        except pa.ArrowInvalid as error:
            raise ServiceUnavailable(f"service {self._service.url}: its answer was cut off; ask again") from error

    def usable(
        self,
        coupon: str,
        *,
        order: str | None = None,
        user: str | None = None,
        gross_minor: int | None = None,
        at: datetime | None = None,
        wait_for: str = "",
    ) -> Row:
        """Whether the coupon can be used: `usable`, and if not, `reasons` (codes) and `detail` (a sentence).

        `order`: the order on which it would be used. `user`: who would use it; by default the order's user.
        `gross_minor`: the order's list price in minor units, by default as the ledger knows it. `at`: when it would be
        used, by default now. Nothing is reserved by asking.
        """
        given = {"order": order, "user": user, "gross_minor": gross_minor, "at": at and at.isoformat()}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        path = f"/v1/coupons/{quote(coupon, safe='')}/usable"
        return self._object(
            self._service.request("GET", f"{path}?{query}" if query else path, headers=_waiting(wait_for))
        )

    def live(self, since: str = "") -> Generator[LiveEvent]:
        """Commits and events of alerts as they happen, without end. A lost connection is opened again and resumes after
        the last event.

        `since`: the `id` of the last event that was read, to continue where an earlier program stopped: the events of
        alerts since then come first. Raises `ServiceUnavailable` if no connection succeeds for `timeout_s`.
        """
        last, pause_s = since, _FIRST_PAUSE_S
        lost_at: float | None = None
        while True:
            try:
                with self._service.opened("/v1/live", _following(last), SILENCE_S) as response:
                    lost_at = None
                    for event in _events(response):
                        last, pause_s = event.id or last, _FIRST_PAUSE_S
                        yield event
                why = "it ended"
            except (OSError, http.client.HTTPException, ServiceUnavailable) as error:
                why = str(error) or type(error).__name__
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > self._timeout_s:
                raise ServiceUnavailable(f"service {self._service.url}: the feed is lost ({why}); follow it again")
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _object(self, reply: Reply) -> Row:
        data = reply.json
        if not isinstance(data, dict):
            raise SettingsError(
                f"service {self._service.url}: does not answer as coupon-ledger does; check the address"
            )
        return data

    def close(self) -> None:
        self._service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _events(lines: Iterable[bytes]) -> Iterator[LiveEvent]:
    """The events in a stream of server-sent events. An event that is cut off is left out."""
    fields: dict[str, str] = {}
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text and "data" in fields:
            yield LiveEvent(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]))
        if not text:
            fields = {}
            continue
        name, _, value = text.partition(":")
        fields[name] = value.removeprefix(" ")


def _path(question: str) -> str:
    return f"/v1/questions/{quote(question, safe='')}"


def _following(last: str) -> dict[str, str]:
    return {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}


def _waiting(wait_for: str) -> dict[str, str]:
    return {"Wait-For": wait_for} if wait_for else {}


def _body(parameters: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(parameters, default=_text).encode()
    except (TypeError, ValueError) as error:
        raise LedgerError(f"parameters: {error}; give values that JSON has, dates or instants") from None


def _text(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is no value of a parameter")
