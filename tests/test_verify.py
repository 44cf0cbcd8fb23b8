"""`verify`: a sound database has no offenders, and whatever is wrong in one is found."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from coupon_ledger.consumers.log_contents import LogContents
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.codec import SCHEMA_NAME, encode_row
from coupon_ledger.ledger.log import Chunk, EventLog, Record, TopicPartition
from coupon_ledger.ledger.opening import open_backend, open_log
from coupon_ledger.ledger.rules import CROSS_RULES
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER
from coupon_ledger.projections import checkpoints
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.digest import facts_digest
from coupon_ledger.projections.kept import KEPT
from coupon_ledger.projections.store import Store
from coupon_ledger.questions import audits
from coupon_ledger.questions.audits import AUDITS
from coupon_ledger.questions.audits.reference import Evidence, differences, ranges
from coupon_ledger.questions.states.parameters import Evidence as EvidenceOf
from coupon_ledger.questions.states.states import evidence
from tests.command_line import DATABASE, LOG, Ran, coupon_event, done, finish, ledger, ndjson, one_sentence, start
from tests.folding import LOOKED_UP, scratch_store
from tests.histories import START, Event, history
from tests.owners import owning
from tests.test_cross_rules import World
from tests.test_fold_equivalence import poison

pytestmark = pytest.mark.long

SEED: Final = 22
"""Of a world with a coupon in every state."""
PARTITIONS: Final = 3
RULE: Final = {
    "name": "Often",
    "expr": {"kind": "velocity", "events": ["claimed", "used"], "by": ["user_id"], "at_least": 2, "window": "P1D"},
}
EVERYTHING: Final = (-(1 << 63), (1 << 63) - 1)


# ── A database in which everything happens ───────────────────────────────────────────────────────────────────


def messages(seed: int) -> list[tuple[str, bytes, bytes]]:
    """Topic, key, message: lives of coupons and orders that meet often, repeats, conflicts, poison."""
    random_ = random.Random(seed)
    told = [(topic, d.event) for n in range(6) for topic, d in World(seed + n).told]
    for topic in INPUT_TOPICS:
        told += [(topic, d.event) for d in history(topic, seed, 60, keys=12, orderly=True).deliveries]
        told += [(topic, d.event) for d in history(topic, seed, 30, keys=5, orderly=False).deliveries]
    told += [(COUPON, event) for event in life_on_no_order()]
    told += lives_that_break_rules()
    found = [(t, str(e[KEY_FIELD[t]]).encode(), encode_row(SCHEMA_NAME[t], e)) for t, e in told]
    found += [(topic, b"p", value) for topic, value, _ in poison(random_)]
    random_.shuffle(found)
    return found


def life_on_no_order() -> Iterator[Event]:
    """Used on an order that nobody has told of, and of a coupon that was only made."""
    more = {"campaign_id": "k-1", "coupon_type": "cash", "channel": "app", "user_id": "u-1"}
    for kind in ("created", "issued", "used"):
        head = {"event_id": kind, "type": kind, "occurred_at": START, "source": "s", "coupon_id": "c-lone"}
        yield head | more | {"order_id": "o-lone", "discount_minor": 1}
    yield head | more | {"event_id": "created", "type": "created", "coupon_id": "c-new"}


def lives_that_break_rules() -> Iterator[tuple[str, Event]]:
    """What random lives rarely come to: rules across coupons and between topics that need several events to meet."""

    def event(topic: str, key: str, kind: str, minute: int, **more: Any) -> tuple[str, Event]:
        head = {"event_id": f"{key} {kind} {minute}", "type": kind, "source": "s", KEY_FIELD[topic]: key}
        return topic, head | {"occurred_at": START + timedelta(minutes=minute)} | more

    bought = {"user_id": "p-1", "currency": "CNY", "gross_minor": 200, "net_minor": 190}
    yield event(CAMPAIGN, "k-rules", "amended", 0, per_user_limit=1, quantity=3)
    yield event(USER, "p-1", "linked", 0, alias_id="p-2")
    terms = {"campaign_id": "k-rules", "coupon_type": "cash", "face_value_minor": 9, "min_spend_minor": 100}
    for n, user in enumerate(("p-1", "p-2", "p-2", "p-3")):
        yield event(COUPON, f"r-{n}", "created", 1, **terms)
        yield event(COUPON, f"r-{n}", "issued", 2, channel="app", user_id=user)
        yield event(COUPON, f"r-{n}", "used", 3, user_id=user, order_id=f"o-rule-{n}", discount_minor=10)
    yield event(ORDER, "o-rule-0", "paid", 3, coupon_ids=["r-0", "r-x"], **bought)
    yield event(ORDER, "o-rule-1", "paid", 3, coupon_ids=[], **bought)
    yield event(ORDER, "o-rule-1", "refunded", 4, refund_minor=150)
    yield event(ORDER, "o-rule-2", "paid", 3, **bought | {"gross_minor": 99})
    yield event(ORDER, "o-rule-2", "cancelled", 4, reason="r")
    yield event(ORDER, "o-rule-2", "paid", 5, **bought | {"gross_minor": 99})
    yield event(ORDER, "o-rule-2", "cancelled", 6, reason="r")


def log_of(folder: Path, seed: int) -> EventLog:
    """With those messages, recorded while they happened and after, so that of the rules between topics some are due and
    others are not yet."""
    records: dict[TopicPartition, list[tuple[bytes, bytes, int]]] = {}
    random_ = random.Random(seed)
    for n, (topic, key, message) in enumerate(messages(seed)):
        at = int((START + timedelta(seconds=2 * n)).timestamp() * 1_000_000)
        records.setdefault(TopicPartition(topic, random_.randrange(PARTITIONS)), []).append((key, message, at))
    return log_from(folder, PARTITIONS, records)


def log_from(
    folder: Path, partitions: int, records: Mapping[TopicPartition, list[tuple[bytes, bytes, int]]]
) -> EventLog:
    """A log with these records: key, value, when it was recorded (µs)."""
    settings = LogSettings(url=f"sqlite:///{folder / LOG}", partitions=partitions)
    chunks = [
        Chunk(
            *at,
            np.arange(len(those)),
            np.array([recorded for _, _, recorded in those]),
            [key for key, _, _ in those],
            [value for _, value, _ in those],
            len(those),
        )
        for at, those in records.items()
    ]
    backend = open_backend(settings, create=True)
    ends = {at: len(those) for at, those in records.items()}
    backend.restore(dict.fromkeys(ends, 0), ends, chunks, gapless=True)
    backend.create_topics()
    return backend


@contextlib.contextmanager
def consumed(folder: Path, seed: int) -> Iterator[tuple[EventLog, Store]]:
    with closing(log_of(folder, seed)) as log, scratch_store(folder) as store:
        with store.transaction():
            put_in_force(store, [Rule.model_validate(RULE)])
        for _ in Consumer(log, store, outlet=log, batch_size=250).run():
            pass
        yield log, store


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EventLog, Store]]:
    print(f"seed {SEED}")
    with consumed(tmp_path_factory.mktemp("sound"), SEED) as found:
        yield found


def offending(store: Store) -> dict[str, Any]:
    found = {name: audits.run(store, name, 3) for name in AUDITS}
    return {name: shown for name, (offenders, shown) in found.items() if offenders}


def test_the_database_holds_all_that_can_be_wrong(sound: tuple[EventLog, Store]) -> None:
    """The tests below would find nothing in empty tables."""
    _, store = sound
    tables = [name for (name,) in store.rows("SELECT table_name FROM duckdb_tables()")]
    assert set(LOOKED_UP) < set(tables)
    empty = {t for t in tables if store.rows(f"SELECT count(*) FROM {t}") == [(0,)]}
    # This log has no odd events, its rule no series, and nobody lives with its alerts.
    beside = {"alert_buckets", "alert_events", "alert_open_series", "alert_positions", "alert_series"}
    beside |= {"operation_events", "operation_positions"}  # nor did anybody do anything that is recorded
    assert empty == {"outbox", "discarded", "stale_users", "oddities", *beside}
    rules = {rule for (rule,) in store.rows("SELECT DISTINCT violation FROM violations WHERE scope = 'cross'")}
    assert rules == set(CROSS_RULES)


@pytest.mark.long
def test_nothing_offends_in_a_sound_database(sound: tuple[EventLog, Store]) -> None:
    """A false alarm on a sale day would make people mend what is whole."""
    assert offending(sound[1]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_nothing_offends_whatever_happened(tmp_path: Path, seed: int) -> None:
    with consumed(tmp_path, seed) as (log, store):
        assert offending(store) == {}
        assert deep(store, log) == []


@pytest.mark.slow
def test_parts_find_what_the_whole_does(sound: tuple[EventLog, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what lies between two parts of a large database would never be looked at."""
    _, store = sound
    monkeypatch.setattr(audits, "_AT_ONCE", 100)
    assert offending(store) == {}
    for name, change in PARTED:
        with corrupted(store, change):
            in_parts = audits.run(store, name, 0)[0]
            monkeypatch.setattr(audits, "_AT_ONCE", 1_000_000)
            assert in_parts == audits.run(store, name, 0)[0] > 1
        monkeypatch.setattr(audits, "_AT_ONCE", 100)


