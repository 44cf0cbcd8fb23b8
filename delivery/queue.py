"""The queue of messages: a SQLite file, so that a message survives whatever becomes of the process.

A message is enqueued once per channel and key, however often it is asked for. It is delivered at least once: after a
crash during an attempt nobody knows whether it arrived, so it is sent again, with the same key. What was sent is
remembered for `REMEMBERED_S`, without its text.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from coupon_ledger.delivery.messages import AlertMessage
from coupon_ledger.delivery.outcome import Outcome
from coupon_ledger.ledger.errors import QueueUnusable
from coupon_ledger.projections.alerts.rules import SEVERITIES

REMEMBERED_S: Final = 30 * 86_400.0
GIVEN_UP_AFTER_S: Final = 24 * 3_600.0
"""A message that could not be delivered for so long is given up. Its alert is still there."""
MOST_REFUSALS: Final = 3
"""A message that its destination refuses so often is given up: the destination may have been wrong about one."""
DEAD_AFTER: Final = 5
"""A channel is dead after so many failures in a row."""
_BUSY_S: Final = 10.0
_VERSION: Final = 1
_COUNTS: Final = """
SELECT channel,
    count(*) FILTER (WHERE settled IS NULL),
    count(*) FILTER (WHERE state = 'sent'),
    count(*) FILTER (WHERE state = 'given_up'),
    min(enqueued) FILTER (WHERE settled IS NULL)
FROM messages
GROUP BY channel
"""

State = Literal["waiting", "sending", "sent", "given_up"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that is being sent. `attempt`: 1 at first. `delivered`: recipients who got it already."""

    id: int
    message: AlertMessage
    attempt: int
    delivered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Followed:
    """A message that whoever enqueued it follows. `about`: what they said of it; `states`: by channel."""

    key: str
    about: str
    states: dict[str, State]


@dataclass(frozen=True, slots=True)
class ChannelState:
    """How a channel fares. `waiting`, `sent`, `given_up`: numbers of messages (those sent and given up, of the last 30
    days). `oldest`: when the one that waits longest was enqueued; `since`: when the first of the failures in a row was;
    `rests_until`: no attempt before then; all in seconds since 1970. `error`: the last failure, without secrets."""

    name: str
    waiting: int = 0
    sent: int = 0
    given_up: int = 0
    oldest: float | None = None
    failures: int = 0
    since: float | None = None
    error: str | None = None
    rests_until: float = 0.0
    dead: bool = False


