"""What a series is at this time of the day or the week: a profile per season, and the season that forecasts best."""

from __future__ import annotations

import math
from typing import Final

_HOUR: Final = 3600
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY

_DENSE_S: Final = 120
_SWITCH: Final = 0.6
"""Another season takes over where its mean error is below this share of the day's, over rows that both forecast."""
_ERRORS: Final = 0.002
"""The weight of the latest error in the running means, once there are 1 / weight."""
_FIRST: Final = 100
"""Errors before another season takes over."""


class Profile:
    """A running mean per slot of a season."""

    def __init__(self, season_s: int, slots: int, weight: float, known: int) -> None:
        """`weight`: of the values of one visit to a slot, together; a slot's first values are averaged plainly.
        `known`: a slot forecasts after so many values."""
        self._season_s = season_s
        self._slots = slots
        self._kept = 1 - weight
        self._last_s = math.nan
        self._known = known
        self._means = [0.0] * slots
        self._counts = [0] * slots

    def _slot(self, at_s: float) -> int:
        return int(at_s % self._season_s * self._slots // self._season_s)

    def forecast(self, at_s: float) -> float:
        """NaN where the slot has too few values."""
        slot = self._slot(at_s)
        return self._means[slot] if self._counts[slot] >= self._known else math.nan

    def count(self, at_s: float) -> int:
        """How many values the slot has seen."""
        return self._counts[self._slot(at_s)]

    def learn(self, at_s: float, value: float) -> None:
        slot = self._slot(at_s)
        self._counts[slot] += 1
        visit = (at_s - self._last_s) / self._season_s * self._slots
        weight = 1 - self._kept ** min(max(visit, 0.0), 1.0) if not math.isnan(visit) else 0.0
        self._means[slot] += max(weight, 1 / self._counts[slot]) * (value - self._means[slot])
        self._last_s = at_s


class _Rival:
    """A profile, and how its forecasts compare with the day's."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._rows = 0
        self._error = 0.0
        self._day_error = 0.0

    @property
    def better(self) -> bool:
        return self._rows >= _FIRST and self._error < _SWITCH * self._day_error

    def learn(self, at_s: float, value: float, day: Profile) -> None:
        error, day_error = abs(value - self.profile.forecast(at_s)), abs(value - day.forecast(at_s))
        if not math.isnan(error + day_error):
            self._rows += 1
            weight = max(_ERRORS, 1 / self._rows)
            self._error += weight * (error - self._error)
            self._day_error += weight * (day_error - self._day_error)
        self.profile.learn(at_s, value)


class Seasons:
    """Three profiles of one series, and the choice of the one to forecast with: the day (a slot per quarter of an
    hour), the week (a slot per hour) and, where rows are at most two minutes apart, the hour (a slot per minute).

    If a series has one row a day, always at the same time, the day's profile uses only one of its slots, so it is a
    plain running mean of the series. The week's profile then has one slot in use for each day of the week."""

    def __init__(self) -> None:
        self._day = Profile(_DAY, 96, 0.21, 1)
        self._week = _Rival(Profile(_WEEK, 168, 0.4, 2))
        self._hour = _Rival(Profile(_HOUR, 60, 0.02, 48))
        self._last_s = math.nan

    def best(self, at_s: float) -> Profile:
        """The profile to forecast this row with."""
        for rival in (self._hour, self._week):
            if rival.better and not math.isnan(rival.profile.forecast(at_s)):
                return rival.profile
        return self._day

    def learn(self, at_s: float, value: float) -> None:
        self._week.learn(at_s, value, self._day)
        if at_s - self._last_s <= _DENSE_S:
            self._hour.learn(at_s, value, self._day)
        self._day.learn(at_s, value)
        self._last_s = at_s
