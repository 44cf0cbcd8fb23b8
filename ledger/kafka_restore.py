"""Restores records into Kafka at their original offsets, although a broker assigns offsets from 0 without gaps.

Gaps are filled with records that consumers never see. A transaction marker takes one offset and is never returned, so
the records before a gap of one offset are sent as a transaction. A longer gap is filled with an aborted transaction of
empty records and its marker. Empty records also fill the offsets before the first restored one, and are deleted
afterwards.

If a record is acknowledged at an offset other than its original one, another writer has appended to the topic, and
`LogNotEmpty` is raised. Only this module, `kafka_log` and `kafka_reader` use Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, groupby, pairwise, repeat
from typing import Final

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError

from coupon_ledger.ledger.errors import LogNotEmpty, LogUnavailable
from coupon_ledger.ledger.kafka_reader import RECORDED_AT_HEADER
from coupon_ledger.ledger.log import Chunk, TopicPartition

_EMPTY_RECORDS: Final = 32_768
"""Maximum number of empty records in one transaction, far below what its time limit allows."""
_MARKER_S: Final = 30.0
_POLL_S: Final = 0.005


class Placing:
    """Appends records to empty topics so that they get their original offsets.

    `transactions`: a transactional producer; needed only if there are gaps between offsets. `end_of`: a function that
    returns the end of a partition, after its last completed transaction.
    """

    def __init__(
        self,
        prefix: str,
        producer: KafkaProducer,
        transactions: KafkaProducer | None,
        end_of: Callable[[TopicPartition], int],
    ) -> None:
        self._prefix = prefix
        self._producer = producer
        self._transactions = transactions
        self._end_of = end_of

    def place(
        self, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], chunks: Iterable[Chunk]
    ) -> None:
        """Append the records of `chunks` at their original offsets, and fill each partition up to its offset in `ends`.
        `begins`: the offset of each partition's first record. Raises `LogNotEmpty`, `LogUnavailable`, and what the
        Kafka client raises."""
        without = set(ends)
        for tp, mine in groupby(chunks, lambda chunk: TopicPartition(chunk.topic, chunk.partition)):
            without.remove(tp)
            self._fill(tp, begins[tp], ends[tp], mine)
        for tp in sorted(without):
            self._fill(tp, begins[tp], ends[tp], ())

    def _fill(self, tp: TopicPartition, begin: int, end: int, chunks: Iterable[Chunk]) -> None:
        before = _empty(tp, 0, 0)
        for run in chain(_empties(tp, 0, begin), _runs(chunks)):
            self._put(before, int(run.offsets[0]))
            before = run
        self._put(before, end)

    def _put(self, run: Chunk, next_offset: int) -> None:
        """Append the records of `run`, which has no gaps. Fill the offsets from its end to `next_offset` (exclusive)
        with records that consumers never see."""
        tp, at = TopicPartition(run.topic, run.partition), run.next_offset
        if next_offset == at + 1:
            if not len(run):
                raise LogUnavailable(
                    f"topic {self._prefix}{tp.topic}: nothing can take the offset 0 of partition {tp.partition} alone,"
                    " which the archive holds no record of; restore into an embedded log (sqlite:///path)"
                )
            self._in_transaction(run, next_offset, commit=True)
            return
        self._append(self._producer, run)
        while at < next_offset:
            # Never a single offset, since that would be a marker without a record.
            size = next_offset - at if next_offset - at <= _EMPTY_RECORDS + 1 else _EMPTY_RECORDS
            self._in_transaction(_empty(tp, at, at + size - 1), at + size, commit=False)
            at += size

    def _in_transaction(self, run: Chunk, next_offset: int, *, commit: bool) -> None:
        """Append the records of `run` in a transaction, and wait for the transaction's marker, which takes the last
        offset before `next_offset`. `commit`: whether to commit the transaction; otherwise it is aborted."""
        producer = self._transactions
        assert producer is not None, "the archive was said to have no gaps"
        producer.begin_transaction()
        self._append(producer, run)
        (producer.commit_transaction if commit else producer.abort_transaction)()
        # The coordinator answers before the marker is written, so wait for the marker.
        tp, deadline = TopicPartition(run.topic, run.partition), time.monotonic() + _MARKER_S
        while (end := self._end_of(tp)) < next_offset:
            if time.monotonic() > deadline:
                raise KafkaTimeoutError(f"{self._prefix}{tp.topic}: a transaction's marker did not come")
            time.sleep(_POLL_S)
        if end > next_offset:
            raise self._not_alone(tp.topic)

    def _append(self, producer: KafkaProducer, run: Chunk) -> None:
        topic = self._prefix + run.topic
        rows = zip(repeat(run.partition), run.recorded_at.tolist(), run.keys, run.values, strict=False)
        sent = [
            producer.send(
                topic, value, key, [(RECORDED_AT_HEADER, at.to_bytes(8, "big", signed=True))], partition, at // 1000
            )
            for partition, at, key, value in rows
        ]
        producer.flush()
        failed = [future for future in sent if not (future.is_done and future.succeeded())]
        if failed:
            raise failed[0].exception or KafkaTimeoutError()
        if [future.value.offset for future in sent] != run.offsets.tolist():
            raise self._not_alone(run.topic)

    def _not_alone(self, topic: str) -> LogNotEmpty:
        return LogNotEmpty(
            f"topic {self._prefix}{topic}: it got other records meanwhile; end what writes into it, and restore again"
            " with --anew"
        )


def _runs(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The records of `chunks` as new chunks, which have no gaps between their offsets."""
    for chunk in chunks:
        cuts = np.flatnonzero(np.diff(chunk.offsets) != 1) + 1
        bounds = [0, *cuts.tolist(), len(chunk)]
        for start, end in pairwise(bounds):
            rows = slice(start, end)
            offsets = chunk.offsets[rows]
            yield Chunk(
                chunk.topic,
                chunk.partition,
                offsets,
                chunk.recorded_at[rows],
                chunk.keys[rows],
                chunk.values[rows],
                int(offsets[-1]) + 1,
            )


def _empties(tp: TopicPartition, start: int, end: int) -> Iterator[Chunk]:
    return (_empty(tp, at, min(at + _EMPTY_RECORDS, end)) for at in range(start, end, _EMPTY_RECORDS))


def _empty(tp: TopicPartition, start: int, end: int) -> Chunk:
    """A chunk of empty records with the offsets `start` to `end` (exclusive)."""
    nothing = [b""] * (end - start)
    return Chunk(*tp, np.arange(start, end), np.zeros(end - start, np.int64), nothing, nothing, end)
