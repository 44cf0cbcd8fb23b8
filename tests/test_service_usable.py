"""`usable` says what the rules of the lifecycle would say of a use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given

from coupon_ledger.ledger.lifecycle import Delivery, evolve, fold
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.local import Local
from tests.examples import examples
from tests.folding import by_key, emptied, fold_in, scratch_store
from tests.histories import START, History, histories

SHIFT = timedelta(minutes=5)
"""Validity begins and ends after all events, where uses are tried."""
INSTANTS = [START + timedelta(minutes=4), *(START + SHIFT + timedelta(seconds=30 * n) for n in range(-1, 8))]
USERS, ORDERS = ("u-1", "u-2", "u-3"), ("o-1", "o-2")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("usable")) as opened:
        yield opened


def shifted(told: History) -> list[list[Delivery]]:
    """The history's batches, with every validity `SHIFT` later."""
    return [[replace(delivery, event=_later(dict(delivery.event))) for delivery in batch] for batch in told.batches]


def _later(event: dict[str, Any]) -> dict[str, Any]:
    return event | {f: event[f] + SHIFT for f in ("valid_from", "valid_until") if event.get(f) is not None}


def violations_of_use(deliveries: Sequence[Delivery], user: str, order: str, at: Any) -> set[str]:
    """What the reference fold says of such a use, after everything else."""
    coupon = fold(deliveries).coupon
    use = {"event_id": "\U0010ffff", "type": "used", "occurred_at": at, "source": "shop"}
    use |= {"coupon_id": coupon.coupon_id, "user_id": user, "order_id": order, "discount_minor": 1}
    return set(evolve(coupon, use)[1])


@pytest.mark.long
@given(told=histories(COUPON))
@examples(15)
def test_usable_is_what_the_reference_says_of_a_use(store: Store, told: History) -> None:
    """Else a shop would take a coupon that the ledger then calls a fault, or turn a customer away for nothing."""
    batches = shifted(told)
    coupons = by_key(COUPON, [delivery for batch in batches for delivery in batch])
    checks = [(c, order, user, None) for c, user, order in product(sorted(coupons), USERS, ORDERS)]
    with emptied(store):
        fold_in(store, apply, COUPON, batches)
        local = Local(store)
        for at in INSTANTS:
            answer = local.ask("usable", checks=checks, when=at)
            rows = [row for frame in answer.frames for row in frame.to_dicts()]
            found = [(row["usable"], set(row["reasons"])) for row in rows]
            expected = [violations_of_use(coupons[c], user, order, at) for c, order, user, _ in checks]
            assert found == [(not codes, codes) for codes in expected], told.seed
        local.close()
