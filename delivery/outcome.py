"""What became of one attempt to send a message, and how answers over HTTP are judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

MOST_WAIT_S: Final = 3600.0
"""However long a server asks to wait, the next attempt comes after this many seconds at most."""
_REFUSED: Final = frozenset({400, 413, 415, 422})
"""Statuses that are about the message itself: the same message will be refused again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt.

    `result`: `sent`; `failed`, if the destination cannot be reached or does not accept messages now; `refused`, if it
    does not accept this message. `reason`: why not, in a few words. `retry_after_s`: how long the destination asks to
    wait. `delivered`: recipients who got the message although the attempt failed for others. `answer`: what a
    destination that accepted the message answered, if it says anything.
    """

    result: Literal["sent", "failed", "refused"]
    reason: str = ""
    retry_after_s: float | None = None
    delivered: tuple[str, ...] = ()
    answer: str = ""


SENT: Final = Outcome("sent")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer over HTTP. `headers`: with names in lower case."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


Judge = Callable[[Response], Outcome]


def by_status(response: Response) -> Outcome:
    """The outcome that follows from the status of the answer alone."""
    if 200 <= response.status < 300:
        return Outcome("sent", answer=f"HTTP status {response.status}")
    reason = f"HTTP status {response.status}"
    if response.status in _REFUSED:
        return Outcome("refused", reason)
    return Outcome("failed", reason, retry_after(response.headers.get("retry-after")))


def by_code(name: str, *, limited: frozenset[int], refused: frozenset[int], wait_s: float = 60.0) -> Judge:
    """A judge of services that answer errors with status 200 and a code in the JSON body.

    `name`: the field with the code; 0 means success. `limited`: codes for too many messages, after which to wait
    `wait_s` seconds. `refused`: codes that are about the message itself.
    """

    def judge(response: Response) -> Outcome:
        outcome = by_status(response)
        code = response.json().get(name)
        if outcome.result != "sent":
            return outcome
        if code == 0:
            return replace(outcome, answer=f"{outcome.answer}, {name} 0")
        if code is None:
            return Outcome("failed", f"the answer has no {name}: not the service that was expected")
        text = response.json().get("errmsg") or response.json().get("msg") or ""
        reason = f"{name} {code}: {text}"
        if code in limited:
            return Outcome("failed", reason, wait_s)
        return Outcome("refused" if code in refused else "failed", reason)

    return judge


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """The seconds that a `Retry-After` header asks to wait, `MOST_WAIT_S` at most. None without a readable header.
    `now`: the present, for headers with a date; by default the clock's."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        until = until.replace(tzinfo=UTC) if until.tzinfo is None else until
        seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), MOST_WAIT_S) if seconds == seconds else None
