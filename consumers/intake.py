"""From the log's bytes to valid events in columns; everything else becomes a dead letter. Nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ledger.log import Chunk
from ledger.validity import valid_events
from projections.live.apply import Prepared, prepare

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Intake:
    """A batch, decoded. `events`: per topic, the valid ones, prepared for their tables.

    `dead_letters`: the columns of the table of that name. Both together are all records of the chunks.
    """

    events: dict[str, Prepared]
    dead_letters: pl.DataFrame
    records: int


@dataclass(frozen=True, slots=True)
class _Records:
    """All chunks of one topic behind one another. `values`: as they stand in the log; `messages`: in the ledger's
    own format."""

    topic: str
    partitions: Int64
    offsets: Int64
    recorded_at: Int64
    keys: list[bytes]
    values: list[bytes]
    messages: list[bytes]


def take_in(chunks: Sequence[Chunk]) -> Intake:
    """Decode and validate what was read."""
    events, letters = {}, []
    topics = dict.fromkeys(c.topic for c in chunks if len(c))
    for topic in topics:
        frame, dead = told_valid(topic, [c for c in chunks if c.topic == topic])
        letters.append(dead)
        if frame.height:
            events[topic] = prepare(topic, frame)
    nothing = _dead_letters(_gathered("", []), {})
    return Intake(events, pl.concat([nothing, *letters]), sum(len(c) for c in chunks))


def told_valid(topic: str, chunks: list[Chunk]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The valid events of chunks of one topic, and everything else as dead letters."""
    records = _gathered(topic, chunks)
    frame, dead = valid_events(topic, records.messages)
    rows = frame["row"].to_numpy()
    events = frame.drop("row").with_columns(
        pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        recorded_at=pl.Series(records.recorded_at[rows]).cast(pl.Datetime("us")),
        log_partition=pl.Series(records.partitions[rows]).cast(pl.Int32),
        log_offset=pl.Series(records.offsets[rows]),
    )
    return events, _dead_letters(records, dead)


def _gathered(topic: str, chunks: list[Chunk]) -> _Records:
    empty = np.zeros(0, dtype=np.int64)
    return _Records(
        topic,
        np.concatenate([empty, *(np.full(len(c), c.partition, dtype=np.int64) for c in chunks)]),
        np.concatenate([empty, *(c.offsets for c in chunks)]),
        np.concatenate([empty, *(c.recorded_at for c in chunks)]),
        [k for c in chunks for k in c.keys],
        [v for c in chunks for v in c.wire or c.values],
        [m for c in chunks for m in c.values],
    )


def _dead_letters(records: _Records, dead: dict[int, tuple[str, str]]) -> pl.DataFrame:
    rows = sorted(dead)
    return pl.DataFrame(
        {
            "topic": [records.topic] * len(rows),
            "log_partition": records.partitions[rows].tolist(),
            "log_offset": records.offsets[rows].tolist(),
            "recorded_at": pl.Series(records.recorded_at[rows]).cast(pl.Datetime("us")),
            "key": [records.keys[i] for i in rows],
            "value": [records.values[i] for i in rows],
            "reason": [dead[i][0] for i in rows],
            "detail": [dead[i][1] for i in rows],
        },
        schema={
            "topic": pl.String,
            "log_partition": pl.Int32,
            "log_offset": pl.Int64,
            "recorded_at": pl.Datetime("us"),
            "key": pl.Binary,
            "value": pl.Binary,
            "reason": pl.String,
            "detail": pl.String,
        },
    )
