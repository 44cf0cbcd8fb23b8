"""Which events follow another event of the same coupon within seconds."""

from __future__ import annotations

import numpy as np
import polars as pl

from coupon_ledger.projections.alerts.chunk import Int64, Mask, Released
from coupon_ledger.projections.alerts.episodes import micros_of
from coupon_ledger.projections.alerts.rules import After


class Preceded:
    """Remembers the events that others may follow, for as long as they may."""

    def __init__(self, after: After) -> None:
        self.within = micros_of(after.within)
        self._type = frozenset((after.event,))
        self._recent = pl.DataFrame(schema={"key_hash": pl.Int64, "earlier_at": pl.Int64, "earlier_row": pl.Int64})

    def see(self, piece: Released, window: int) -> Mask:
        """Per event, whether an earlier event of the type happened to the same coupon within the time. `window`: how
        late, in microseconds, events may be that are asked for later."""
        came = self._came(piece)
        known = pl.concat([self._recent, came])
        events = piece.events.select("key_hash", at=pl.Series(piece.at)).with_row_index("row")
        follow = (
            events.filter(events["key_hash"].is_in(known["key_hash"].implode()))
            .join(known, on="key_hash")
            .filter(
                (pl.col("earlier_row") < pl.col("row").cast(pl.Int64))
                & pl.col("earlier_at").is_between(pl.col("at") - self.within, pl.col("at"))
            )
        )
        mask = np.zeros(len(piece), dtype=np.bool_)
        rows: Int64 = follow["row"].to_numpy()
        mask[rows] = True
        kept = known.filter(pl.col("earlier_at") >= int(piece.clock[-1]) - self.within - window)
        self._recent = kept.with_columns(earlier_row=pl.lit(-1, dtype=pl.Int64))
        return mask

    def _came(self, piece: Released) -> pl.DataFrame:
        rows = np.flatnonzero(piece.of_types(self._type))
        return pl.DataFrame(
            {"key_hash": piece.events["key_hash"].gather(rows), "earlier_at": piece.at[rows], "earlier_row": rows}
        )
