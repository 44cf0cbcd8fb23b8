"""The list of kept tables. To add one, make a folder with its schema, code and audits, and add it here."""

from __future__ import annotations

from typing import Final

from coupon_ledger.projections.attribution import upkeep
from coupon_ledger.projections.coupon_sales import COUPON_SALES
from coupon_ledger.projections.event_counts import EVENT_COUNTS
from coupon_ledger.projections.kept_table import KeptTable

KEPT: Final[tuple[KeptTable, ...]] = (upkeep.PATHS, COUPON_SALES, EVENT_COUNTS)
"""The table that takes longest to fill comes first, since a bulk load fills several in parallel."""
