"""The list of kept tables. To add one, make a folder with its schema, code and audits, and add it here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from coupon_ledger.projections.alerts.table import ALERTS
from coupon_ledger.projections.attribution import upkeep
from coupon_ledger.projections.coupon_sales import COUPON_SALES
from coupon_ledger.projections.event_counts import EVENT_COUNTS
from coupon_ledger.projections.kept_table import KeptTable
from coupon_ledger.projections.store import Store

KEPT: Final[tuple[KeptTable, ...]] = (upkeep.PATHS, COUPON_SALES, EVENT_COUNTS, ALERTS)
"""The table that takes longest to fill comes first, since a bulk load fills several in parallel."""


def release(store: Store, complete: Mapping[str, datetime]) -> None:
    """Let the kept tables that follow the order of recording see what is complete (`KeptTable.release`), inside the
    caller's transaction."""
    for table in KEPT:
        if table.release is not None:
            table.release(store, complete)
