"""Reads a log through outages: a request that the log does not answer is repeated, with growing pauses, until the log
answers.

Always true:
- Only `LogNotAnswering` leads to a repetition. Every other error is raised.
- Each outage is logged twice: when it starts, with its cause, and when it ends, with its length.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from coupon_ledger.ledger.errors import LogNotAnswering
from coupon_ledger.ledger.log import Chunk, LogReader, StoredRecord, TopicPartition
from coupon_ledger.ledger.topics import ALL_TOPICS

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0

_logger = logging.getLogger("coupon_ledger.log")
Answer = TypeVar("Answer")


class Patience:
    """Makes requests to the log, and repeats each one until the log answers or `stopped` is set. Several threads may
    use it at once."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._lock = threading.Lock()
        self._since: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether the log is in an outage: a request failed, and none has been answered since."""
        return self._since is not None

    def __call__(self, request: Callable[[], Answer]) -> Answer:
        """Make the request until the log answers it, however long that takes. Returns the answer. Raises
        `LogNotAnswering` only if `stopped` is set."""
        pause_s = _FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            try:
                return request()
            except LogNotAnswering as error:
                self.failed(error, started)
                if self._stopped.wait(pause_s):
                    raise
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def failed(self, error: LogNotAnswering, started: float) -> None:
        """Record that a request failed. `started`: when the request was made (`time.monotonic`)."""
        with self._lock:
            if self._since is not None:
                return
            self._since = started
        _logger.warning("%s. Waiting for it", error, extra={"error": str(error)})

    def answered(self) -> None:
        """Record that the log answered a request."""
        with self._lock:
            if self._since is None:
                return
            seconds, self._since = time.monotonic() - self._since, None
        _logger.warning("the log answers again after %.0f s", seconds, extra={"seconds": round(seconds, 1)})


class PatientLog:
    """A `LogReader` that reads `log` and waits out its outages, instead of raising `LogNotAnswering`."""

    def __init__(self, log: LogReader, patience: Patience) -> None:
        self.url = log.url
        self._log = log
        self._patience = patience

    @property
    def visible_after_s(self) -> float:
        return self._log.visible_after_s

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        return self._answer(lambda: self._log.partitions(topics))

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        def read_some() -> list[Chunk]:
            chunks = self._log.read(positions, max_records, timeout_s)
            if not chunks and self._patience.waiting:
                # An empty answer does not prove that a log that was away is back.
                self._log.end_positions(list(positions))
                self._patience.answered()
            return chunks

        chunks = self._patience(read_some)
        if chunks:
            self._patience.answered()
        return chunks

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._answer(lambda: self._log.earliest_positions(partitions))

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._answer(lambda: self._log.end_positions(partitions))

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._answer(lambda: self._log.high_watermarks(partitions))

    def identities(self) -> dict[str, str]:
        return self._answer(self._log.identities)

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        return self._answer(lambda: self._log.records_at(positions))

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return self._log.next_recorded(positions)  # may be known while the log is away

    def close(self) -> None:
        self._log.close()

    def _answer(self, request: Callable[[], Answer]) -> Answer:
        answer = self._patience(request)
        self._patience.answered()
        return answer
