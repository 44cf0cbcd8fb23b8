"""The API with which upstream systems publish events: it validates, encodes and appends them, and reports the refused
ones.

    with Publisher.open("kafka://localhost:9092") as publisher:
        publisher.publish(events.Used(event_id="e-1", ...))
    # leaving the block flushes; publisher.report says what was refused

docs/publishing.md says when events are durable, and how to react to each error.

Always true:
- Every event that `publish` accepted is in exactly one place. Until it is durable, its id is in `waiting`; then it is
  counted in `report.accepted`. If the log will never take it, it is listed in `report.refused`.
- Every accepted event is appended at least once. If an append fails or times out, it is repeated with the same
  `event_id`. If the event is then in the log twice, the ledger counts the second copy as a repeat and folds the event
  once.
- If an exception leaves the `with` block, the publisher is closed and does not append the waiting events.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from coupon_ledger.ledger.errors import (
    AppendFailed,
    EventsRefused,
    EventsTooLarge,
    InvalidEvent,
    LogClosed,
    LogUnavailable,
    Problem,
    SettingsError,
)
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import OPTIONS, LogSettings, Settings

if TYPE_CHECKING:
    from coupon_ledger.ledger.events import Event

_FIRST_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was not appended. `number`: how many events were passed to `publish` before it. `problems`: every
    rule that the event breaks."""

    number: int
    event_id: str | None
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class Report:
    """What was published so far. `accepted`: the number of events that are durable in the log. `refused`: the events
    that are not in the log and never will be."""

    accepted: int = 0
    refused: list[Refused] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.refused


class _Waiting(NamedTuple):
    number: int
    event_id: str
    record: Record


