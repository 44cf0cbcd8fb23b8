"""Decodes and validates records of the log. The valid events become a frame per topic; every other record becomes a
dead letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.ledger.log import LAST_RECORDED_US, Chunk, Position
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.topics import KEY_FIELD
from coupon_ledger.ledger.validity import valid_events
from coupon_ledger.projections.live.apply import Prepared, prepare

Int64 = npt.NDArray[np.int64]
_YEAR_US: Final = 365 * 86_400 * 1_000_000
_NO_TIME: Final = ("recorded_at_out_of_range", "the log gives a time of recording before 1970 or after the year 9999")


@dataclass(slots=True)
class Rules:
    """How this process treats *skewed* events: events that happened more than `skew` before or after the log recorded
    them. If `refuse_skewed`, skewed events become dead letters. Otherwise they are folded, and counted."""

    skew: timedelta = timedelta(days=400)
    refuse_skewed: bool = False


RULES: Final = Rules()


def use_rules(settings: Settings) -> None:
    """Set `RULES` from the settings. Raises `SettingsError`."""
    RULES.skew, RULES.refuse_skewed = settings.instant_skew, settings.refuses_skewed


@dataclass(frozen=True, slots=True)
class Oddities:
    """How many valid events are suspicious, by kind.

    `other_keys`: events whose record has the wrong key. The right key is the id of the event's coupon, order, campaign
    or user. An event with a wrong key may be in another partition than the other events with the same id. `skewed`: see
    `Rules`. `in_1970`: skewed events that seem to have happened in 1970, which is typical of producers that write
    milliseconds or seconds instead of microseconds.
    """

    other_keys: int = 0
    skewed: int = 0
    in_1970: int = 0

    def plus(self, other: Oddities) -> Oddities:
        return Oddities(self.other_keys + other.other_keys, self.skewed + other.skewed, self.in_1970 + other.in_1970)

    def any(self) -> bool:
        """Whether any count is not 0."""
        return self != Oddities()


@dataclass(frozen=True, slots=True)
class Intake:
    """A batch after decoding and validation. `events`: the valid events by topic, prepared for folding. `dead_letters`:
    all other records, with the columns of the table `dead_letters`. `records`: how many records the batch has.
    `oddities`: the counts of suspicious events by topic, only for topics that have any."""

    events: dict[str, Prepared]
    dead_letters: pl.DataFrame
    records: int
    oddities: dict[str, Oddities] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Records:
    """All records of one topic's chunks, as columns. `values`: the bytes as stored in the log. `messages`: the same
    values in the ledger's own format; the two differ only if a schema registry is used."""

    topic: str
    partitions: Int64
    offsets: Int64
    recorded_at: Int64
    keys: list[bytes]
    values: list[bytes]
    messages: list[bytes]


def take_in(chunks: Sequence[Chunk]) -> Intake:
    """Decode and validate the records of chunks, which may be of several topics, and prepare the valid events for
    folding."""
    events, letters, oddities = {}, [], {}
    topics = dict.fromkeys(c.topic for c in chunks if len(c))
    for topic in topics:
        frame, dead, odd = validated(topic, [c for c in chunks if c.topic == topic])
        letters.append(dead)
        if odd.any():
            oddities[topic] = odd
        if frame.height:
            events[topic] = prepare(topic, frame)
    nothing = _dead_letters(_gathered("", []), {})
    return Intake(events, pl.concat([nothing, *letters]), sum(len(c) for c in chunks), oddities)


def validated(topic: str, chunks: list[Chunk]) -> tuple[pl.DataFrame, pl.DataFrame, Oddities]:
    """Decode and validate the records of one topic's chunks. Returns the valid events (a frame that `prepare` accepts),
    all other records as dead letters, and the counts of suspicious events."""
    records = _gathered(topic, chunks)
    frame, dead = valid_events(topic, records.messages)
    frame = _recordable(frame, records, dead)
    rows = frame["row"].to_numpy()
    keys = pl.Series(records.keys, dtype=pl.Binary)[rows] if len(rows) else pl.Series([], dtype=pl.Binary)
    odd = Oddities(int((keys != frame[KEY_FIELD[topic]].cast(pl.Binary)).sum()))
    odd = odd.plus(skewed(frame["occurred_at"], records.recorded_at[rows]))
    events = frame.drop("row").with_columns(
        pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        recorded_at=pl.Series(records.recorded_at[rows]).cast(pl.Datetime("us")),
        log_partition=pl.Series(records.partitions[rows]).cast(pl.Int32),
        log_offset=pl.Series(records.offsets[rows]),
    )
    return events, _dead_letters(records, dead), odd


def skewed(occurred_at: pl.Series, recorded_at: Int64) -> Oddities:
    """How many of these events are skewed, and how many of the skewed ones happened in 1970; `other_keys` is 0.
    `recorded_at`: in µs since the epoch."""
    occurred = occurred_at.cast(pl.Int64).to_numpy()
    far = _far(occurred, recorded_at)
    return Oddities(skewed=int(far.sum()), in_1970=int((far & (occurred >= 0) & (occurred < _YEAR_US)).sum()))


def _far(occurred_us: Int64, recorded_us: Int64) -> npt.NDArray[np.bool_]:
    far: npt.NDArray[np.bool_] = np.abs(recorded_us - occurred_us) > RULES.skew // timedelta(microseconds=1)
    return far


def _recordable(frame: pl.DataFrame, records: _Records, dead: dict[int, tuple[str, str]]) -> pl.DataFrame:
    """The events of `frame`, except those whose time of recording is impossible and, if skewed events are refused,
    except skewed ones. The excepted events are added to `dead`: from the row number to the reason and detail of the
    dead letter."""
    rows = frame["row"].to_numpy()
    recorded = records.recorded_at[rows]
    bad = out_of_range(recorded)
    dead.update(dict.fromkeys(rows[bad].tolist(), _NO_TIME))
    if RULES.refuse_skewed:
        far = _far(frame["occurred_at"].cast(pl.Int64).to_numpy(), recorded) & ~bad
        days = RULES.skew // timedelta(days=1)
        words = f"it happened more than {days} days before or after it was recorded (instant-skew-days)"
        dead.update(dict.fromkeys(rows[far].tolist(), ("instant_skewed", words)))
        bad = bad | far
    return frame.filter(pl.Series(~bad)) if bad.any() else frame


def out_of_range(recorded_us: Int64) -> npt.NDArray[np.bool_]:
    """For each time of recording (µs since the epoch), whether it is impossible: before 1970, or so late that the log
    reader has replaced it by its upper limit."""
    return (recorded_us < 0) | (recorded_us >= LAST_RECORDED_US)


def dead_letters_at(chunks: Sequence[Chunk], failed: Mapping[Position, tuple[str, str]]) -> pl.DataFrame:
    """The records at the positions in `failed`, as dead letters. `failed`: from the position to the reason and detail
    of the dead letter. `chunks`: must contain these records."""
    letters = [_dead_letters(_gathered("", []), {})]
    for topic in sorted({position.topic for position in failed}):
        records = _gathered(topic, [c for c in chunks if c.topic == topic])
        rows = {p: row for row, p in enumerate(zip(records.partitions.tolist(), records.offsets.tolist(), strict=True))}
        mine = {p: words for p, words in failed.items() if p.topic == topic}
        letters.append(_dead_letters(records, {rows[p.partition, p.offset]: words for p, words in mine.items()}))
    return pl.concat(letters)


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