# ── Every audit finds what it is for ─────────────────────────────────────────────────────────────────────────


class _Undone(Exception):
    pass


@contextlib.contextmanager
def corrupted(store: Store, *statements: str) -> Iterator[None]:
    """The database with something wrong in it, until the end of the block."""
    with contextlib.suppress(_Undone), store.transaction():
        for statement in statements:
            assert store.execute(statement), f"changed nothing: {statement}"
        yield
        raise _Undone


def one(table: str, condition: str = "true") -> str:
    """A row of that table."""
    return f"rowid = (SELECT min(rowid) FROM {table} WHERE {condition})"


def again(table: str, condition: str = "true") -> str:
    return f"INSERT INTO {table} SELECT * FROM {table} WHERE {one(table, condition)}"


def gone(table: str, condition: str = "true") -> str:
    return f"DELETE FROM {table} WHERE {one(table, condition)}"


def changed(table: str, to: str, condition: str = "true") -> str:
    return f"UPDATE {table} SET {to} WHERE {one(table, condition)}"


PROJECTIONS: Final = {"coupons": "coupon", "orders": "order", "campaigns": "campaign", "users": "user"}
CORRUPTIONS: Final = [
    ("accounts", changed("checkpoints", "applied = applied - 1")),
    ("accounts", changed("checkpoints", "read = read + 1")),
    ("accounts", changed("checkpoints", "repeats = -1, applied = applied + repeats + 1")),
    ("accounts", changed("checkpoints", "next_offset = read - 1")),
    ("accounts_of_tables", gone("coupon_events")),
    ("accounts_of_tables", gone("order_conflicts")),
    ("accounts_of_tables", again("dead_letters")),
    ("accounts_of_tables", gone("checkpoints", "applied > 0")),
    ("positions_not_read", changed("user_events", "log_offset = 1000000")),
    ("positions_not_read", changed("coupon_conflicts", "log_partition = 17")),
    ("positions_not_read", changed("dead_letters", "log_offset = -1")),
    ("positions_not_read", changed("checkpoints", "next_offset = 1", "topic = 'campaign.events'")),
    ("positions_twice", again("campaign_events")),
    ("positions_twice", changed("dead_letters", "log_offset = (SELECT min(log_offset) FROM coupon_events WHERE"
     " log_partition = dead_letters.log_partition)", "topic = 'coupon.events'")),
    *(("identities_twice", again(f"{name}_events")) for name in PROJECTIONS.values()),
    ("operations_twice", "INSERT INTO operation_events SELECT 1, 'o-1', 'asked', 'mei', NULL, 'over HTTP', NULL,"
     " TIMESTAMP '2026-11-11', TIMESTAMP '2026-11-11', 0, i FROM range(2) r(i)"),
    *(("keys_twice", again(table)) for table in PROJECTIONS),
    *(("key_hashes", changed(table, "key_hash = key_hash + 1")) for table in (
        *PROJECTIONS, *(f"{name}_events" for name in PROJECTIONS.values()),
        *(f"{name}_conflicts" for name in PROJECTIONS.values()),
        "violations", "acquisitions", "coupons_in_use", "coupon_sales", "uses")),
    *(("key_hashes", changed(table, "order_hash = order_hash + 1", "order_hash IS NOT NULL"))
      for table in ("violations", "coupons_in_use", "coupon_sales", "uses", "awaited")),
    *(("key_hashes", changed(table, "campaign_hash = 0"))
      for table in ("acquisitions", "campaign_terms", "stock_cuts")),
    ("key_hashes", changed("acquisitions", "user_hash = 0")),
    *(("event_ids", changed(table, "ids_low = 0, ids_high = 0")) for table in PROJECTIONS),
    ("event_ids", changed("coupons", "ids_low = 0", "ids_low <> 0")),
    *(("rows_of_journal", gone(table)) for table in PROJECTIONS),
    *(("rows_of_journal", gone(f"{name}_events")) for name in PROJECTIONS.values()),
    ("rows_of_journal", changed("orders", "events = events + 1")),
    ("rows_of_journal", changed("coupons", "last_event_at = last_event_at + INTERVAL 1 MICROSECOND")),
    ("rows_of_journal", changed("users", "last_type = last_type + 1")),
    ("rows_of_journal", changed("campaigns", "first_recorded_at = first_recorded_at + INTERVAL 1 SECOND")),
    ("conservation", changed("coupons", "state = 'claimed'", "state = 'used'")),
    ("conservation", changed("coupons", "state = 'used'", "state = 'issued'")),
    ("conservation", changed("coupons", "state = 'issued'", "state = 'reserved'")),
    ("conservation", gone("coupons", "state = 'created'")),
    ("conservation", "DELETE FROM coupon_events WHERE key_hash = (SELECT min(key_hash) FROM coupons)"),
    ("conservation", changed("coupon_events", "type = 'claimed'", "type = 'used' AND event_id IN (SELECT used_event_id"
     " FROM coupons WHERE state = 'used')")),
    ("liability", changed("coupons", "state = 'expired'", "state = 'claimed'")),
    ("liability", changed("coupons", "state = 'issued'", "state = 'expired'")),
    ("liability", changed("coupons", "issued_at = created_at, created_at = NULL", "state = 'created' AND events = 1")),
    ("coupon_values", changed("coupons", "campaign_id = 'k-9'", "campaign_id IS NOT NULL")),
    ("coupon_values", changed("coupons", "coupon_type = NULL", "coupon_type IS NOT NULL")),
    ("coupon_values", changed("coupons", "face_value_minor = 77")),
    ("coupon_values", changed("coupons", "percent_off_bp = 77")),
    ("coupon_values", changed("coupons", "min_spend_minor = 77")),
    ("coupon_values", changed("coupons", "currency = 'EUR'")),
    ("coupon_values", changed("coupons", "valid_from = '2001-01-01'")),
    ("coupon_values", changed("coupons", "valid_until = NULL", "valid_until IS NOT NULL")),
    ("coupon_states", changed("coupons", "resting = 'used'")),
    ("coupon_states", changed("coupons", "created_at = NULL", "state = 'created'")),
    ("coupon_states", changed("coupons", "issued_at = NULL", "state = 'issued'")),
    ("coupon_states", changed("coupons", "owner = NULL", "state = 'claimed'")),
    ("coupon_states", changed("coupons", "order_id = NULL", "state = 'reserved'")),
    ("coupon_states", changed("coupons", "discount_minor = discount_minor + 1", "state = 'used'")),
    ("coupon_states", changed("coupons", "order_id = 'o-9'", "state = 'used'")),
    ("coupon_states", changed("coupons", "used_event_id = 'x'", "state = 'used'")),
    ("coupon_states", changed("coupons", "used_at = '2001-01-01'", "state <> 'used' AND used_at IS NOT NULL")),
    ("coupon_states", changed("coupons", "reason = NULL", "state = 'expired'")),
    ("coupon_states", changed("coupons", "ended_at = NULL", "state = 'revoked'")),
    ("coupon_states", changed("coupons", "order_id = 'o-1'", "state = 'claimed'")),
    ("coupon_states", changed("coupons", "acquired_by = 'u-9'", "acquired_by IS NOT NULL")),
    ("coupon_states", changed("coupons", "acquired_event_id = NULL", "acquired_by IS NOT NULL")),
    ("order_values", changed("orders", "gross_minor = 77")),
    ("order_values", changed("orders", "cancelled_at = NULL", "cancelled_at IS NOT NULL")),
    ("order_values", changed("orders", "cancelled_at = paid_at", "cancelled_at IS NULL AND paid_at IS NOT NULL")),
    ("order_values", changed("orders", "refunded_minor = 0", "refunded_minor IS NULL")),
    ("order_values", changed("orders", "discounts = [{'kind': 'member', 'amount_minor': 1, 'funder': NULL}]")),
    ("order_values", changed("orders", "coupon_ids = ['c-9']")),
    ("order_values", changed("orders", "paid_at = NULL", "paid_at IS NOT NULL")),
    ("order_values", changed("orders", "refunded_minor = coalesce(refunded_minor, 0) + 1")),
    ("campaign_values", changed("campaigns", "quantity = 77")),
    ("campaign_values", changed("campaigns", "funded_by = '{}'")),
    ("campaign_values", changed("campaigns", "status = 'unknown'")),
    ("campaign_values", changed("campaigns", "rule_version = 'unknown'")),
    ("user_values", changed("users", "attributes = '{\"a\":77}'")),
    ("user_values", changed("users", "aliases = list_append(aliases, 'z')")),
    ("user_values", changed("users", "touches = touches + 1")),
    ("violations_of_rows", gone("violations", "scope = 'coupon'")),
    ("violations_of_rows", again("violations", "scope = 'coupon'")),
    ("violations_of_rows", changed("coupons", "violations = violations + 1")),
    ("violations_of_rows", changed("violations", "key = 'nobody'", "scope = 'coupon'")),
    ("violations_of_events", changed("violations", "event_id = 'x'", "scope = 'coupon'")),
    ("violations_of_events", changed("violations", "event_id = 'x'", "scope = 'cross'")),
    ("violations_of_events", changed("violations", "occurred_at = '2001-01-01'")),
    ("violations_of_events", changed("violations", "violation = 'no_owner'", "violation = 'conflicting_duplicate'")),
    ("violations_of_events", "DELETE FROM coupon_events WHERE event_id IN (SELECT event_id FROM violations WHERE"
     " scope = 'cross')"),
    ("conflicts_of_journal", gone("coupon_conflicts")),
    ("conflicts_of_journal", gone("violations", "violation = 'conflicting_duplicate'")),
    ("conflicts_of_journal", changed("order_conflicts", "recorded_at = '2001-01-01'")),
    ("conflicts_of_journal", "DELETE FROM user_events WHERE event_id IN (SELECT event_id FROM user_conflicts)"),
    *(("contents_twice", again(f"{name}_conflicts")) for name in PROJECTIONS.values()),
    ("contents_twice", "INSERT INTO order_conflicts SELECT * FROM order_events WHERE (key_hash, event_id) IN"
     " (SELECT (key_hash, event_id) FROM order_conflicts)"),
    ("data_clock", "UPDATE ledger SET data_clock = data_clock - INTERVAL 1 DAY"),
    ("data_clock", "UPDATE ledger SET data_clock = NULL"),
    ("acquisitions", gone("acquisitions")),
    ("acquisitions", again("acquisitions")),
    ("acquisitions", changed("acquisitions", "acquired_at = acquired_at + INTERVAL 1 SECOND")),
    ("acquisitions", changed("acquisitions", "acquired_by = 'u-9'")),
    ("campaign_terms", gone("campaign_terms")),
    ("campaign_terms", again("campaign_terms")),
    *(("campaign_terms", changed("campaign_terms", f"{value} = {to}")) for value, to in (
        ("quantity", "77"), ("per_user_limit", "77"), ("claim_from", "'2001-01-01'"), ("claim_until", "'2001-01-01'"))),
    ("stock_cuts", gone("stock_cuts")),
    ("stock_cuts", again("stock_cuts")),
    ("stock_cuts", changed("stock_cuts", "before = before + 1")),
    ("stock_cuts", changed("stock_cuts", "acquired_at = '2001-01-01'", "acquired_at IS NOT NULL AND before > 0")),
    ("stock_cuts", changed("stock_cuts", "acquired_at = NULL", "acquired_at IS NOT NULL")),
    ("stock_cuts", changed("stock_cuts", "quantity = quantity + 1", "acquired_at IS NOT NULL")),
    ("stock_cuts", "INSERT INTO acquisitions SELECT * REPLACE ('2001-01-01' AS acquired_at) FROM acquisitions"
     " WHERE campaign_id IN (SELECT campaign_id FROM stock_cuts) LIMIT 1"),
    ("event_counts", gone("event_counts")),
    ("event_counts", again("event_counts")),
    ("event_counts", changed("event_counts", "events = events + 1")),
    *(("event_counts", changed("event_counts", f"{column} = 'another'"))
      for column in ("type", "reason", "campaign_id", "coupon_type", "channel")),
    ("event_counts", changed("event_counts", "to_user = NOT to_user")),
    ("event_counts", changed("event_counts", "hour = hour + INTERVAL 1 HOUR")),
    ("event_counts", changed("coupons", "campaign_id = 'another'")),
    ("alert_episodes", again("alert_episodes", "closed_at IS NULL")),
    *(("alert_episodes", changed("alert_episodes", wrong))
      for wrong in ("fired_at = opened_at - INTERVAL 1 HOUR", "last_true_at = opened_at - INTERVAL 1 HOUR",
                    "closed_at = last_true_at, fired_at = NULL", "opened_recorded_at = '2100-01-01'")),
    ("coupon_sales", gone("coupon_sales")),
    ("coupon_sales", again("coupon_sales")),
    *(("coupon_sales", changed("coupon_sales", f"{column} = 77"))
      for column in ("discount_minor", "gross_minor", "net_minor", "refunded_minor", "cost_of_goods_minor")),
    *(("coupon_sales", changed("coupon_sales", f"{column} = 'another'"))
      for column in ("campaign_id", "coupon_channel", "owner", "buyer", "channel", "store", "region", "currency")),
    *(("coupon_sales", changed("coupon_sales", f"{column} = '2001-01-01'"))
      for column in ("used_at", "acquired_at", "paid_at", "cancelled_at")),
    ("coupons_in_use", gone("coupons_in_use")),
    ("coupons_in_use", again("coupons_in_use")),
    ("coupons_in_use", changed("coupons_in_use", "discount_minor = discount_minor + 1")),
    ("coupons_in_use", changed("coupons_in_use", "min_spend_minor = 77")),
    ("uses", gone("uses")),
    ("uses", again("uses")),
    ("uses", changed("uses", "order_id = 'o-9'")),
    *((rule, gone("violations", f"violation = '{rule}'"))
      for rule in ("over_issue", "over_user_limit", "over_person_limit", "outside_claim_window")),
    *((rule, again("violations", f"violation = '{rule}'"))
      for rule in ("over_issue", "over_user_limit", "outside_claim_window")),
    ("over_user_limit", changed("violations", "key = 'nobody'", "violation = 'over_user_limit'")),
    ("over_issue", changed("violations", "violation = 'over_issue'", "violation = 'outside_claim_window'")),
    ("over_person_limit", changed("violations", "key = 'nobody'", "violation = 'over_person_limit'")),
    ("violations_of_events", changed("violations", "event_id = 'none'", "violation = 'below_min_after_refund'")),
    ("between_topics", changed("violations", "trigger_recorded_at = '2001-01-01'", "violation = 'orphan_use'")),
    ("between_topics", gone("violations", "violation = 'orphan_use'")),
    ("between_topics", gone("violations", "violation = 'discount_mismatch'")),
    ("between_topics", again("violations", "violation = 'orphan_use'")),
    ("between_topics", changed("violations", "counterpart = 'o-9', order_hash = 1", "violation = 'orphan_use'")),
    ("between_topics", gone("awaited")),
    ("between_topics", changed("awaited", "due_at = due_at + INTERVAL 1 SECOND")),
    ("between_topics", "INSERT INTO awaited VALUES (1, 'o-9', '2001-01-01')"),
    ("key_hashes", changed("paths", "person_hash = person_hash + 1")),
    ("persons", gone("persons")),
    ("persons", again("persons")),
    ("persons", changed("persons", "person = 'nobody'")),
    ("persons", "INSERT INTO persons VALUES ('x', 'y')"),
    ("paths", gone("paths", "order_id IS NOT NULL")),
    ("paths", again("paths", "order_id IS NOT NULL")),
    ("paths", changed("paths", "order_id = 'o-9'", "order_id IS NOT NULL")),
    ("paths", changed("paths", "person = 'nobody'", "order_id IS NOT NULL")),
    ("paths", changed("paths", "sales_minor = sales_minor + 1", "order_id IS NOT NULL")),
    ("paths", changed("paths", "sources = sources[2:], touched_at = touched_at[2:], touches = touches - 1",
     "order_id IS NOT NULL AND len(sources) > 0")),
    ("touches_once", gone("paths", "order_id IS NULL")),
    ("touches_once", again("paths", "order_id IS NULL")),
]  # fmt: skip
# Several of a kind, all over the table.
PARTED: Final = [
    ("rows_of_journal", "UPDATE coupons SET events = events + 1"),
    ("positions_twice", "INSERT INTO coupon_events SELECT * FROM coupon_events"),
    ("over_user_limit", "DELETE FROM violations WHERE violation = 'over_user_limit'"),
    ("between_topics", "DELETE FROM violations WHERE scope = 'cross' AND order_hash IS NOT NULL"),
    ("conservation", "UPDATE coupons SET state = 'created'"),
]


