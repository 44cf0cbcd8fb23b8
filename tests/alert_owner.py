"""An owner that works with alerts, on an embedded log of its own: for tests and benchmarks of the owner's work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coupon_ledger.consumers.alerts.telling import Channel, Messages, Queued
from coupon_ledger.consumers.alerts.work import AlertWork
from coupon_ledger.consumers.owner import Owner
from coupon_ledger.ledger import alert_events
from coupon_ledger.ledger.alert_events import AlertEvent
from coupon_ledger.ledger.alert_routing import Message
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.codec import encode
from coupon_ledger.ledger.events import parse_with_topic
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.words import Note
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.rules_file import Loaded
from coupon_ledger.projections.database import create_database, open_database

FARM = """
use_defaults: false
groups:
- name: risk
  rules:
  - alert: farm
    expr: {kind: velocity, events: [claimed], by: [device_id], at_least: 3, window: 10m}
    keep_firing_for: 5m
    severity: high
"""
"""A rule for three claims on one device within ten minutes."""


def now() -> datetime:
    return datetime.now(UTC)


def claim(number: int, device: str = "d-1", at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """A coupon that is claimed on a device."""
    return {
        "topic": "coupon.events",
        "event_id": f"claim-{number}",
        "type": "claimed",
        "occurred_at": at or now(),
        "source": "app",
        "coupon_id": f"c-{number}",
        "user_id": f"u-{number}",
        "campaign_id": "k-1",
        "coupon_type": "cash",
        "face_value_minor": 1_000,
        "currency": "CNY",
        "channel": "app",
        "device_id": device,
        **fields,
    }


def farm(device: str, first: int, at: datetime | None = None, number: int = 3) -> list[dict[str, Any]]:
    """Claims that make the rule `FARM` fire for a device."""
    return [claim(first + n, device, at) for n in range(number)]


def append(log: EventLog, events: Iterable[Mapping[str, Any]]) -> None:
    records = []
    for event in events:
        parsed = parse_with_topic(dict(event) | {"occurred_at": event["occurred_at"].isoformat()})
        records.append(Record(parsed.topic, parsed.key.encode(), encode(parsed)))
    log.append(records)


def told(log: EventLog, kind: str | None = None) -> list[AlertEvent]:
    """The events of `coupon.alerts`, each delivery of them."""
    recorded, _ = alert_events.read(log)
    return [r.event for r in recorded if kind is None or r.event.type == kind]


class Box:
    """Messages in memory. `broken`: channels that do not take any. `sent`: by channel."""

    def __init__(self, *channels: str) -> None:
        self.names = list(channels)
        self.broken: dict[str, Channel] = {}
        self.taken: dict[str, Message] = {}
        self.alerts: dict[str, Mapping[str, Alert]] = {}
        self.forgotten: set[str] = set()

    def use(self, file: Loaded) -> Sequence[Note]:
        return ()

    def channels(self) -> dict[str, Channel]:
        return {name: self.broken.get(name, Channel()) for name in self.names}

    def put(self, messages: Sequence[Message], alerts: Mapping[str, Alert], rules: Mapping[str, Rule]) -> None:
        for message in messages:
            self.taken.setdefault(message.message_id, message)
            self.alerts.setdefault(message.message_id, alerts)

    def queued(self) -> list[Queued]:
        return [
            Queued(m, {c: "waiting" if c in self.broken else "sent" for c in m.channels})
            for m in self.taken.values()
            if m.message_id not in self.forgotten
        ]

    def forget(self, message_ids: Iterable[str]) -> None:
        self.forgotten |= set(message_ids)

    def settle(self, timeout_s: float) -> None:
        return None

    def close(self) -> None:
        return None

    def kinds(self) -> list[tuple[str, str | None]]:
        """Kind and rule of each message, in order."""
        return [(message.kind, message.rule) for message in self.taken.values()]


@dataclass
class Place:
    """A log, a rules file and a database in a folder."""

    folder: Path
    rules: Path = field(init=False)
    log: EventLog = field(init=False)

    def __post_init__(self) -> None:
        self.settings = LogSettings(url=f"sqlite:///{self.folder / 'log.db'}", partitions=2)
        self.rules = self.folder / "rules.yaml"
        if not self.rules.exists():
            self.rules.write_text(FARM, encoding="utf-8")
        self.log = open_log(self.settings, create=True)
        self.log.create_topics()

    @contextmanager
    def owner(self, database: str = "a.duckdb", messages: Messages | None = None, **options: Any) -> Iterator[Owner]:
        """An owner of the database, which is made if it is not there. `options`: `follow` and `batch_size` of the
        owner, the others of its work with alerts."""
        path = self.folder / database
        create_database(path)
        follow, batch_size = options.pop("follow", False), options.pop("batch_size", 1_000)
        store, log = open_database(path), open_log(self.settings)
        work = AlertWork(store, log, messages=messages, **{"rules": self.rules, **options})
        with closing(Owner(store, log, batch_size=batch_size, follow=follow, alerts=work)) as owner:
            yield owner

    def run(self, database: str = "a.duckdb", messages: Messages | None = None, **options: Any) -> None:
        """Consume up to the end of the log, with a round of alerts."""
        with self.owner(database, messages, **options) as owner:
            for _ in owner.run():
                pass
