"""The violations that stand, with the money at stake in each, for rules of kind `violation`."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from coupon_ledger.projections.connection import Reading, sql


class Standing:
    """Remembers the violations between evaluations, as long as no batch is committed."""

    def read(self, reading: Reading, codes: Sequence[str]) -> pl.DataFrame:
        """The rows of standing.sql. `codes`: only these; none: all."""
        wanted = list(codes) or [code for (code,) in reading.rows("SELECT DISTINCT violation FROM violations")]
        return reading.frame(sql(__package__, "standing"), {"codes": wanted})
