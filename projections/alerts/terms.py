"""What was set for campaigns, as it was known at an instant of recording."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.projections.alerts.chunk import Int64, micros

Floats = npt.NDArray[np.float64]


class Terms:
    """Terms of campaigns, to look up. `rows`: in canonical order, with `campaign_id`, `recorded_at` and a column per
    term; a null sets nothing."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self._rows: dict[str, list[tuple[dict[str, Any], datetime]]] = defaultdict(list)
        for row in rows.iter_rows(named=True):
            self._rows[row["campaign_id"]].append((row, row["recorded_at"]))

    def at(self, campaign: str, term: str, known_at: datetime) -> Any:
        """The canonically last value that was recorded by then; None without one."""
        known = (row[term] for row, recorded_at in reversed(self._rows.get(campaign, ())) if recorded_at <= known_at)
        return next((value for value in known if value is not None), None)

    def over(self, campaign: str, term: str, known_at: Int64, *, missing: float = 0.0) -> Floats:
        """The same for many instants (microseconds), of a term that is a number; `missing` without one."""
        values = np.full(len(known_at), missing)
        for row, recorded_at in self._rows.get(campaign, ()):
            if row[term] is not None:
                values[known_at >= micros(recorded_at)] = row[term]
        return values
