"""A small sale with a device farm in it, and rules that find it: what tests of questions and commands about alerts ask.

Two people claim a coupon now and then with the device `d-farm`. On 11 November it claims eight coupons for eight users
within a minute. Some are used. The rules judge the log as it is consumed; `fire` then tells `coupon.alerts` of what
they found, as the owner of a database does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from coupon_ledger.consumers.alerts.book import positions, store_piece
from coupon_ledger.consumers.alerts.tail import Piece
from coupon_ledger.ledger import alert_events
from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import Condition, Terms
from coupon_ledger.ledger.alert_events import AlertEvent, RecordedAlertEvent
from coupon_ledger.ledger.log import Position, TopicPartition
from coupon_ledger.ledger.topics import ALERTS
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.store import Store
from tests.command_line import DATABASE, LOG, Data, coupon_event, done, ndjson, opened_log

FARM: Final = Rule.model_validate(
    {
        "name": "device_farm",
        "expr": {"kind": "velocity", "events": ["claimed"], "by": ["device_id"], "distinct": "user_id",
                 "at_least": 5, "window": "PT10M"},
        "keep": "PT1H",
        "severity": "high",
        "owner": "risk",
        "playbook": "docs/alerts.md#device_farm",
        "action": {"do": "revoke_coupons"},
        "annotations": {
            "en": {"summary": "{distinct} users claimed with device {device_id} within {window}",
                   "description": "A phone farm, or a shop that claims for its customers."},
            "zh": {"summary": "{window}内有 {distinct} 个用户用设备 {device_id} 领券",
                   "description": "可能是手机墙，也可能是店员代领。"},
        },
    }
)  # fmt: skip
MASS: Final = Rule.model_validate(
    {
        "name": "mass_claims",
        "expr": {"kind": "velocity", "events": ["claimed"], "by": ["campaign_id", "ip"], "at_least": 6,
                 "window": "PT5M"},
        "keep": "PT1H",
        "severity": "critical",
        "action": {"do": "unpublish_campaign"},
    }
)  # fmt: skip
QUIET: Final = Rule.model_validate(
    {
        "name": "two_claims",
        "expr": {"kind": "velocity", "events": ["claimed"], "by": ["user_id"], "at_least": 2, "window": "PT1H"},
        "severity": "info",
    }
)
RULES: Final = (FARM, MASS, QUIET)
EVENING: Final = datetime(2026, 11, 11, 12, tzinfo=UTC)


def _at(**before: float) -> str:
    return (EVENING + timedelta(**before)).isoformat().replace("+00:00", "Z")


def sale() -> list[Data]:
    value = {"face_value_minor": 500, "currency": "CNY", "valid_until": "2026-12-01T00:00:00Z"}
    farm = {"device_id": "d-farm", "ip": "10.0.0.7"}
    plan = {"topic": "campaign.events", "source": "plan", "campaign_id": "k-1"}
    order = {"topic": "order.events", "source": "shop", "order_id": "o-1", "currency": "CNY", "user_id": "u-1"}
    created = [
        coupon_event("created", f"c-{n}-1", coupon_id=f"c-{n}", occurred_at=_at(days=-10), **value) for n in range(14)
    ]
    issued = [coupon_event("issued", f"c-{n}-2", coupon_id=f"c-{n}", occurred_at=_at(days=-9)) for n in range(14)]
    before = [
        coupon_event("claimed", f"c-{8 + n}-3", coupon_id=f"c-{8 + n}", user_id="u-regular", occurred_at=at, **farm)
        for n, at in enumerate((_at(days=-6), _at(days=-3), _at(hours=-10)))
    ]
    taken = [
        coupon_event("claimed", f"c-{n}-3", coupon_id=f"c-{n}", user_id=f"u-{n}", occurred_at=_at(seconds=7 * n),
                     **farm)
        for n in range(8)
    ]  # fmt: skip
    other = [
        coupon_event("claimed", f"c-{n}-3", coupon_id=f"c-{n}", user_id="u-twice", occurred_at=_at(minutes=n))
        for n in (12, 13)
    ]
    return [
        {**plan, "type": "published", "event_id": "k-1", "occurred_at": _at(days=-11), "name": "Singles' Day",
         "coupon_type": "cash", "quantity": 100},
        *created, *issued, *before, *taken, *other,
        coupon_event("used", "c-1-4", coupon_id="c-1", occurred_at=_at(minutes=20), order_id="o-1", currency="CNY"),
        {**order, "type": "paid", "event_id": "o-1", "occurred_at": _at(minutes=20), "gross_minor": 3000,
         "net_minor": 2500, "coupon_ids": ["c-1"], "discounts": [{"kind": "coupon", "amount_minor": 500}]},
        coupon_event("created", "clock", coupon_id="clock", occurred_at=_at(minutes=25)),
    ]  # fmt: skip


def begin(folder: Path, rules: Iterable[Rule] = RULES, events: Iterable[Data] | None = None) -> None:
    """Make a log and a database in the folder with the rules in force, and consume the sale."""
    at = ("--log", f"sqlite:///{folder / LOG}")
    done("init", *at, "--database", folder / DATABASE)
    with open_database(folder / DATABASE) as store, store.transaction():
        put_in_force(store, rules)
    publish(folder, sale() if events is None else events)
    consume(folder)


def consume(folder: Path) -> None:
    """Fold what is new. The rules stay as they are, and nobody is told."""
    done("consume", "--no-alerts", "--log", f"sqlite:///{folder / LOG}", "--database", folder / DATABASE)


def publish(folder: Path, events: Iterable[Data]) -> None:
    """Publish the events in the order in which they happened. Rules follow the order of recording, so events of the
    evening are recorded one after the other."""
    at = ("--log", f"sqlite:///{folder / LOG}")
    ordered = sorted(events, key=lambda event: str(event["occurred_at"]))
    earlier = [event for event in ordered if str(event["occurred_at"]) < _at()]
    done("publish", "-", *at, stdin=ndjson(earlier))
    for event in ordered[len(earlier) :]:
        done("publish", "-", *at, stdin=ndjson([event]))


def fire(folder: Path, now: datetime, money_minor: int | None = 4_000, rules: Iterable[Rule] = RULES) -> dict[str, str]:
    """Tell `coupon.alerts` of all episodes that were found. Returns the ids of their alerts, by rule."""
    known = {rule.name: rule for rule in rules}
    with open_database(folder / DATABASE, read_only=True) as store:
        rows = store.frame("SELECT * FROM alert_episodes ORDER BY rule, key").to_dicts()
    book, made = book_of(folder), []
    for row in rows:
        rule = known[row["rule"]]
        events = book.decide(
            Condition(
                rule=rule.name,
                labels=_labels(row["key"]),
                outcome="holds",
                at=row["last_true_at"].replace(tzinfo=UTC),
                since=row["opened_at"].replace(tzinfo=UTC),
                now=now,
                alert_id=row["episode_id"],
                rule_version=row["rule_version"],
                severity=rule.severity,
                value=row["peak"],
                money_minor=money_minor,
                currency=None if money_minor is None else "CNY",
                evidence={"threshold": row["threshold"], "rows": [{"user_id": "u-0", "coupon_id": "c-0"}]},
                owner=rule.owner,
                terms=Terms(hold=rule.hold, keep=rule.keep),
            )
        )
        for event in events:
            book.fold(event)
        made += events
    tell(folder, made)
    return {row["rule"]: row["episode_id"] for row in rows}


def _labels(key: str) -> dict[str, str]:
    return dict(json.loads(key))


def book_of(folder: Path) -> AlertBook:
    with closing(opened_log(folder / LOG)) as log:
        return AlertBook(recorded.event for recorded in alert_events.read(log)[0])


def tell(folder: Path, events: Iterable[AlertEvent]) -> None:
    """Append events of alerts, and store them as the owner of the database does."""
    with closing(opened_log(folder / LOG)) as log:
        log.append([alert_events.record_of(event) for event in events])
    follow(folder)


def follow(folder: Path) -> None:
    """Bring the table `alert_events` to the end of the topic, as the owner of the database does."""
    with closing(opened_log(folder / LOG)) as log, open_database(folder / DATABASE) as store:
        store_piece(store, Piece(*alert_events.read(log, positions(store))))


def store_events(store: Store, events: Iterable[AlertEvent]) -> None:
    """Make these events the contents of the table `alert_events`."""
    recorded = [RecordedAlertEvent(e, e.occurred_at, Position(ALERTS, 0, n)) for n, e in enumerate(events)]
    store.execute("DELETE FROM alert_events")
    store_piece(store, Piece(recorded, {TopicPartition(ALERTS, 0): len(recorded)}))