def _one_each() -> Iterator[Any]:
    """One of each audit's by default; all in the whole suite."""
    seen = set()
    for n, (name, change) in enumerate(CORRUPTIONS):
        yield pytest.param(name, change, id=f"{name}-{n}", marks=[pytest.mark.slow] if name in seen else [])
        seen.add(name)


@pytest.mark.parametrize(("name", "change"), list(_one_each()))
def test_an_audit_finds_what_is_wrong(sound: tuple[EventLog, Store], name: str, change: str) -> None:
    """Else it would say ok whatever happens to the tables."""
    _, store = sound
    with corrupted(store, change):
        offenders, shown = audits.run(store, name, 3)
        assert offenders and shown, change
        assert json.loads(audits.as_json(shown))


def test_no_audit_goes_untested() -> None:
    assert {name for name, _ in CORRUPTIONS} == set(AUDITS)


def test_every_audit_says_what_it_asks_and_what_an_offender_means() -> None:
    """Else a finding would be a riddle on a sale day."""
    kept = [
        path for table in KEPT for path in Path("projections").glob(f"{table.folder.rpartition('.')[2]}/audit_*.sql")
    ]
    paths = [*Path(audits.__file__).parent.glob("*.sql"), *kept]
    files = {path.stem.removeprefix("audit_"): path.read_text(encoding="utf-8") for path in paths}
    assert files.keys() == AUDITS.keys()
    for name, text in files.items():
        header = " ".join(line[3:] for line in text.splitlines() if line.startswith("-- "))
        assert text.startswith("-- ") and re.search(r"\? Grain: .+ An offender: .+\.", header), name
        assert audits.question_of(name).endswith("?") and len(audits.question_of(name)) < 150, name
    told = Path("docs/operations.md").read_text(encoding="utf-8")
    assert [name for name in (*AUDITS, "positions_of_log", "deep") if f"`{name}`" not in told] == []