class MessageQueue:
    """The queue in the file at `path`, which is made if it is not there, for its owner's eyes only. May be used by
    several threads, and by several processes; only one may deliver (`Deliverer`)."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._per_thread = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        with self._errors():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = self._connection()
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(files(__package__).joinpath("queue.sql").read_text(encoding="utf-8"))
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    def enqueue(self, message: AlertMessage, channels: Iterable[str], *, now: float | None = None) -> int:
        """Put a message into the queue for these channels; those that have it already do not get it again. Returns for
        how many it is new. It is on the disk when this returns. Raises `QueueUnusable`."""
        return self.enqueue_all([(message, channels)], now=now)

    def enqueue_all(
        self,
        messages: Iterable[tuple[AlertMessage, Iterable[str]]],
        *,
        about: Mapping[str, str] = MappingProxyType({}),
        now: float | None = None,
    ) -> int:
        """Enqueue several messages, each for its channels: all or none of them. `about`: by key, what the messages to
        be `followed` are about."""
        at = time.time() if now is None else now
        rows = [
            (m.key, channel, SEVERITIES.index(m.severity), _dumped(m), about.get(m.key), at, at)
            for m, channels in messages
            for channel in channels
        ]
        with self._writing() as connection:
            before = connection.total_changes
            connection.executemany(
                "INSERT INTO messages (key, channel, severity, body, about, enqueued, due) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                rows,
            )
            return connection.total_changes - before

    def followed(self) -> list[Followed]:
        """The messages that were enqueued to be followed and are not forgotten, in the order in which they were."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, channel, state, about FROM messages WHERE about IS NOT NULL ORDER BY id"
            ).fetchall()
        found: dict[str, Followed] = {}
        for key, channel, state_, about in rows:
            found.setdefault(key, Followed(key, about, {})).states[channel] = state_
        return list(found.values())

    def forget(self, keys: Iterable[str]) -> None:
        """Follow these messages no more. They are not enqueued again all the same."""
        with self._writing() as connection:
            connection.executemany("UPDATE messages SET about = NULL WHERE key = ?", [(key,) for key in keys])

    # ── For the one that delivers ────────────────────────────────────────────────────────────────────────────

    def recover(self, *, now: float) -> None:
        """After a crash: what was being sent waits again. What was settled long ago is forgotten."""
        with self._writing() as connection:
            connection.execute("UPDATE messages SET state = 'waiting' WHERE state = 'sending'")
            connection.execute("DELETE FROM messages WHERE settled < ?", (now - REMEMBERED_S,))

    def give_up_old(self, *, now: float) -> int:
        """Give up the messages that have waited too long, also those of channels that are no longer there. Returns how
        many."""
        with self._writing() as connection:
            cursor = connection.execute(
                "UPDATE messages SET state = 'given_up', settled = ?, body = NULL,"
                " error = coalesce(error, 'its channel is not there') WHERE state = 'waiting' AND enqueued < ?",
                (now, now - GIVEN_UP_AFTER_S),
            )
            return cursor.rowcount

    def claim(self, channel: str, *, now: float) -> Claimed | None:
        """The next message to send to a channel, the most severe first. It is `sending` from then on. None if none is
        due."""
        with self._writing() as connection:
            row = connection.execute(
                "SELECT id, body, attempts, delivered FROM messages"
                " WHERE channel = ? AND state = 'waiting' AND due <= ? ORDER BY severity, id LIMIT 1",
                (channel, now),
            ).fetchone()
            if row is None:
                return None
            number, body, attempts, delivered = row
            connection.execute(
                "UPDATE messages SET state = 'sending', attempts = attempts + 1, attempted = ? WHERE id = ?",
                (now, number),
            )
        return Claimed(number, AlertMessage.from_json(json.loads(body)), attempts + 1, tuple(json.loads(delivered)))

    def hold(self, claimed: Claimed, until: float) -> None:
        """Put a claimed message back, not to be sent before `until`; this was no attempt."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE messages SET state = 'waiting', due = ?, attempts = attempts - 1 WHERE id = ?",
                (until, claimed.id),
            )

    def settle(self, claimed: Claimed, outcome: Outcome, *, now: float, again: float) -> State:
        """Record the outcome of an attempt; `again`: when to try next, if it was none. Returns the message's state."""
        with self._writing() as connection:
            if outcome.result == "sent":
                connection.execute(
                    "UPDATE messages SET state = 'sent', settled = ?, body = NULL, error = ? WHERE id = ?",
                    (now, outcome.reason or None, claimed.id),
                )
                return "sent"
            refused = outcome.result == "refused"
            [refusals] = connection.execute(
                "UPDATE messages SET state = 'waiting', due = ?, refusals = refusals + ?, error = ?, delivered = ?"
                " WHERE id = ? RETURNING refusals",
                (again, refused, outcome.reason, json.dumps(outcome.delivered or claimed.delivered), claimed.id),
            ).fetchone()
            if refusals < MOST_REFUSALS:
                return "waiting"
            connection.execute(
                "UPDATE messages SET state = 'given_up', settled = ?, body = NULL WHERE id = ?", (now, claimed.id)
            )
            return "given_up"

    def succeeded(self, channel: str) -> None:
        """The channel works."""
        with self._writing() as connection:
            connection.execute("DELETE FROM channels WHERE name = ?", (channel,))

    def failed(self, channel: str, error: str, *, now: float, rests_until: float) -> ChannelState:
        """An attempt failed, and none is to be made before `rests_until`. Returns how the channel fares."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO channels (name, failures, since, error, rests_until) VALUES (?, 1, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET failures = failures + 1, error = excluded.error,"
                " rests_until = excluded.rests_until",
                (channel, now, error, rests_until),
            )
        return self.channel(channel)

    def try_again(self, channel: str) -> None:
        """Let the channel and what waits for it rest no longer."""
        with self._writing() as connection:
            connection.execute("UPDATE channels SET rests_until = 0 WHERE name = ?", (channel,))
            connection.execute("UPDATE messages SET due = 0 WHERE channel = ? AND state = 'waiting'", (channel,))

    def reported_dead(self, channel: str) -> None:
        """It was said that the channel is dead; it need not be said again."""
        with self._writing() as connection:
            connection.execute("UPDATE channels SET dead = 1 WHERE name = ?", (channel,))

    def next_due(self, channel: str) -> float | None:
        """When the next message of a channel is due; None if none waits."""
        with self._reading() as connection:
            [due] = connection.execute(
                "SELECT min(due) FROM messages WHERE channel = ? AND state = 'waiting'", (channel,)
            ).fetchone()
        return None if due is None else float(due)

    def attempts_since(self, channel: str, since: float) -> list[float]:
        """When messages of the channel were last tried, since then, in order."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT attempted FROM messages WHERE channel = ? AND attempted > ? ORDER BY attempted",
                (channel, since),
            ).fetchall()
        return [float(attempted) for (attempted,) in rows]

    # ── How it fares ─────────────────────────────────────────────────────────────────────────────────────────

    def channel(self, name: str) -> ChannelState:
        """How one channel fares."""
        return self.channels().get(name, ChannelState(name))

    def channels(self) -> dict[str, ChannelState]:
        """How all channels fare that have failures or messages."""
        with self._reading() as connection:
            counted = connection.execute(_COUNTS).fetchall()
            health = {
                name: rest
                for name, *rest in connection.execute(
                    "SELECT name, failures, since, error, rests_until, dead FROM channels"
                )
            }
        counts = {name: rest for name, *rest in counted}
        states = {}
        for name in sorted({*counts, *health}):
            waiting, sent, given_up, oldest = counts.get(name, (0, 0, 0, None))
            failures, since, error, rests_until, dead = health.get(name, (0, None, None, 0.0, 0))
            states[name] = ChannelState(
                name, waiting, sent, given_up, oldest, failures, since, error, rests_until, bool(dead)
            )
        return states

    def state_of(self, key: str, channel: str) -> State | None:
        """The state of a message; None if there is none of this key."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT state FROM messages WHERE key = ? AND channel = ?", (key, channel)
            ).fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    # ── SQLite ───────────────────────────────────────────────────────────────────────────────────────────────

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._per_thread, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self.path,
                timeout=_BUSY_S,
                isolation_level=None,
                check_same_thread=False,  # only so that `close` can close the connections of other threads
            )
            connection.execute("PRAGMA synchronous = FULL")
            self._per_thread.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            yield self._connection()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise QueueUnusable(
                f"queue of messages {self.path}: {error}; check the file, its permissions and the room on its disk"
            ) from error


def _dumped(message: AlertMessage) -> str:
    return json.dumps(message.as_json(), ensure_ascii=False)


def state(queue: MessageQueue) -> list[ChannelState]:
    """How all channels fare, for people and for metrics, in the order of their names."""
    return list(queue.channels().values())
