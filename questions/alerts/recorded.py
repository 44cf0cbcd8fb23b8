"""What the log has recorded of alerts since some offsets, for clients that follow alerts live."""

from __future__ import annotations

import polars as pl

from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.questions.alerts.parameters import AlertEvents


def alert_events(reading: Reading, parameters: AlertEvents) -> pl.DataFrame:
    """The events of alerts and silences, in the order of recording: one row each, with its place in `coupon.alerts`.
    `type`: what happened, for example `fired`."""
    offsets = dict(parameters.after)
    bound = {"partitions": list(offsets), "offsets": list(offsets.values()), "most": parameters.limit}
    return reading.frame(sql(__package__, "recorded"), bound)