# ── The reference beside the rows ────────────────────────────────────────────────────────────────────────────


def deep(store: Store, log: EventLog | None = None) -> list[dict[str, Any]]:
    found = Evidence(evidence(store, EvidenceOf(first=EVERYTHING[0], last=EVERYTHING[1])))
    assert len(found.rows) > 20
    if log is None:
        return list(differences(found))
    positions = {at: account.next_offset for at, account in checkpoints.load(store).items()}
    with LogContents(log, *EVERYTHING) as contents:
        return list(differences(found, contents.of(*EVERYTHING, positions)))


def test_the_reference_comes_to_the_same(sound: tuple[EventLog, Store]) -> None:
    log, store = sound
    assert deep(store) == []
    assert deep(store, log) == []


@pytest.mark.parametrize(
    ("change", "field", "needs_log"),
    [
        (changed("coupons", "state = 'claimed'", "state = 'used'"), "state", False),
        (changed("coupons", "claim_channel = 'x'"), "claim_channel", False),
        (changed("coupons", "ended_at = '2001-01-01'"), "ended_at", False),
        (gone("coupons"), "row", False),
        (gone("violations", "topic = 'coupon.events' AND scope = 'coupon'"), "violation of", False),
        (changed("violations", "state = 'x'", "topic = 'coupon.events' AND scope = 'coupon'"), "violation of", False),
        (changed("coupon_events", "source = 'x'"), "event ", True),
        (changed("coupon_events", "log_offset = log_offset + 1"), "event ", True),
        (changed("coupon_conflicts", "source = 'x'"), "event ", True),
        ("DELETE FROM coupon_events WHERE key_hash = (SELECT min(key_hash) FROM coupon_events)", "row", False),
    ],
)
def test_the_reference_finds_what_is_wrong(
    sound: tuple[EventLog, Store], change: str, field: str, needs_log: bool
) -> None:
    """Else a mistake of the fold, or a journal that is not the log's, would stay for ever."""
    log, store = sound
    with corrupted(store, change):
        assert any(d["field"].startswith(field) for d in deep(store, log if needs_log else None))
        assert bool(deep(store)) != needs_log


