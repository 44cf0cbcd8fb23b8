"""Reads `coupon.alerts`, or another topic, in a thread of its own, so that the owner never waits for the log.

The owner takes what was read (`taken`). Until the thread has once reached the end that the topic had at its start, the
tail is not `complete`: there may be events that the owner does not know.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from queue import Empty, Queue
from typing import Any, Final, NamedTuple

from coupon_ledger.ledger.alert_events import events_in
from coupon_ledger.ledger.errors import LedgerError, LogNotInitialised, LogTruncated
from coupon_ledger.ledger.log import Chunk, LogReader, TopicPartition
from coupon_ledger.ledger.topics import ALERTS

_AT_ONCE: Final = 1_000
_AHEAD: Final = 4
_WAIT_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 30.0
_SAID_AFTER_S: Final = 1.0
_CLOSING_S: Final = 10.0
_logger = logging.getLogger(__name__)

Positions = Mapping[TopicPartition, int]
Opening = Callable[[], AbstractContextManager[LogReader]]
"""Opens a log to read from in one thread, and closes it after the block."""


class Piece(NamedTuple):
    """Some events in the order of recording, and the positions after them."""

    events: list[Any]
    positions: dict[TopicPartition, int]


class Tail:
    """Reads the topic from `positions` on; a partition that is not in them, from its start. `waited_s`: how
    long it rests when there is nothing new."""

    def __init__(
        self,
        log: Opening,
        positions: Positions,
        waited_s: float = _WAIT_S,
        *,
        topic: str = ALERTS,
        decode: Callable[[Chunk], Iterable[Any]] = events_in,
    ) -> None:
        """`decode`: what a chunk of the topic has, each with `recorded_at` and `position`."""
        self._topic = topic
        self._decode = decode
        self._open = log
        self._positions = dict(positions)
        self._waited_s = waited_s
        self._pieces: Queue[Piece] = Queue(_AHEAD)
        self._stop = threading.Event()
        self._at_end = threading.Event()
        self._no_topic = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{topic} tail", daemon=True)
        self._thread.start()

    @property
    def complete(self) -> bool:
        """Whether everything up to the end that the topic had at the start was read and taken."""
        return self._at_end.is_set() and self._pieces.empty()

    @property
    def lacks_topic(self) -> bool:
        """Whether the log was made before there were alerts, and has no topic for them."""
        return self._no_topic.is_set()

    def taken(self, timeout_s: float = 0.0) -> Piece | None:
        """The next piece; None if there is none within `timeout_s`."""
        try:
            return self._pieces.get(block=timeout_s > 0, timeout=timeout_s or None)
        except Empty:
            return None

    def close(self) -> None:
        self._stop.set()
        self._thread.join(_CLOSING_S)

    def _run(self) -> None:
        pause_s = _WAIT_S
        while not self._stop.is_set():
            try:
                with self._open() as log:
                    self._read_on(log)
                return
            except LogTruncated as error:
                self._positions.clear()
                if not self._stop.wait(pause_s):  # the consumer may stop, and say itself that this is another log
                    _logger.warning("%s: %s; what is left of the topic is read", self._topic, error)
            except LogNotInitialised as error:
                # A log from before there were alerts lacks their topic; if others are missing, the consumer says so.
                if not self._no_topic.is_set() and (self._topic == ALERTS or pause_s > _SAID_AFTER_S):
                    _logger.warning("%s: %s", self._topic, error)
                    self._no_topic.set()
            except LedgerError as error:
                if pause_s > _SAID_AFTER_S:  # the consumer reads the same log, and says at once what is wrong with it
                    _logger.warning("%s: %s; trying again in %.0f s", self._topic, error, pause_s)
            except Exception:
                _logger.exception("%s: the topic cannot be read; trying again in %.0f s", self._topic, pause_s)
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _read_on(self, log: LogReader) -> None:
        partitions = log.partitions([self._topic])
        self._no_topic.clear()
        ends = log.end_positions(partitions)
        for partition, earliest in log.earliest_positions(partitions).items():
            self._positions.setdefault(partition, earliest)
        while not self._stop.is_set():
            if all(self._positions[p] >= end for p, end in ends.items()):
                self._at_end.set()
            # The embedded log asks its file many times a second while it waits, so later on the thread sleeps instead.
            chunks = log.read(self._positions, _AT_ONCE, 0.0 if self._at_end.is_set() else self._waited_s)
            for chunk in chunks:
                self._positions[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
            if chunks:
                events = [event for chunk in chunks for event in self._decode(chunk)]
                self._put(Piece(sorted(events, key=lambda e: (e.recorded_at, e.position)), dict(self._positions)))
            else:
                self._stop.wait(self._waited_s if self._at_end.is_set() else 0.0)

    def _put(self, piece: Piece) -> None:
        while not self._stop.is_set():
            if not self._pieces.full():
                self._pieces.put(piece)
                return
            self._stop.wait(_WAIT_S / 10)
