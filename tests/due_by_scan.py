"""What is due, found the plain way: every coupon with a scan of the whole journal, by one query. What the sweep, which
looks only where something is due, is held to."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.due import _at_once, _of_history

_QUERY = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
_HISTORIES = "SELECT * EXCLUDE (key_hash, recorded_at, log_partition, log_offset) FROM coupon_events"


def due_by_scan(reading: Reading, until: datetime) -> list[dict[str, Any]]:
    """All events, by coupon. `until`: naive UTC."""
    standing = ["drafted", "published", "unpublished", "ended"]
    rows = reading.frame(_QUERY, {"until": until, "types": list(types(COUPON)), "standing": standing})
    histories: dict[str, list[dict[str, Any]]] = {}
    for event in reading.frame(_HISTORIES).iter_rows(named=True):
        histories.setdefault(event["coupon_id"], []).append(event)
    return [
        event
        for row in rows.iter_rows(named=True)
        for event in (_of_history(row, histories[row["coupon_id"]], until) if row["told"] else _at_once(row))
    ]
