"""When an order stands: one rule for every number, rule and status."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from coupon_ledger.api.answers import spooled
from coupon_ledger.cli.export import write_parquet
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import ORDER
from coupon_ledger.projections.connection import frames_of, sql
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.live.signature import key_hash
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.registry import Answer, AsOf
from tests.command_line import done, ndjson
from tests.folding import emptied, fold_in, scratch_store

pytestmark = pytest.mark.long

NOON = datetime(2026, 11, 11, 12, tzinfo=UTC)
ORDER_ID = "o-1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("standing")) as opened:
        yield opened


def order_events(*words: str) -> list[dict[str, Any]]:
    """One event a minute. `refunded 5`: of 5; `paid 0`: a net of 0 (100 otherwise)."""
    events = []
    for minute, word in enumerate(words):
        kind, _, amount = word.partition(" ")
        event: dict[str, Any] = {
            "event_id": f"e-{minute}",
            "type": kind,
            "occurred_at": NOON + timedelta(minutes=minute),
            "source": "shop",
            "order_id": ORDER_ID,
        }
        if kind in ("placed", "paid"):
            event |= {"user_id": "u", "currency": "CNY", "gross_minor": 100, "net_minor": int(amount or 100)}
        elif kind == "cancelled":
            event["reason"] = "changed mind"
        else:
            event["refund_minor"] = int(amount)
        events.append(event)
    return events


def asked(store: Store, events: list[dict[str, Any]], batches: int = 1) -> dict[str, Any]:
    """What `order` answers, and whether the order stands, after these events in so many batches."""
    told = [Delivery(event, 1_000_000 + n, 0, n) for n, event in enumerate(events)]
    size = -(-len(told) // batches)
    fold_in(store, apply, ORDER, [tuple(told[at : at + size]) for at in range(0, len(told), size)])
    [row] = store.frame(
        sql("coupon_ledger.questions.states", "order"), {"key_hash": key_hash(ORDER_ID), "order": ORDER_ID}
    ).to_dicts()
    [(stands,)] = store.rows("SELECT stands(paid_at, cancelled_at, net_minor, refunded_minor) FROM orders")
    return row | {"stands": stands}


@pytest.mark.parametrize(
    ("words", "status", "refunded_minor"),
    [
        (["placed"], "placed", None),
        (["placed", "paid"], "paid", None),
        (["placed", "cancelled"], "cancelled", None),
        (["placed", "paid", "cancelled"], "cancelled", None),
        (["placed", "paid 0"], "paid", None),
        (["placed", "paid 0", "refunded 0"], "refunded", 0),
        (["placed", "paid", "refunded 0"], "paid", 0),
        (["placed", "paid", "refunded 99"], "paid", 99),
        (["placed", "paid", "refunded 60", "refunded 40"], "refunded", 100),
        (["placed", "cancelled", "paid"], "paid", None),
        (["placed", "paid", "cancelled", "paid"], "paid", None),
        (["placed", "cancelled", "paid", "cancelled", "cancelled"], "cancelled", None),
        (["refunded 5"], None, 5),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_an_order_stands_while_paid_not_cancelled_and_not_fully_refunded(
    store: Store, words: list[str], status: str | None, refunded_minor: int | None
) -> None:
    """A refunded free order stayed a sale, and a payment after a cancellation did not count."""
    for batches in (1, len(words)):
        with emptied(store):
            row = asked(store, order_events(*words), batches)
            assert (row["status"], row["refunded_minor"]) == (status, refunded_minor)
            assert row["stands"] == (status == "paid")


def test_a_cancellation_counts_from_the_first_that_no_payment_follows(store: Store) -> None:
    """The first one of all would be named, which a payment had undone; in any order of arrival."""
    events = order_events("cancelled", "paid", "cancelled", "cancelled")
    for arrival, batches in (
        ((0, 1, 2, 3), 1),
        ((0, 1, 2, 3), 4),
        ((3, 2, 1, 0), 4),
        ((0, 2, 1, 3), 2),
        ((2, 3, 0, 1), 2),
    ):
        with emptied(store):
            row = asked(store, [events[n] for n in arrival], batches)
            assert row["cancelled_at"] == (NOON + timedelta(minutes=2)).replace(tzinfo=None)
            assert row["paid_at"] == (NOON + timedelta(minutes=1)).replace(tzinfo=None)


def test_an_empty_list_is_a_value(store: Store) -> None:
    """An order whose coupons were taken off would still name them; one that tells none would lose those it named."""
    events = order_events("placed", "paid", "refunded 1")
    for lists, named in (((["c-1"], [], None), []), (([], ["c-1"], None), ["c-1"]), ((None, None, None), None)):
        told = [event | {"coupon_ids": ids} for event, ids in zip(events, lists, strict=True)]
        random.Random(1).shuffle(told)
        with emptied(store):
            assert asked(store, told, 2)["coupon_ids"] == named


LARGEST = 2**53 - 1
MANY = 1_100
"""So many of the largest amounts add up beyond 64 bits."""


def test_refunds_add_up_beyond_64_bits(home: Path) -> None:
    """Events that are accepted one by one would stop the consumer for good, and every question about their order."""
    big = {"gross_minor": LARGEST, "net_minor": LARGEST}
    paid = order_events("paid")[0] | big
    refunds = [order_events("refunded 1")[0] | {"event_id": f"r-{n}", "refund_minor": LARGEST} for n in range(MANY)]
    events = [{**e, "topic": ORDER, "occurred_at": "2026-11-11T00:00:00Z"} for e in (paid, *refunds)]
    done("init")
    done("publish", "-", stdin=ndjson(events))
    done("consume", "--batch-size", "400")
    row = done("order", ORDER_ID, "--output", "json").json
    assert (row["status"], row["refunded_minor"]) == ("refunded", MANY * LARGEST)
    past = done("order", ORDER_ID, "--at", "2026-11-12", "--output", "json").json
    assert past["refunded_minor"] == MANY * LARGEST
    assert done("metrics", "query", "gmv_minor", "--output", "ndjson").rows[0]["gmv_minor"] == 0
    done("verify", "--only", "order_values")


def test_sales_add_up_beyond_64_bits(home: Path) -> None:
    """Orders that are right one by one would end a report."""
    done("init")
    fields = {"topic": ORDER, "occurred_at": "2026-11-11T00:00:00Z", "gross_minor": LARGEST, "net_minor": LARGEST}
    orders = [{**order_events("paid")[0], **fields, "order_id": f"o-{n}"} for n in range(MANY)]
    done("publish", "-", stdin=ndjson(orders))
    done("consume")
    [row] = done("metrics", "query", "gmv_minor,net_sales_minor", "--output", "ndjson").rows
    assert (row["gmv_minor"], row["net_sales_minor"]) == (MANY * LARGEST, MANY * LARGEST)


def test_sums_beyond_64_bits_go_through_arrow_and_parquet(tmp_path: Path) -> None:
    """An owner of the database answers in Arrow, which has no such integers."""
    frame = pl.DataFrame({"sum_minor": pl.Series([MANY * LARGEST, None, -1], dtype=pl.Int128)})
    with spooled(Answer(AsOf(0, None, None, []), iter([frame])), arrow=True, json_columns=()) as spool:
        spool.seek(0)
        assert pl.concat(frames_of(pa.ipc.open_stream(spool))).equals(frame)
    write_parquet(Answer(AsOf(0, None, None, []), iter([frame])), tmp_path / "sums.parquet", lambda _rows: None)
    assert pl.read_parquet(tmp_path / "sums.parquet")["sum_minor"].to_list() == frame["sum_minor"].to_list()