class Publisher:
    """Appends events to a log in batches. Only one thread at a time may use it."""

    def __init__(self, log: EventLog, *, batch_size: int = 10_000, attempts: int = 5) -> None:
        # Loaded with the first publisher, not with this module: building the models of all events takes longer than
        # everything else that importing `Publisher` loads.
        from coupon_ledger.ledger.codec import encode
        from coupon_ledger.ledger.events import Event, parse_with_topic

        self._event_class, self._parse, self._encode = Event, parse_with_topic, encode
        self._log = log
        self._batch_size = batch_size
        self._attempts = attempts
        self._waiting: list[_Waiting] = []
        self._published = 0
        self._refused: list[Refused] = []
        """Events that the log refused, and that no `EventsRefused` has named yet."""
        self._all_too_large = True
        self._after: dict[tuple[str, int], int] = {}
        self._closed = False
        self.report = Report()

    @classmethod
    def open(cls, log: str, *, batch_size: int = 10_000, attempts: int = 5, **settings: Any) -> Self:
        """Open a publisher to the log at the address `log`. `batch_size`: the number of waiting events at which
        `publish` flushes. `attempts`: how often an append is tried. `settings`: other fields of `LogSettings`."""
        return cls(open_log(LogSettings(url=log, **settings)), batch_size=batch_size, attempts=attempts)

    @classmethod
    def from_settings(
        cls, file: Path | str | None = None, *, batch_size: int = 10_000, attempts: int = 5, **settings: Any
    ) -> Self:
        """Open a publisher to the log that the commands use.

        The log and its options come from the settings file and from environment variables (`COUPON_LEDGER_LOG`, …), as
        for `coupon-ledger publish`. `file`: the settings file. If None: the file that `COUPON_LEDGER_CONFIG` names,
        otherwise `coupon-ledger.toml` in the working folder. `batch_size`, `attempts`: as in `open`. `settings`:
        options such as `log=` and `topic_prefix=`; they override the file and the variables. Raises `SettingsError`.
        """
        known = {option.name for option in OPTIONS}
        flags = {name.replace("_", "-"): value for name, value in settings.items()}
        if unknown := [name for name in settings if name.replace("_", "-") not in known]:
            raise SettingsError(f"setting {unknown[0]}: unknown; known are {', '.join(sorted(known))}")
        loaded = Settings.load(flags, file=None if file is None else Path(file))
        return cls(open_log(loaded.log), batch_size=batch_size, attempts=attempts)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The `event_id` of every accepted event that is not known to be in the log yet, in the order of publishing."""
        return tuple(event_id for _, event_id, _ in self._waiting)

    @property
    def wait_for(self) -> str:
        """The positions after the events of complete batches, for `Client`: a question that is asked with it sees them.
        Empty if there are none. Positions of a batch of which some events failed are left out."""
        return ",".join(f"{topic}:{partition}:{at}" for (topic, partition), at in sorted(self._after.items()))

    def publish(self, event: Event | Mapping[str, Any]) -> bool:
        """Accept or refuse an event. `event`: an event model, or a mapping with its data and its `topic`. Returns
        whether the event was accepted; `report` says why it was not.

        An accepted event is durable after the next `flush`. If the batch is now full, it is flushed at once, and the
        errors of `flush` are raised. Raises `LogClosed` after `close`.
        """
        self._check_open()
        number, self._published = self._published, self._published + 1
        try:
            parsed = event if isinstance(event, self._event_class) else self._parse(event)
        except InvalidEvent as error:
            event_id = event.get("event_id") if isinstance(event, Mapping) else None
            name = event_id if isinstance(event_id, str) else None
            self.report.refused.append(Refused(number, name, error.problems))
            return False
        record = Record(parsed.topic, parsed.key.encode(), self._encode(parsed))
        self._waiting.append(_Waiting(number, parsed.event_id, record))
        if len(self._waiting) >= self._batch_size:
            self.flush()
        return True

    def flush(self) -> None:
        """Append the waiting events durably. A failed append is repeated with growing pauses.

        Raises `EventsRefused` (`EventsTooLarge` if that is the reason) if the log will never take some of the events.
        All other events are then in the log, and the refused ones have moved from `waiting` to `report.refused`. Raises
        `AppendFailed` or another `LogError` if the last attempt fails. `waiting` then has the ids of the events that
        are not in the log; the next `flush` tries them again. Raises `LogClosed` after `close`.
        """
        self._check_open()
        pause = _FIRST_PAUSE_S
        attempt = 1
        while self._waiting:
            try:
                self._append()
            except LogClosed:
                raise
            except AppendFailed as error:
                if error.permanent:
                    continue  # these no longer wait, so append the others at once
                self._raise_at_last(error, attempt)
            except LogUnavailable as error:
                self._raise_at_last(error, attempt)
            else:
                break
            attempt += 1
            time.sleep(pause)
            pause *= 2
        if self._refused:
            refused, self._refused = tuple(self._refused), []
            kind = EventsTooLarge if self._all_too_large else EventsRefused
            self._all_too_large = True
            raise kind(_in_words(self._log.url, refused), tuple(r.event_id or "" for r in refused))

    def _raise_at_last(self, error: AppendFailed | LogUnavailable, attempt: int) -> None:
        if attempt >= self._attempts:
            # The message is complete; the client's own frames and causes would put forty lines before it.
            raise error.with_traceback(None) from None

    def _append(self) -> None:
        try:
            positions = self._log.append([record for _, _, record in self._waiting])
        except AppendFailed as error:
            for index, problems in sorted(error.permanent.items()):
                number, event_id, record = self._waiting[index]
                refused = Refused(number, event_id, tuple(_of_topic(record.topic, p) for p in problems))
                self.report.refused.append(refused)
                self._refused.append(refused)
            self._all_too_large = self._all_too_large and not error.refused
            self.report.accepted += len(self._waiting) - len(error.failures)
            self._waiting = [self._waiting[i] for i in sorted(error.failures) if i not in error.permanent]
            raise
        for topic, partition, offset in positions:
            self._after[topic, partition] = offset + 1
        self.report.accepted += len(self._waiting)
        self._waiting = []

    def close(self) -> None:
        """Flush, then close the log. The log is closed even if the flush fails; `waiting` then has the ids of the
        events that were not appended. If the publisher is already closed, nothing happens."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._close_log()

    def _close_log(self) -> None:
        self._closed = True
        self._log.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosed(f"publisher to {self._log.url}: closed; open another one, and publish again what waited")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        elif not self._closed:
            self._close_log()


def _of_topic(topic: str, problem: Problem) -> Problem:
    return problem if problem.field else Problem("", f"{topic}: {problem.rule}")


def _in_words(url: str, refused: tuple[Refused, ...]) -> str:
    """The message of an `EventsRefused` error. It names the first three refused events, each with its problem, and how
    many more there are."""
    named = "; ".join(_named(r.event_id, r.problems[0]) for r in refused[:3])
    more = f"; and {len(refused) - 3} more (`publisher.report.refused`)" if len(refused) > 3 else ""
    return f"log {url}: {named}{more}. Do not publish the same again; all other events of the batch are in the log"


def _named(event_id: str | None, problem: Problem) -> str:
    return f"event {event_id}{': ' if problem.field else ' of '}{problem}"
