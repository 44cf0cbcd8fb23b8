"""The order in which events arrive in the log.

A stream is one frame of events per topic, with the columns of the wire and one more, `arrives_at`: when the event
reaches the log. `in_arrival_order` cuts a stream into small frames, in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
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
    sequence, ordered = arrival_order(frames)
    topics = list(ordered)
    done = [0] * len(topics)
    for first in range(0, len(sequence), rows):
        counts = np.bincount(sequence[first : first + rows], minlength=len(topics)).tolist()
        for number, (topic, count) in enumerate(zip(topics, counts, strict=True)):
            if count:
                yield topic, ordered[topic].slice(done[number], count)
                done[number] += count


def arrival_order(frames: Frames) -> tuple[npt.NDArray[np.int64], dict[str, pl.DataFrame]]:
    """For each event in the order of arrival, the number of its topic in the second result: the frames of the topics,
    sorted by arrival, without `arrives_at`."""
    present = [topic for topic in _TOPICS if topic in frames and frames[topic].height]
    ordered = {topic: frames[topic].sort(ARRIVES_AT, "event_id") for topic in present}
    every = [frame.select(ARRIVES_AT, topic=pl.lit(n, pl.Int64)) for n, frame in enumerate(ordered.values())]
    if not every:
        return np.array([], dtype=np.int64), {}
    sequence = pl.concat(every).sort(ARRIVES_AT, "topic", maintain_order=True)["topic"].to_numpy()
    return sequence, {topic: frame.drop(ARRIVES_AT) for topic, frame in ordered.items()}


def with_arrivals(frames: Frames, seed: int) -> Frames:
    """Add `arrives_at` to the events of a source that does not say when its events arrive (see `with_arrival`)."""
    return {
        topic: with_arrival(frame, np.random.default_rng([seed, number]))
        for number, (topic, frame) in enumerate(frames.items())
    }
