"""The kept tables. A new one is a folder with its schema, its code and its audits, and a line here."""

from __future__ import annotations

from typing import Final

from coupon_ledger.projections.attribution import upkeep
from coupon_ledger.projections.coupon_sales import COUPON_SALES
from coupon_ledger.projections.event_counts import EVENT_COUNTS
from coupon_ledger.projections.kept_table import KeptTable

KEPT: Final[tuple[KeptTable, ...]] = (upkeep.PATHS, COUPON_SALES, EVENT_COUNTS)
"""Those that take longest to fill come first: a whole history fills several at once."""
