"""Alerts of a log on a real Kafka, whose records appear in another order than they were recorded: several partitions
have records of the same millisecond, and those of a transaction appear when it is committed."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaProducer

from coupon_ledger.ledger.codec import encode_row
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.database import open_database
from tests.command_line import ALL_EQUAL, DATABASE, done
from tests.conftest import ALERTS
from tests.owners import owning

pytestmark = [pytest.mark.kafka, pytest.mark.long]

RULES = """
groups:
- name: claims
  rules:
  - {alert: claims, expr: {kind: velocity, events: [claimed], by: [campaign_id], window: 1h, at_least: 3}}
"""
CAMPAIGNS = 3


def claims(first: int, number: int) -> list[Record]:
    now = int(time.time() * 1e6)
    events = [
        {
            "event_id": f"e-{n}",
            "type": "claimed",
            "occurred_at": now,
            "source": "test",
            "coupon_id": f"c-{n}",
            "user_id": f"u-{n}",
            "campaign_id": f"k-{n % CAMPAIGNS}",
            "channel": "app",
        }
        for n in range(first, first + number)
    ]
    return [Record(COUPON, str(e["coupon_id"]).encode(), encode_row("coupon_event", e)) for e in events]


def test_what_appears_late_is_judged_and_the_same_alerts_come_of_a_rebuild(
    home: Path, kafka_log_settings: LogSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a farm that claims through a system that writes in transactions would raise no alert, and nobody could prove
    on last year's sale which alerts there were."""
    (home / "rules.yaml").write_text(RULES, encoding="utf-8")
    monkeypatch.setenv(ALERTS, str(home / "rules.yaml"))
    at = ("--log", kafka_log_settings.url, "--topic-prefix", kafka_log_settings.topic_prefix)
    done("init", *at, "--partitions", "3")
    server = kafka_log_settings.url.removeprefix("kafka://")
    topic = kafka_log_settings.topic_prefix + COUPON
    number = 0
    with owning(*at) as owner, closing(open_log(kafka_log_settings)) as log:
        with closing(KafkaProducer(bootstrap_servers=server, transactional_id=topic)) as producer:
            producer.init_transactions()
            for _ in range(8):
                producer.begin_transaction()
                for record in claims(number, 30):
                    # One partition waits for the commit, the others are read on.
                    producer.send(topic, key=record.key, value=record.value, partition=0)
                producer.flush()
                number += 30
                until = time.monotonic() + 0.8
                while time.monotonic() < until:
                    log.append(claims(number, 12))
                    number += 12
                    time.sleep(0.003)
                producer.commit_transaction()
        deadline = time.monotonic() + 20
        while int(owner.answer("summary")["rows"][0]["applied"]) < number:
            assert time.monotonic() < deadline, (number, owner.answer("summary"))
            time.sleep(0.1)
    with open_database(Path(DATABASE)) as store:
        counted = dict(store.rows("SELECT key, peak FROM alert_episodes WHERE rule = 'claims'"))
    assert counted == {f'{{"campaign_id":"k-{k}"}}': len(range(k, number, CAMPAIGNS)) for k in range(CAMPAIGNS)}
    assert ALL_EQUAL in done("rebuild", *at).out