@pytest.mark.parametrize(("coupons", "sample"), [(0, 5), (3, 5), (100_000, 25_000), (100_000, None), (7, None)])
def test_a_sample_is_as_large_as_asked_and_the_same_by_its_seed(coupons: int, sample: int | None) -> None:
    """Else `all` would leave some out, or a finding could not be looked at again."""
    asked = ranges(coupons, sample, 7)
    assert asked == ranges(coupons, sample, 7)
    hashes = sum(last - first + 1 for first, last in asked)
    wanted = min(coupons, sample or coupons)
    assert hashes == ((1 << 64) * wanted // coupons if coupons else 0)
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(asked))
    assert all(-(1 << 63) <= first <= last < 1 << 63 for first, last in asked)
    if sample and 0 < sample < coupons:
        assert asked != ranges(coupons, sample, 8)


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def consumed_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lives = [coupon_event(kind, f"{n}-{kind}", coupon_id=f"c-{n}") for n in range(8) for kind in ("created", "issued")]
    folder = tmp_path_factory.mktemp("shop")
    with contextlib.chdir(folder):
        done("init")
        done("publish", "-", stdin=ndjson([*lives, *lives[::3], coupon_event("used", "u", coupon_id="c-1")]))
        done("consume")
    return folder


@pytest.fixture
def shop(consumed_shop: Path, home: Path) -> Path:
    """A folder with a log that was consumed."""
    return shutil.copytree(consumed_shop, home, dirs_exist_ok=True)


