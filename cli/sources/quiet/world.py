"""The parameters of quiet days, and their rhythm: how busy each quarter of an hour is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]

CURRENCY: Final = "CNY"
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
BIN: Final = 15 * MINUTE
BINS_PER_DAY: Final = DAY // BIN
_EAST_OF_UTC: Final = 8 * HOUR
INSTANT: Final = pl.Datetime("us", "UTC")

# How busy the shop is at each full hour of the local day, from midnight to midnight, relative to each other.
_HOURS: Final = (30, 16, 9, 6, 5, 8, 18, 38, 58, 72, 84, 92, 104, 92, 80, 78, 80, 84, 92, 108, 128, 132, 104, 62, 30)
# The same for the days of a week from Monday on.
_WEEK: Final = (0.94, 0.92, 0.94, 0.97, 1.05, 1.12, 1.06)


@dataclass(frozen=True)
class QuietWorld:
    """Parameters of the quiet days. Shares are fractions of 1."""

    seed: int = 1
    """Not negative."""
    days: int = 14
    events_per_day: int = 20_000
    """Average number of events, of all topics together. The real number differs by some percent."""
    start: datetime = datetime(2025, 8, 31, 16, tzinfo=UTC)
    """Midnight at the start of the first day (a Monday in China). The local time is that of China. Some campaigns were
    published in the three weeks before, and the first coupons are created in the night before."""
    people: int | None = None
    """Number of customers; by default as many as `events_per_day`."""
    family_share: float = 0.06
    """Share of the customers who use one device with two others."""
    office_share: float = 0.4
    """Share of the customers who go online in an office at work time."""
    mobile_share: float = 0.45
    """Share of the events away from the office that come through a mobile carrier."""
    flash_sales: bool = True
    """Whether there is a flash sale every Friday from 20:00 to 22:00, announced three days before."""
    experiment: bool = True
    """Whether a campaign is an experiment, with a control and a treatment that does no harm."""
    repeat_share: float = 0.002
    """Share of the events that arrive a second time."""
    late_share: float = 0.002
    """Share of the events that arrive one to eight minutes late."""
    double_use_share: float = 0.0
    """Share of the uses that are followed by a use of the same coupon on another order."""
    day_noise: float = 0.03
    """Standard deviation of the logarithm of a day's level."""

    @property
    def name(self) -> str:
        """What the ids of this world's campaigns, coupons, orders and events start with. Different worlds have
        different names, so they can be appended to one log; customers, devices and addresses are the same in all."""
        return f"q{crc32(repr(self).encode()):08x}"

    @property
    def customers(self) -> int:
        return max(60, self.people if self.people is not None else self.events_per_day)

    @property
    def start_us(self) -> int:
        return round(self.start.timestamp()) * SECOND

    @property
    def end_us(self) -> int:
        return self.start_us + self.days * DAY

    @property
    def first_weekday(self) -> int:
        """The local weekday of the first day; 0 is Monday."""
        return ((self.start_us + _EAST_OF_UTC) // DAY + 3) % 7  # the epoch began on a Thursday

    def random(self, stage: str) -> np.random.Generator:
        """The random generator of one stage."""
        return np.random.default_rng([self.seed, crc32(stage.encode())])


def rhythm(world: QuietWorld) -> Array:
    """For each quarter of an hour of the stretch, the share of an average day's activity that falls into it."""
    at = (np.arange(BINS_PER_DAY) + 0.5) / BINS_PER_DAY * 24
    day = np.interp(at, np.arange(25), _HOURS)
    week = np.array(_WEEK)[(world.first_weekday + np.arange(world.days)) % 7] / np.mean(_WEEK)
    noise = np.exp(world.random("rhythm").normal(0, world.day_noise, world.days))
    shares: Array = np.outer(week * noise, day / day.sum()).ravel()
    return shares


def moments(random: np.random.Generator, start_us: int, expected: Array) -> Array:
    """Instants of a Poisson process, sorted. `expected`: the expected number in each quarter of an hour from `start_us`
    on."""
    bins = np.repeat(np.arange(len(expected)), random.poisson(expected))
    return np.sort(start_us + bins * BIN + random.integers(0, BIN, len(bins)))


def daytime(random: np.random.Generator, size: int) -> Array:
    """Times of day, in microseconds after local midnight, distributed as people's activity."""
    weights = np.array(_HOURS[:24]) / sum(_HOURS[:24])
    return random.choice(24, size, p=weights) * HOUR + random.integers(0, HOUR, size)


def day_of(world: QuietWorld, at: Array) -> Array:
    """The local midnight at or before each instant."""
    midnights: Array = at - (at - world.start_us) % DAY
    return midnights


def waits(random: np.random.Generator, size: int, mean: int, least: int, most: int) -> Array:
    """Exponentially distributed durations from `least` to `most`. `mean`: the mean before they are limited."""
    return (least + random.exponential(mean, size)).clip(least, most).astype(np.int64)
