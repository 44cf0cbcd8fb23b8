"""What people do with alerts: the one place through which commands and the HTTP API do it.

A desk knows the alerts as the log tells of them. It decides which events follow from what somebody does, and appends
them. What others did at the same moment is known afterwards: the order in the log decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_events import AlertEvent, read, record_of
from coupon_ledger.ledger.alert_state import Alert, evolve
from coupon_ledger.ledger.errors import CommandRefused
from coupon_ledger.ledger.events import MAX_ID_CHARS, MAX_TEXT_CHARS
from coupon_ledger.ledger.words import Note
from coupon_ledger.questions.alerts.lives import id_of

if TYPE_CHECKING:
    from coupon_ledger.ledger.alert_commands import Command
    from coupon_ledger.ledger.alert_missed import ReportMissed
    from coupon_ledger.ledger.alert_silences import Silence, SilenceState, Unsilence
    from coupon_ledger.ledger.log import EventLog, Position, TopicPartition

OPTIONS: Final = {"operator": "--by", "assignee": "PERSON", "note": "--why"}
"""Where people write the texts of a command on the command line."""


@dataclass
class Desk:
    """The alerts as the log tells of them, and the log to which what people do is appended. `recorded`: all events up
    to `positions`. `appended`: where the events that were appended last are in the log. `written`: what the texts of a
    command are called where people write them."""

    log: EventLog
    book: AlertBook = field(default_factory=AlertBook)
    recorded: list[AlertEvent] = field(default_factory=list)
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    appended: Sequence[Position | None] = ()
    written: Mapping[str, str] = field(default_factory=lambda: OPTIONS)

    def read_on(self) -> None:
        """Read what the log has recorded since. Raises the errors of the log."""
        events, self.positions = read(self.log, self.positions)
        for one in events:
            self.book.fold(one.event)
            self.recorded.append(one.event)

    def alert(self, beginning: str) -> Alert:
        """The alert whose id is or begins so. Raises `UnknownAlert`, and `WrongQuestion` if there are several."""
        return self.book.alerts[id_of(self.book.alerts, beginning)]

    def silence(self, beginning: str) -> SilenceState | None:
        """The silence whose id is or begins so, if there is exactly one."""
        found = [s for i, s in self.book.silences.items() if i == beginning or (beginning and i.startswith(beginning))]
        return found[0] if len(found) == 1 else self.book.silences.get(beginning)

    def do(self, command: Command | Silence | Unsilence | ReportMissed) -> list[AlertEvent]:
        """Decide and append. Returns the events that were appended; none if the command says nothing new. Raises
        `CommandRefused` if a text of it is too long."""
        self._check_lengths(command)
        events = self.book.decide(command)
        self.append(events)
        return events

    def since(self) -> list[AlertEvent]:
        """The events that the log has after `recorded`: what this command and others appended, in order."""
        return [one.event for one in read(self.log, self.positions)[0]]

    def append(self, events: Iterable[AlertEvent]) -> None:
        made = list(events)
        self.appended = self.log.append([record_of(event) for event in made]) if made else ()
        for event in made:
            self.book.fold(event)

    def _check_lengths(self, command: object) -> None:
        for name, option in self.written.items():
            length, most = len(getattr(command, name, None) or ""), MAX_TEXT_CHARS if name == "note" else MAX_ID_CHARS
            if length > most:
                said = "{option} has {n:count} characters; write at most {most:count}"
                raise CommandRefused(Note(said, {"option": option, "n": length, "most": most}))


@dataclass(frozen=True, slots=True)
class Course:
    """How an alert went on: its state `before` the event that the command appended, the one `after` all events of the
    log, and the events of others `since` then."""

    before: Alert
    after: Alert
    since: Sequence[AlertEvent]

    def last(self, kind: str) -> AlertEvent | None:
        """The last event of this type after the command's own."""
        return next((event for event in reversed(self.since) if event.type == kind), None)


def course_of(here: Desk, alert: Alert, made: Sequence[AlertEvent]) -> Course:
    """Read the log again after a command. `alert`: as the command knew it; `made`: what it appended."""
    own = {event.event_id for event in made}
    before = after = alert
    since: list[AlertEvent] = []
    for event in here.since():
        if event.alert_id != alert.alert_id:
            continue
        if event.event_id in own:
            before, since = after, []
        else:
            since.append(event)
        after = evolve(after, event) or after
    return Course(before, after, since)
