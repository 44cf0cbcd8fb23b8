"""All alerts and silences that the events of `coupon.alerts` tell of.

Always true: folding the same events gives the same book, whatever is delivered twice, and however the partitions'
events are interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from coupon_ledger.ledger.alert_commands import Command, Condition, Terms, Tick
from coupon_ledger.ledger.alert_events import AlertEvent
from coupon_ledger.ledger.alert_life import decide
from coupon_ledger.ledger.alert_missed import About, Missed, ReportMissed, about_of, decide_missed, evolve_missed
from coupon_ledger.ledger.alert_silences import (
    Silence,
    SilenceState,
    Unsilence,
    decide_silence,
    evolve_silence,
    silenced_by,
)
from coupon_ledger.ledger.alert_state import Alert, evolve

_DAY: Final = timedelta(days=1)


class AlertBook:
    """The state of every alert and silence.

    `alerts`: by alert_id. `current`: by fingerprint, the id of its latest alert. `silences`: by silence_id. `missed`:
    what rules missed, by what it is about. A book is changed by `fold` alone; `decide` and `tick` only say which events
    follow.
    """

    def __init__(self, events: Iterable[AlertEvent] = ()) -> None:
        self.alerts: dict[str, Alert] = {}
        self.current: dict[str, str] = {}
        self.silences: dict[str, SilenceState] = {}
        self.missed: dict[About, Missed] = {}
        self._live: dict[str, None] = {}
        self._closed: dict[str, None] = {}
        for event in events:
            self.fold(event)

    def fold(self, event: AlertEvent) -> None:
        if event.silence_id is not None:
            silence = evolve_silence(self.silences.get(event.silence_id), event)
            if silence is not None:
                self.silences[event.silence_id] = silence
        elif event.alert_id is not None and event.fingerprint is not None:
            self._fold_alert(event.fingerprint, event.alert_id, event)
        elif event.type == "missed" and (missed := evolve_missed(event)) is not None:
            about = about_of(event)
            self.missed[about] = missed.after(self.missed.get(about))

    def _fold_alert(self, fingerprint: str, alert_id: str, event: AlertEvent) -> None:
        known = self.alerts.get(alert_id)
        alert = evolve(known or self.alerts.get(self.current.get(fingerprint, "")), event)
        if alert is None or alert.alert_id != alert_id:
            return
        self.alerts[alert_id] = alert
        if known is None:
            self._live.pop(self.current.get(fingerprint, ""), None)
            self.current[fingerprint] = alert_id
        is_current = self.current[fingerprint] == alert_id
        _put(self._live, alert_id, alert.is_open or (is_current and alert.flapping_since is not None))
        _put(self._closed, alert_id, alert.phase == "resolved")

    def decide(self, command: Command | Silence | Unsilence | ReportMissed) -> list[AlertEvent]:
        """The events that follow from a command. Raises the errors of `alert_life.decide` and `decide_missed`."""
        if isinstance(command, Silence | Unsilence):
            return decide_silence(command, self.silences.get(command.silence_id))
        if isinstance(command, ReportMissed):
            return decide_missed(command, self.missed.get(command.about), self.alerts.values())
        if isinstance(command, Tick):
            raise TypeError("time passes for all alerts: call `tick`")
        if isinstance(command, Condition):
            known = self.alerts.get(command.alert_id or "")
            return decide(command, known or self.alerts.get(self.current.get(command.fingerprint, "")))
        return decide(command, self.alerts.get(command.alert_id))

    def tick(
        self,
        now: datetime,
        clock_of: Callable[[Alert], datetime | None] = lambda _: None,
        terms_of: Callable[[Alert], Terms] = lambda _: Terms(),
    ) -> list[AlertEvent]:
        """The events that follow from the passing of time. `clock_of`: for an alert, the data's clock up to which its
        rule was evaluated; None for an asked rule. `terms_of`: the terms of its rule."""
        live = [self.alerts[alert_id] for alert_id in self._live]
        events = [e for a in live for e in decide(Tick(now=now, clock=clock_of(a), terms=terms_of(a)), a)]
        lasting = [silence for silence in self.silences.values() if silence.ended_at is None]
        return events + [e for silence in lasting for e in decide_silence(Tick(now=now), silence)]

    def open_alerts(self) -> list[Alert]:
        return [alert for alert_id in self._live if (alert := self.alerts[alert_id]).is_open]

    def to_route(self, now: datetime, within: timedelta = _DAY) -> list[Alert]:
        """The alerts that `alert_routing.route` needs: the open ones, and those that were closed lately."""
        for alert_id in list(self._closed):
            closed_at = self.alerts[alert_id].resolved_at
            if closed_at is not None and now - closed_at > within:
                del self._closed[alert_id]
        return [self.alerts[alert_id] for alert_id in {**self._live, **self._closed}]

    def active_silences(self, now: datetime) -> list[SilenceState]:
        return [silence for silence in self.silences.values() if silence.holds(now)]

    def status(self, alert: Alert, now: datetime) -> str:
        """The status of an alert that people are shown: its phase, `acknowledged` or `silenced`."""
        if alert.status == "firing" and silenced_by(alert, self.silences.values(), now):
            return "silenced"
        return alert.status

    def old_acknowledgements(self, now: datetime, older_than: timedelta = _DAY) -> list[Alert]:
        """Open alerts that somebody took and has not settled: their expected time has passed, or none was given and
        they were taken longer ago than `older_than`. The oldest first."""
        taken = [(a.acknowledged, a) for a in self.open_alerts() if a.acknowledged is not None]
        late = [(k.until or k.at + older_than, a) for k, a in taken if (k.until or k.at + older_than) <= now]
        return [alert for _, alert in sorted(late, key=lambda pair: (pair[0], pair[1].alert_id))]


def _put(ids: dict[str, None], alert_id: str, there: bool) -> None:
    if there:
        ids[alert_id] = None
    else:
        ids.pop(alert_id, None)
