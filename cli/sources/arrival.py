"""The order in which events arrive in the log.

A stream is one frame of events per topic, with the columns of the wire and one more, `arrives_at`: when the event
reaches the log. `in_arrival_order` cuts a stream into small frames, in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER

Frames = Mapping[str, pl.DataFrame]
"""By topic, all events. Columns: those of the wire, and `arrives_at`."""

ARRIVES_AT: Final = "arrives_at"
FRAME_ROWS: Final = 500
"""Events per frame, all topics together."""

# The order of topics within a frame: an event comes after those that it refers to.
_TOPICS: Final = (CAMPAIGN, USER, ORDER, COUPON)
_TYPICAL_DELAY_S: Final = 1.5
_LONGEST_DELAY_S: Final = 120.0


def with_arrival(frame: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Add `arrives_at`: `occurred_at` and a delay of some seconds, log-normally distributed."""
    delay = np.minimum(_TYPICAL_DELAY_S * np.exp(random.normal(0, 0.8, frame.height)), _LONGEST_DELAY_S)
    waits = pl.Series((delay * 1e6).astype(np.int64)).cast(pl.Duration("us"))
    return frame.with_columns((pl.col("occurred_at") + waits).alias(ARRIVES_AT))


def in_arrival_order(frames: Frames, rows: int = FRAME_ROWS) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the events as (topic, frame), in the order of arrival. `rows`: how many consecutive events, of all topics
    together, are yielded before the next ones; they make one frame per topic."""
    present = [topic for topic in _TOPICS if topic in frames and frames[topic].height]
    order = pl.concat(
        frames[topic].select(ARRIVES_AT, "event_id", topic=pl.lit(number, pl.Int8))
        for number, topic in enumerate(present)
    )
    order = order.sort(ARRIVES_AT, "topic", "event_id").with_columns(part=pl.int_range(pl.len()) // rows)
    counts = order.group_by("part", "topic").len().sort("part", "topic")
    sorted_frames = [frames[topic].sort(ARRIVES_AT, "event_id").drop(ARRIVES_AT) for topic in present]
    done = [0] * len(present)
    for _, number, count in counts.iter_rows():
        yield present[number], sorted_frames[number].slice(done[number], count)
        done[number] += count
