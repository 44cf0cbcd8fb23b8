"""The lives of all alerts and silences, folded from the table `alert_events`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, overload

from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_events import AlertEvent
from coupon_ledger.ledger.alert_silences import SilenceState, silenced_by
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import UnknownAlert, WrongQuestion
from coupon_ledger.ledger.words import note
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.questions.parameters import OfPast

_NAMED: Final = 5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Lives:
    """`book`: the state of each alert and silence. `all`: their events, in the order of recording, each once.
    `events`: those of alerts, by alert id. `now`: the instant, by the wall clock, at which silences and expected times
    are judged."""

    book: AlertBook
    now: datetime
    all: list[AlertEvent]
    events: dict[str, list[AlertEvent]] = field(default_factory=dict)

    def status(self, alert: Alert) -> str:
        return self.book.status(alert, self.now)

    def silence(self, alert: Alert) -> SilenceState | None:
        """The silence that holds back messages about the alert now."""
        return silenced_by(alert, self.book.silences.values(), self.now) if alert.is_open else None

    def one(self, beginning: str) -> Alert:
        """The alert whose id is or begins so. Raises `UnknownAlert`, and `WrongQuestion` if there are several."""
        return self.book.alerts[id_of(self.book.alerts, beginning)]


def id_of(ids: Iterable[str], beginning: str) -> str:
    """The id that is or begins so. Raises `UnknownAlert`, and `WrongQuestion` if there are several."""
    known = sorted(i for i in ids if i.startswith(beginning)) if beginning else []
    if beginning in known or len(known) == 1:
        return beginning if beginning in known else known[0]
    if not known:
        raise UnknownAlert(
            note("there is no alert {alert}; `coupon-ledger alerts list` lists them", alert=_quoted(beginning))
        )
    raise WrongQuestion(
        note("alert {alert}: {n:count} alerts' ids begin so, such as {known}; write more of the id",
             alert=_quoted(beginning), n=len(known), known=known[:_NAMED])
    )  # fmt: skip


def _quoted(beginning: str) -> str:
    return f"'{beginning[:100]}'"


def evidence_of(events: Iterable[AlertEvent]) -> dict[str, Any]:
    """The evidence of the moment: that of the last event that carries some. A closed alert's state has none."""
    carried = [event.details.get("evidence") for event in events]
    return next((one for one in reversed(carried) if isinstance(one, dict)), {})


def lives(reading: Reading, parameters: OfPast) -> Lives:
    """The lives up to the cut, if the question is about the past."""
    events = [
        AlertEvent.model_validate_json(text)
        for frame in reading.batches(sql(__package__, "events"))
        for text in frame["event"].to_list()
    ]
    now = _now(parameters) or max((event.occurred_at for event in events), default=_EPOCH)
    known = Lives(AlertBook(events), now, events)
    for event in events:
        if event.alert_id is not None:
            known.events.setdefault(event.alert_id, []).append(event)
    return known


def _now(parameters: OfPast) -> datetime | None:
    instants = (getattr(parameters, "now", None), parameters.at, parameters.known_at)
    now = next((instant for instant in instants if instant is not None), None)
    return None if now is None else now.replace(tzinfo=UTC)


@overload
def naive(at: datetime) -> datetime: ...


@overload
def naive(at: None) -> None: ...


@overload
def naive(at: datetime | None) -> datetime | None: ...


def naive(at: datetime | None) -> datetime | None:
    """The instant as the tables have it: naive, in UTC."""
    return None if at is None else at.astimezone(UTC).replace(tzinfo=None)
