"""Compares the stored rows of coupons with the result of the reference fold.

The reference fold (`ledger/lifecycle.py`) shares no code with the fold that made the rows. It folds the deliveries in
the journal, or those in the log (`consumers/log_contents.py`). This module needs no database: the rows come from the
question `evidence`, so the slow part runs in the client and not in the owner.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC
from itertools import pairwise
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.lifecycle import Delivery, content, fold
from coupon_ledger.projections.live.journal import POSITION

Row = Mapping[str, Any]
Deliveries = Mapping[str, Sequence[Delivery]]
"""Deliveries by coupon id."""

_AT_ONCE: Final = 10_000
"""Approximate number of coupons per range."""
_FIRST: Final = -(1 << 63)
_HASHES: Final = 1 << 64


def ranges(coupons: int, sample: int | None, seed: int) -> list[tuple[int, int]]:
    """Adjoining ranges of key hashes, both ends included, that together contain about `sample` coupons (None: all).
    `coupons`: how many coupons there are. `seed`: determines where the first range begins.

    Hashes behave like random numbers, so the coupons in the ranges are a random sample.
    """
    wanted = coupons if sample is None else min(sample, coupons)
    width = _HASHES * wanted // coupons if wanted else 0
    start = _FIRST + (random.Random(seed).randrange(_HASHES - width + 1) if width else 0)
    parts = 1 + wanted // _AT_ONCE
    ends = [start + width * part // parts for part in range(parts + 1)]
    return [(first, after - 1) for first, after in pairwise(ends) if after > first]


class Evidence:
    """The answer to the question `evidence`, by coupon: the rows, deliveries and violations."""

    def __init__(self, answer: pl.DataFrame) -> None:
        def listed(name: str) -> list[dict[str, Any]]:
            return answer[name].explode(empty_as_null=False).struct.unnest().to_dicts()

        self.rows: dict[str, Row] = {row["coupon_id"]: row for row in listed("coupons")}
        self.deliveries: Deliveries = _by_coupon([*listed("events"), *listed("conflicts")])
        self.violations: dict[str, Counter[tuple[Any, ...]]] = {}
        for v in listed("violations"):
            mine = self.violations.setdefault(v["key"], Counter())
            mine[v["event_id"], v["violation"], v["state"], v["occurred_at"]] += 1
        self.set_aside = {(at["log_partition"], at["log_offset"]) for at in listed("set_aside")}
        """Partition and offset of valid events among the dead letters. Empty unless requested."""


def _by_coupon(events: list[dict[str, Any]]) -> dict[str, list[Delivery]]:
    deliveries: dict[str, list[Delivery]] = {}
    for event in events:
        recorded_at, partition, offset = (event.pop(name) for name in POSITION)
        del event["key_hash"]
        at = micros(recorded_at.replace(tzinfo=UTC))
        deliveries.setdefault(event["coupon_id"], []).append(Delivery(event, at, partition, offset))
    return deliveries


def differences(evidence: Evidence, log: Deliveries | None = None) -> Iterator[dict[str, Any]]:
    """Where the stored rows and violations differ from the reference fold. Each difference has `coupon_id`, `field`,
    the stored value (`kept`) and the correct one (`folded`).

    `log`: the deliveries of the same coupons in the log, by coupon. If set, the log is folded instead of the journal,
    and the journal is compared with the log.
    """
    deliveries = evidence.deliveries if log is None else log
    for coupon in sorted({*evidence.rows, *evidence.violations, *deliveries, *evidence.deliveries}):
        if log is not None:
            yield from _of_journal(coupon, evidence.deliveries.get(coupon, ()), log.get(coupon, ()))
        yield from _of_row(coupon, evidence, deliveries.get(coupon, ()))


def _of_row(coupon: str, evidence: Evidence, deliveries: Sequence[Delivery]) -> Iterator[dict[str, Any]]:
    row = evidence.rows.get(coupon)
    folded = fold(deliveries) if deliveries else None
    if row is None or folded is None:
        if row is not None or folded is not None:
            yield _difference(coupon, "row", row and row["state"], folded and folded.coupon.state)
        return
    for field, value in asdict(folded.coupon).items():
        if row[field] != value:
            yield _difference(coupon, field, row[field], value)
    wanted = Counter((v.event_id, v.violation, v.state, v.occurred_at) for v in folded.violations)
    kept = evidence.violations.get(coupon, Counter())
    for violation in sorted((wanted - kept) + (kept - wanted), key=repr):
        yield _difference(coupon, f"violation of {violation[0]}", *(_described(violation, c) for c in (kept, wanted)))


def _described(violation: tuple[Any, ...], counted: Counter[tuple[Any, ...]]) -> str | None:
    _, code, state, _ = violation
    return f"{counted[violation]} × {code} in state {state}" if counted[violation] else None


def _of_journal(coupon: str, kept: Sequence[Delivery], logged: Sequence[Delivery]) -> Iterator[dict[str, Any]]:
    journal, log = _contents(kept), _contents(logged)
    for identity in sorted(journal.keys() | log.keys(), key=repr):
        if journal.get(identity) != log.get(identity):
            yield _difference(
                coupon, f"event {identity[0]}", *(_at(contents.get(identity)) for contents in (journal, log))
            )


def _contents(deliveries: Sequence[Delivery]) -> dict[tuple[str, Any], tuple[int, int, int]]:
    """For each pair of event id and content, the first position at which it was delivered."""
    positions: dict[tuple[str, Any], tuple[int, int, int]] = {}
    for d in deliveries:
        identity = (d.event["event_id"], content(d.event))
        positions[identity] = min(d.position, positions.get(identity, d.position))
    return positions


def _at(position: tuple[int, int, int] | None) -> str | None:
    return None if position is None else f"this content at partition {position[1]}, offset {position[2]}"


def _difference(coupon: str, field: str, kept: Any, folded: Any) -> dict[str, Any]:
    return {"coupon_id": coupon, "field": field, "kept": kept, "folded": folded}
