"""Durations as rules write them: `90s`, `10m`, `1h30m`, `7d` as in Prometheus, or ISO 8601 (`PT10M`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

EXAMPLE: Final = "is no duration; write for example 10m"
NO_UNIT: Final = "has no unit; write for example 10m"
TOO_FINE: Final = "is finer than a millisecond; write whole milliseconds"
TOO_LONG: Final = "is too long; write at most 366d"

_UNITS: Final = {
    "y": timedelta(days=365),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
"""As in Prometheus: a year has 365 days."""
_PROMETHEUS: Final = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit})?" for unit in _UNITS))
_NUMBER: Final = r"([0-9]{1,12})"
_ISO: Final = re.compile(
    rf"P(?:{_NUMBER}Y)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:([0-9]{{1,12}})(?:\.([0-9]{{1,6}}))?S)?)?"
)


def parse(text: str) -> timedelta:
    """The duration that `text` names. `0` needs no unit. Raises `ValueError` with what is wrong and what to write."""
    text = text.strip()
    if text == "0":
        return timedelta(0)
    if text.isascii() and text.isdigit():
        raise ValueError(NO_UNIT)
    try:
        if text and (match := _PROMETHEUS.fullmatch(text)):
            return sum((int(n) * u for n, u in zip(match.groups(), _UNITS.values(), strict=True) if n), timedelta())
        if (match := _ISO.fullmatch(text)) and text[-1] not in "PT":
            *whole, micros = match.groups()
            units = list(_UNITS.values())[: len(whole)]
            parts = (int(n) * u for n, u in zip(whole, units, strict=True) if n)
            return sum(parts, timedelta(microseconds=int((micros or "0").ljust(6, "0"))))
    except OverflowError:
        raise ValueError(TOO_LONG) from None
    raise ValueError(EXAMPLE)


def written(duration: timedelta) -> str:
    """The duration as Prometheus writes it, without weeks and years: `1d2h`. `parse` reads it back. A fraction of a
    millisecond is left out."""
    rest = duration
    parts = []
    for name, unit in list(_UNITS.items())[2:]:
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        value = parse(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value:
            raise ValueError(NO_UNIT)
        value = timedelta(0)
    if not isinstance(value, timedelta):
        raise ValueError(EXAMPLE)
    if value.microseconds % 1_000:
        raise ValueError(TOO_FINE)
    return value


@dataclass(frozen=True, slots=True)
class Between:
    """A validator of durations: from `least` to `most`."""

    least: timedelta
    most: timedelta

    def __call__(self, value: timedelta) -> timedelta:
        if value < self.least:
            raise PydanticCustomError("too_brief", "is shorter than {ge}", {"ge": written(self.least)})
        if value > self.most:
            raise PydanticCustomError("too_lasting", "is longer than {le}", {"le": written(self.most)})
        return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""A duration in whole milliseconds, which may be given as text."""
