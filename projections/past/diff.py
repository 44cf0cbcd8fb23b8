"""Computes how coupons changed between two cuts, and by which events. The later cut must contain the earlier one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import polars as pl
from polars._typing import PolarsDataType

from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.progress import Progress, stage
from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.connection import Reading, live_schema, sql
from coupon_ledger.projections.past import Cut, Past, deliveries_of

_COMPARED: Final = (
    "campaign_id coupon_type face_value_minor percent_off_bp min_spend_minor currency valid_from valid_until owner"
    " order_id discount_minor issue_channel claim_channel reason created_at issued_at claimed_at reserved_at used_at"
    " ended_at violations"
).split()
_PIECE: Final[dict[str, PolarsDataType]] = {
    "coupon_id": pl.String,
    "campaign_id": pl.String,
    "before": pl.String,
    "after": pl.String,
    "changed": pl.String,
    "types": pl.List(pl.String),
    "event_ids": pl.List(pl.String),
}


def differences(
    reading: Reading, earlier: Cut, later: Cut, campaign: str | None, progress: Progress
) -> Iterator[pl.DataFrame]:
    """Yield one row per coupon that has events in the later cut that are not in the earlier one. The rows are ordered
    by `coupon_id` and come in pieces.

    `before`, `after`: the state in the earlier and in the later cut; `before` is null if the coupon did not exist yet.
    `changed`: JSON that maps the name of each other value that changed to `[before, after]`. `types`, `event_ids`:
    those events, in canonical order. `campaign`: only coupons of this campaign. `progress`: called with the number of
    coupons folded again; a coupon counts once per cut.
    """
    events = deliveries_of(COUPON, live_schema(reading))
    between = f"{later.condition(COUPON)} AND NOT ({earlier.condition(COUPON)})"
    mine = f"AND key_hash IN (SELECT key_hash FROM {events} WHERE campaign_id = $campaign)" if campaign else ""
    parameters = {"campaign": campaign} if campaign else {}
    reading.execute(f"CREATE TEMP TABLE new_events AS SELECT * FROM {events} WHERE {between} {mine}", parameters)
    reading.execute("CREATE TEMP TABLE changed_coupons AS SELECT DISTINCT key_hash FROM new_events")
    [(coupons,)] = reading.rows("SELECT count(*) FROM changed_coupons")
    for name, cut, part in (
        ("earlier", earlier, stage(progress, after=coupons)),
        ("later", later, stage(progress, before=coupons)),
    ):
        past = Past(reading, cut, part)
        past.stand_in(COUPON, among="changed_coupons")
        reading.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM coupons")
        past.leave()
    for pairs in reading.batches(sql(__package__, "differences"), {"campaign": campaign, "types": list(types(COUPON))}):
        yield pl.DataFrame(map(_row, pairs.iter_rows(named=True)), schema=_PIECE)


def _row(pair: dict[str, dict[str, object]]) -> dict[str, object]:
    """The answer's row for `pair`, which is one row of the result of differences.sql."""
    before, after = pair["earlier"] or {}, pair["later"]
    changed = {n: [before.get(n), after[n]] for n in _COMPARED if before.get(n) != after[n]}
    return {
        "coupon_id": after["coupon_id"],
        "campaign_id": after["campaign_id"],
        "before": before.get("state"),
        "after": after["state"],
        "changed": json.dumps(plain(changed), ensure_ascii=False),
        "types": pair["types"],
        "event_ids": pair["event_ids"],
    }
