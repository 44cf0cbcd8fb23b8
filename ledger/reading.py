"""Reads a topic of the ledger's own up to its end, from any position on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from coupon_ledger.ledger.errors import LogNotAnswering
from coupon_ledger.ledger.log import Chunk, LogReader, TopicPartition

_AT_ONCE: Final = 1_000
_PATIENCE_S: Final = 10.0


def chunks_to_end(log: LogReader, topic: str, positions: dict[TopicPartition, int]) -> Iterator[Chunk]:
    """The records of a topic from `positions` up to the end that each partition has now. A partition that is not in
    `positions` is read from its earliest record. `positions` then has the offset at which the next read continues.
    Raises the errors of reading the log."""
    partitions = log.partitions([topic])
    ends = log.end_positions(partitions)
    for partition, earliest in log.earliest_positions(partitions).items():
        positions.setdefault(partition, earliest)
    while behind := {p: positions[p] for p in partitions if positions[p] < ends[p]}:
        chunks = log.read(behind, _AT_ONCE, _PATIENCE_S)
        if not chunks:
            raise LogNotAnswering(f"log {log.url}: {topic} gave nothing for {_PATIENCE_S:g} s; try again later")
        for chunk in chunks:
            positions[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
            yield chunk
