"""What operators and callers of the HTTP API did."""

from __future__ import annotations

import polars as pl

from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.questions.operations.parameters import Operations


def operations(reading: Reading, parameters: Operations) -> pl.DataFrame:
    """What operators and callers of the HTTP API did, when and why, the latest first: one row per operation.
    `subject`: what it was done to. `details`: further facts."""
    return reading.frame(sql(__package__, "operations"), parameters.bound)
