"""The kept tables. A new one is a folder with its schema, its code and its audits, and a line here."""

from __future__ import annotations

from typing import Final

from projections.attribution import upkeep
from projections.coupon_sales import COUPON_SALES
from projections.event_counts import EVENT_COUNTS
from projections.kept_table import KeptTable

KEPT: Final[tuple[KeptTable, ...]] = (upkeep.PATHS, COUPON_SALES, EVENT_COUNTS)
"""What takes longest to fill comes first: a whole history fills several at once."""