def corrupt(statement: str, database: str = DATABASE) -> None:
    with open_database(Path(database)) as store, store.transaction():
        store.execute(statement)


def results(ran: Ran) -> dict[str, str]:
    return {row["check"]: row["result"] for row in ran.json["checks"]}


@pytest.mark.slow
def test_a_sound_database_is_verified_whole(shop: Path) -> None:
    ran = done("verify", "--deep", "--sample", "all", "--from-log", "-o", "json")
    assert set(results(ran)) == {*AUDITS, "positions_of_log", "same_log", "digest", "deep"}
    assert set(results(ran).values()) == {"ok"} and ran.json["ok"] is True
    digests = done("digest", "-o", "json").json
    assert ran.json["digests"] == digests
    people = done("verify", "--only", "digest")
    assert f"facts digest {digests[-1]['facts']}" in people.out
    assert "as of commit 1" in people.err
    rows = done("verify", "--only", "digest", "--deep", "--seed", "5", "-o", "ndjson").rows
    assert [row["check"] for row in rows] == ["digest", "deep"]
    assert "8 coupons (drawn by --seed 5)" in rows[1]["checked"]


@pytest.mark.long
def test_what_is_found_is_shown_and_ends_with_a_code_of_its_own(shop: Path) -> None:
    """Else a job that runs it at night would not wake anybody."""
    corrupt(changed("coupons", "events = 9", "coupon_id = 'c-3'"))
    ran = ledger("verify")
    assert ran.code == 6
    [words] = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert "1 of " in words and "rows_of_journal" in words and "docs/operations.md" in words
    assert re.search(r"^rows_of_journal +FAILED +1 ", ran.out, re.M)
    assert "rows_of_journal: 1 found" in ran.out and "c-3" in ran.out
    only = ("--only", "rows_of_journal", "--only", "accounts")
    sound, row = ledger("verify", *only, "-o", "ndjson").rows
    assert sound["result"] == "ok" and row["result"] == "FAILED"
    assert row["examples"][0]["key"] == "c-3" and row["examples"][0]["row_events"] == 9
    assert ledger("verify", *only, "-o", "csv").out.count("FAILED") == 1
    ran = ledger("verify", "--only", "digest", "--deep", "-o", "json")
    assert ran.code == 6
    [difference] = ran.json["checks"][-1]["examples"]
    assert difference == {"coupon_id": "c-3", "field": "events", "kept": 9, "folded": 2}


