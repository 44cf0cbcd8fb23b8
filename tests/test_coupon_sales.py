"""Coupons in use with what their orders say, held to the definition after every batch, and with mistakes put in on
purpose."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections import coupon_sales as sales
from coupon_ledger.projections.connection import sql
from coupon_ledger.projections.live import cross, order_rules
from coupon_ledger.projections.live.apply import fold_in, prepare
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.projections.store import Store
from tests.examples import TIMES, examples
from tests.folding import emptied, frame_of, scratch_store
from tests.metric_model import world
from tests.mistakes import with_mistake

SEED = 20261111
Batch = dict[str, list[Delivery]]
LINE = {"sku": "sku-1", "category": "tea", "quantity": 1, "net_minor": 5, "discount_minor": 0, "cost_minor": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("sales")) as opened:
        yield opened


def batches(seed: int) -> Iterator[Batch]:
    """Coupons and their orders, in the order in which they happened or in none; orders with or without lines, told
    again otherwise; coupons told of their campaign and channel only after their use."""
    r = random.Random(f"sales {seed}")
    told = [(COUPON, d) for d in world(seed, 12).told[COUPON]]
    told += [(ORDER, _with_lines(r, d)) for d in world(seed, 12).told[ORDER]]
    late = timedelta(days=r.choice((0, 0, 2, 30)))
    told.sort(key=lambda t: t[1].event["occurred_at"] + r.choice((0, 0, 0, 1)) * late)
    while told:
        size = r.choice((1, 4, 15, 60))
        yield {topic: [d for t, d in told[:size] if t == topic] for topic in (COUPON, ORDER)}
        told = told[size:]


def _with_lines(r: random.Random, delivery: Delivery) -> Delivery:
    if delivery.event["type"] not in ("placed", "paid") or r.random() < 0.5:
        return delivery
    lines = [LINE | {"cost_minor": r.choice((None, 3, 4))} for _ in range(r.choice((0, 1, 2)))]
    return replace(delivery, event={**delivery.event, "lines": lines})


def consume(store: Store, batch: Batch) -> None:
    with store.transaction():
        folded = [(topic, frame_of(topic, deliveries)) for topic, deliveries in batch.items() if deliveries]
        cross.settle(store, [fold_in(store, prepare(topic, frame))[1] for topic, frame in folded])


def kept(store: Store) -> pl.DataFrame:
    return store.frame("SELECT * FROM coupon_sales ORDER BY coupon_id")


def check(store: Store, seed: int) -> None:
    with emptied(store):
        for batch in batches(seed):
            consume(store, batch)
            wanted = store.frame(f"{sql(sales.COUPON_SALES.folder, 'coupon_sales')} ORDER BY c.coupon_id")
            assert kept(store).drop("order_hash").equals(wanted.select(kept(store).drop("order_hash").columns))
        by_consumer = kept(store)
        with store.transaction():
            sales.COUPON_SALES.clear(store)
            sales.fill(store)
        assert kept(store).equals(by_consumer), "found by the same hashes"


@pytest.mark.long
@examples(2)
@given(seed=st.integers(0, 2**32))
def test_after_every_batch_they_are_what_coupons_and_orders_say(store: Store, seed: int) -> None:
    """A dashboard would go on showing a sale that was refunded, or a coupon that was given back."""
    check(store, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_in_many_worlds(store: Store, part: int) -> None:
    print(f"seed {SEED}")
    for seed in range(SEED + 100 * part, SEED + 100 * part + 6 * TIMES):
        check(store, seed)


@pytest.mark.slow
def test_they_are_put_together_piece_by_piece(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuild of many coupons would leave some out, or have them twice."""
    monkeypatch.setattr(sales, "_AT_ONCE", 3)
    check(store, SEED)


@pytest.mark.slow
def test_of_the_past_they_are_what_was_so_then(store: Store) -> None:
    """A report of last week's sales would show this week's returns."""
    with emptied(store):
        first, *others = (b for b in batches(7) if b[COUPON])
        moments = [max(d.event["occurred_at"] for d in b[COUPON]) for b in (first, *others)]
        for batch in (first, *others):
            consume(store, batch)
        for moment in moments[:: max(1, len(moments) // 4)]:
            as_it_was(store, moment)


def as_it_was(store: Store, moment: datetime) -> None:
    at = moment.replace(tzinfo=None)
    cursor = store.cursor()
    cursor.begin()
    past = Past(cursor, Cut(at=at))
    try:
        for topic in (COUPON, ORDER):
            past.stand_in(topic)
        sales.stand_in(past)
        shown = cursor.frame("SELECT * FROM coupon_sales ORDER BY coupon_id")
        in_use = cursor.rows("SELECT coupon_id FROM coupons WHERE state = 'used' ORDER BY coupon_id")
        assert shown["coupon_id"].to_list() == [coupon for (coupon,) in in_use]
        assert shown.select(
            pl.max_horizontal(pl.col("used_at").max(), pl.col("paid_at").max()).fill_null(at) <= at
        ).item()
    finally:
        past.close()
        cursor.end()


MISTAKES = [
    ("coupon_sales", 'pl.coalesce("claim_channel", "issue_channel")', 'pl.coalesce("issue_channel", "claim_channel")'),
    (
        "coupon_sales",
        'of_coupons.join(changed, on=_COUPON, how="anti"), changed',
        'of_coupons, changed.join(of_coupons, on=_COUPON, how="anti")',
    ),
    ("coupon_sales", 'pl.when(unknown).then("lines")', 'pl.col("lines")'),
    ("coupon_sales", '(affected.values), on=_ORDER, how="left")', "(affected.values), on=_ORDER)"),
    ("order_rules.py", "*_USE, *sales.OF_COUPON)", '*_USE, "currency")'),
    ("order_rules.py", "        touched.append(_values(orders.after).select(_ORDER))", "        pass"),
]
"""A file, what stands there once, and what becomes of it."""


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m[0]}: {m[2].strip()}")
def test_a_mistake_is_noticed(store: Store, monkeypatch: pytest.MonkeyPatch, mistake: tuple[str, str, str]) -> None:
    """The table could be wrong in a way that no world shows."""
    name, old, new = mistake
    module = {"coupon_sales": sales, "order_rules.py": order_rules}[name]
    wrong = with_mistake(module, old, new)
    if module is sales:
        monkeypatch.setattr(cross, "KEPT", (wrong.COUPON_SALES,))
    else:
        monkeypatch.setattr(cross, "order_rules", wrong)
    with pytest.raises((AssertionError, pl.exceptions.PolarsError)):
        for seed in range(SEED, SEED + 20):
            check(store, seed)
