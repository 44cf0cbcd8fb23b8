"""What is appended over HTTP is in the log of the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from coupon_ledger.ledger.codec import encode
from coupon_ledger.ledger.events import parse_event
from coupon_ledger.ledger.http_log import HttpLog
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON, KEY_FIELD
from scripts.examples import example
from tests.contract.log_contract import AppendingContract, opened
from tests.running_service import publishing


def event_records(number: int, *, topic: str = COUPON, keys: int = 50, prefix: str = "") -> list[Record]:
    """Valid events; a service takes no others."""
    made = []
    for i in range(number):
        data: dict[str, Any] = example(topic, "issued" if topic == COUPON else "placed")
        changes = {"event_id": f"{prefix}{i}", "source": "shop", KEY_FIELD[topic]: f"key-{i % keys}"}
        event = parse_event(data.pop("topic"), data | changes)
        made.append(Record(topic, event.key.encode(), encode(event)))
    return made


class Published(HttpLog):
    """Appends through the service, and reads the log behind it."""

    def __init__(self, settings: LogSettings, log: EventLog) -> None:
        super().__init__(settings)
        for name in ("partitions", "read", "earliest_positions", "end_positions"):
            setattr(self, name, getattr(log, name))


class TestHttpLog(AppendingContract):
    records = staticmethod(event_records)

    @pytest.fixture
    def log(self, sqlite_log_settings: LogSettings, tmp_path: Path) -> Iterator[EventLog]:
        with opened(sqlite_log_settings, create=True) as behind:
            behind.create_topics()
            with publishing(sqlite_log_settings, tmp_path) as service:
                settings = replace(sqlite_log_settings, url=service.url, token=service.token)
                log = Published(settings, behind)
                yield cast(EventLog, log)
                log.close()