@pytest.mark.long
def test_short_checks_share_an_open_database_and_let_a_consumer_in(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening it for each check took most of the time; keeping it would lock a starting consumer out."""
    opened: list[bool] = []
    whole = Store.open

    def counting(path: Path, check: Callable[[Store], None], *, read_only: bool = False) -> Store:
        opened.append(read_only)
        return whole(path, check, read_only=read_only)

    monkeypatch.setattr(Store, "open", counting)
    for patience_s, times in ((60.0, 1), (0.0, 3)):
        monkeypatch.setattr("coupon_ledger.cli.verify._OPEN_S", patience_s)
        done("verify", "--only", "accounts", "--only", "data_clock", "--only", "persons")
        assert opened == [True] * times
        opened.clear()


@pytest.mark.long
@pytest.mark.parametrize(
    "change", ["next_offset = 1000000", pytest.param("log_partition = 90", marks=pytest.mark.slow)]
)
def test_positions_that_the_log_does_not_have_are_found(shop: Path, change: str) -> None:
    """Else the consumer of another log's database, or of a log that was cut, would be found out too late."""
    corrupt(changed("checkpoints", change, "topic = 'coupon.events'"))
    ran = ledger("verify", "--only", "positions_of_log", "-o", "json")
    assert ran.code == 6
    [offender] = ran.json["checks"][0]["examples"]
    assert offender["topic"] == COUPON and {"next_offset", "log_from", "log_to"} < offender.keys()
    one_sentence(ledger("verify", "--only", "digest", "--deep", "--from-log"), 4, "the log ends at", COUPON)
    assert done("verify", "--only", "digest", "--without-log").code == 0


@pytest.mark.long
def test_a_log_that_lost_its_beginning_is_said_to_have(shop: Path) -> None:
    """Else a deep verification would find differences that are none."""
    done("init", "--log", "sqlite:///other.db", "--database", "other.duckdb")
    ran = ledger("verify", "--deep", "--from-log", "--only", "digest", "--log", "sqlite:///other.db")
    assert ran.code == 4 and COUPON in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sample", "5"), "needs --deep"),
        (("--from-log",), "needs --deep"),
        (("--seed", "5"), "needs --deep"),
        (("--deep", "--sample", "-5"), "neither a number of coupons nor `all`"),
        (("--deep", "--from-log", "--without-log"), "exclude each other"),
        (("--only", "nothing"), "no check nothing; there are positions_of_log, same_log, accounts,"),
    ],
)
def test_options_that_do_not_go_together_are_refused(home: Path, arguments: tuple[str, ...], words: str) -> None:
    ran = ledger("verify", *arguments)
    assert ran.code == 2 and words in ran.err


