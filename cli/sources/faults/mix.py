"""Mix a fault into a clean stream, and note for its label which events were added, changed or removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.arrival import ARRIVES_AT, Frames, with_arrival
from coupon_ledger.cli.sources.faults.labels import KEY_FIELDS, Label
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.ledger.words import note

INSTANT: Final = pl.Datetime("us", "UTC")
_EARLIEST: Final = 0.55
_LATEST: Final = 0.9
"""In which part of the stretch faults start by default: after enough days to learn what is ordinary."""


class Mix:
    """A clean stream, and what one fault does to it.

    `tag`: what the ids of everything new start with; other faults have other tags. `first`, `last`: when the stretch's
    first and last order event happened; `over`: when its last coupon event happened; `currency`: that of its orders.
    """

    def __init__(self, kind: str, frames: Frames, random: np.random.Generator) -> None:
        self.kind, self.frames, self.random = kind, frames, random
        self.tag = f"f{random.integers(2**32):08x}"
        if not frames[COUPON].height or not frames[ORDER].height:
            raise LedgerError(note("fault {kind}: the stream has no coupon events or no order events", kind=kind))
        self.first, self.last = bounds(frames[ORDER]["occurred_at"])
        self.over = bounds(frames[COUPON]["occurred_at"])[1]
        currencies = frames[ORDER]["currency"].drop_nulls()
        self.currency: str = currencies[0] if len(currencies) else "CNY"
        self._named = 0
        self._added: list[tuple[str, pl.DataFrame, bool]] = []
        self._removed: dict[str, pl.Series] = {}
        self._delayed: dict[str, pl.DataFrame] = {}

    def begin(self, at: datetime | None, lasting: timedelta, busy: bool = False) -> datetime:
        """When the fault starts: at `at`, or else at a random instant in the later part of the stretch; with `busy`, at
        the hour of that day from which most orders come within the time `lasting`. Raises `LedgerError` if there are no
        events at `at`."""
        if at is not None:
            if not self.first <= at < self.last:
                what = "fault {kind}: cannot start at {at:instant}; orders reach from {first:instant} to {last:instant}"
                values = {"at": naive(at), "first": naive(self.first), "last": naive(self.last)}
                raise LedgerError(note(what, kind=self.kind, **values))
            return at
        stretch = self.last - self.first
        latest = min(_LATEST * stretch, stretch - lasting)
        start = self.first + max(self.random.uniform(_EARLIEST, _LATEST) / _LATEST * latest, 0.05 * stretch)
        return self._busiest(start, lasting) if busy else start

    def _busiest(self, start: datetime, lasting: timedelta) -> datetime:
        hours = np.bincount(self.frames[ORDER]["occurred_at"].dt.hour().to_numpy(), minlength=24)
        length = max(1, min(24, round(lasting / timedelta(hours=1))))
        sums = [np.roll(hours, -hour)[:length].sum() for hour in range(24)]
        found = start.replace(hour=int(np.argmax(sums)), minute=0, second=0, microsecond=0)
        return found if found + lasting < self.last else found - timedelta(days=1)

    def ids(self, what: str, size: int) -> pl.Series:
        """`size` new ids. `what`: a letter or word that tells what they are of."""
        self._named += 1
        return _numbered(f"{self.tag}-{what}{self._named}", size)

    def add(
        self, topic: str, events: pl.DataFrame, kind: str, source: str | None = None, context: bool = False
    ) -> None:
        """Add events of the type `kind`, with new event ids. `events`: all columns but `event_id`, `type` and `source`.
        `source`: by default the one that most events of this type have. `context`: whether the events are ordinary in
        themselves."""
        number = sum(frame.height for _, frame, _ in self._added)
        whole = events.with_columns(
            event_id=_numbered(f"{self.tag}-{kind}", events.height, number),
            type=pl.lit(kind),
            source=pl.lit(source or self.source(topic, kind)),
        )
        self._added.append((topic, whole, context))

    def source(self, topic: str, kind: str) -> str:
        """The source that most events of the type `kind` have."""
        for frame in (self.frames[topic].filter(type=kind), self.frames[topic]):
            if frame.height:
                counts = frame["source"].value_counts().sort("count", "source", descending=True)
                return str(counts["source"][0])
        return "shop"

    def remove(self, topic: str, event_ids: pl.Series) -> None:
        """Events that do not happen because of the fault."""
        before = self._removed.get(topic, pl.Series(dtype=pl.String))
        self._removed[topic] = pl.concat([before, event_ids]).unique(maintain_order=True)

    def delay(self, topic: str, arrivals: pl.DataFrame) -> None:
        """Let events arrive at another time. `arrivals`: `event_id` and the new `arrives_at`, one row per event."""
        self._delayed[topic] = arrivals

    def label(
        self,
        start: datetime,
        end: datetime,
        campaign_id: str | None,
        money_minor: int,
        keys: Mapping[str, Iterable[str | None]],
    ) -> tuple[Frames, Label]:
        """The stream with the fault in it, and its label. `keys`: by field, the values that are part of the fault;
        nulls are left out."""
        unknown = set(keys) - set(KEY_FIELDS)
        assert not unknown, unknown
        named = {name: tuple(sorted({v for v in keys[name] if v is not None})) for name in KEY_FIELDS if name in keys}
        fault = [frame for _, frame, context in self._added if not context]
        context = [frame for _, frame, context in self._added if context]
        label = Label(
            kind=self.kind,
            start=start,
            end=end,
            campaign_id=campaign_id,
            keys={name: values for name, values in named.items() if values},
            money_minor=money_minor,
            currency=self.currency,
            event_ids=(*_ids(fault), *_ids(self._delayed.values())),
            context_event_ids=_ids(context),
            removed_event_ids=tuple(i for ids in self._removed.values() for i in ids),
        )
        return {topic: self._mixed(topic, frame) for topic, frame in self.frames.items()}, label

    def _mixed(self, topic: str, frame: pl.DataFrame) -> pl.DataFrame:
        if topic in self._removed:
            frame = frame.filter(~pl.col("event_id").is_in(self._removed[topic].implode()))
        if topic in self._delayed:
            moved = self._delayed[topic].rename({ARRIVES_AT: "moved"})
            frame = frame.join(moved, on="event_id", how="left", maintain_order="left")
            frame = frame.with_columns(pl.coalesce("moved", ARRIVES_AT).alias(ARRIVES_AT)).drop("moved")
        added = [_typed(with_arrival(events, self.random), frame) for of, events, _ in self._added if of == topic]
        if not added and topic not in self._delayed:
            return frame
        return pl.concat([frame, *added], how="diagonal").sort(ARRIVES_AT, "event_id", maintain_order=True)


def _typed(events: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    """`events` with the column types of `like`, where both have a column."""
    return events.with_columns(
        pl.col(name).cast(dtype) for name, dtype in like.schema.items() if name in events.columns and dtype != pl.Null
    )


def _ids(frames: Iterable[pl.DataFrame]) -> tuple[str, ...]:
    return tuple(i for frame in frames for i in frame["event_id"])


def _numbered(prefix: str, size: int, first: int = 0) -> pl.Series:
    number = pl.int_range(first, first + size, eager=True)
    return pl.select(pl.lit(f"{prefix}-") + number.cast(pl.String).str.zfill(5)).to_series()


def instants(start: datetime, seconds: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> pl.Series:
    """Instants, given in seconds after `start`."""
    micros = (np.asarray(seconds) * 1e6).astype(np.int64) + round((start - _EPOCH).total_seconds() * 1e6)
    return pl.Series(micros, dtype=pl.Int64).cast(INSTANT)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def bounds(at: pl.Series) -> tuple[datetime, datetime]:
    """The first and the last of some instants. There must be at least one."""
    first, last = at.min(), at.max()
    assert isinstance(first, datetime) and isinstance(last, datetime)
    return first, last


def naive(at: datetime) -> datetime:
    """The instant in UTC without its zone, as notes take it."""
    return at.astimezone(UTC).replace(tzinfo=None)
