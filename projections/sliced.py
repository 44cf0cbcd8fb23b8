"""Splits events into slices by the hashes of their keys, so that all events of a key are in one slice.

Events arrive in pieces. Each piece is written to one Arrow file, which has a part of every slice. A slice is then read
from all files. So memory never has more than a few pieces and slices, however long the history is.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa


def write_slices(file: Path, events: pl.DataFrame, count: int) -> None:
    """Write a piece of events (with a column `key_hash`) to a file, split into `count` slices, at most 65,536. The n-th
    Arrow batch of the file contains the events of the n-th slice, in the order that they have in `events`."""
    hashes = events["key_hash"].to_numpy().view(np.uint64)
    slices = ((hashes >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.uint16)  # see `first_hash`
    order = np.argsort(slices, kind="stable")
    bounds = np.searchsorted(slices[order], np.arange(count + 1)).tolist()
    table = events[order].rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    [whole] = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    with file.open("wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for start, end in pairwise(bounds):
            writer.write_batch(whole.slice(start, end - start))


def first_hash(number: int, count: int) -> int:
    """The lowest hash, as an unsigned integer, of slice `number` among `count` slices."""
    return -(-(number << 32) // count) << 32


def read_slice(file: Path, number: int) -> pl.DataFrame:
    """The events of slice `number` in this file."""
    with pa.memory_map(str(file)) as source:
        events = pl.from_arrow(pa.ipc.open_file(source).get_batch(number))
    assert isinstance(events, pl.DataFrame)
    return events