@pytest.mark.slow
def test_it_runs_beside_a_live_consumer_without_a_false_alarm(home: Path) -> None:
    """Else nobody could trust it on a sale day."""
    done("init")
    done("simulate", "--events", "3000", "--seed", "1", "--orders")
    with owning("--batch-size", "500", "--sweep-every", "1s"):
        simulating = start("simulate", "--events", "30000", "--seed", "2", "--orders")
        commits: set[int] = set()
        while simulating.poll() is None or len(commits) < 5:
            ran = done("verify", "--deep", "--sample", "500", "--from-log", "-o", "json")
            commits |= {row["commit"] for row in ran.json["checks"]}
        assert finish(simulating).code == 0
    assert done("verify", "--deep", "-o", "json").json["ok"] is True


# ── One figure for the same facts ────────────────────────────────────────────────────────────────────────────


def facts_of(seed: int) -> list[tuple[str, Event]]:
    """Events of all topics, one content an identity, all of the past: the data's clock is theirs."""
    told: dict[tuple[str, str, str], Event] = {}
    for topic, d in World(seed).told:
        told.setdefault((topic, d.event[KEY_FIELD[topic]], d.event["event_id"]), dict(d.event))
    for topic in INPUT_TOPICS:
        for d in history(topic, seed, 20, keys=4, conflicts=False).deliveries:
            told.setdefault((topic, d.event[KEY_FIELD[topic]], d.event["event_id"]), dict(d.event))
    past = timedelta(days=3650)
    return [
        (topic, {k: v - past if isinstance(v, datetime) else v for k, v in event.items()})
        for (topic, *_), event in told.items()
    ]


def digest_of(told: Sequence[tuple[str, Event]], settings: LogSettings, database: Path, batch_size: int) -> str:
    """Appended in two pieces, each consumed in batches of that size into a database that is closed in between."""
    create_database(database)
    half = len(told) // 2
    with closing(open_log(settings, create=True)) as log:
        log.create_topics()
        for piece in (told[:half], told[half:]):
            log.append([Record(t, str(e[KEY_FIELD[t]]).encode(), encode_row(SCHEMA_NAME[t], e)) for t, e in piece])
            with open_database(database) as store:
                for _ in Consumer(log, store, outlet=log, batch_size=batch_size).run():
                    pass
                digest = facts_digest(store)
    return digest


def check_one_figure(seed: int, settings: LogSettings, folder: Path, partitions: int) -> None:
    random_ = random.Random(seed)
    told = facts_of(seed)
    plain = LogSettings(url=f"sqlite:///{folder / 'plain.db'}", partitions=1)
    wanted = digest_of(told, plain, folder / "plain.duckdb", 1_000)
    otherwise = [*told, *random_.choices(told, k=len(told) // 3)]
    random_.shuffle(otherwise)
    there = LogSettings(url=settings.url, topic_prefix=settings.topic_prefix, partitions=partitions)
    found = digest_of(otherwise, there, folder / "otherwise.duckdb", random_.choice((40, 90, 250)))
    print(f"seed {seed}: {len(told)} facts, {len(otherwise)} deliveries, facts digest {found}")
    assert found == wanted


@pytest.mark.slow
def test_the_same_facts_have_the_same_digest(log_settings: LogSettings, tmp_path: Path) -> None:
    """Arrival, batches, repeats, restarts, partitions and the log must not show: two sites would never agree."""
    check_one_figure(SEED, log_settings, tmp_path, partitions=3)


@pytest.mark.slow
@pytest.mark.parametrize("topic", range(4))
def test_another_fact_has_another_digest(tmp_path: Path, topic: int) -> None:
    """The figure would say nothing."""
    told = facts_of(SEED)
    ids = Counter((t, e["event_id"]) for t, e in told)
    at = next(n for n, (t, e) in enumerate(told) if t == INPUT_TOPICS[topic] and ids[t, e["event_id"]] == 1)
    other = [(t, e | {"source": "another"} if n == at else e) for n, (t, e) in enumerate(told)]
    digests = [
        digest_of(events, LogSettings(url=f"sqlite:///{tmp_path / f'{n}.db'}"), tmp_path / f"{n}.duckdb", 1_000)
        for n, events in enumerate((told, other))
    ]
    assert digests[0] != digests[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_same_facts_have_the_same_digest_in_many_worlds(
    sqlite_log_settings: LogSettings, tmp_path: Path, seed: int
) -> None:
    check_one_figure(seed, sqlite_log_settings, tmp_path, partitions=1 + seed % 4)
