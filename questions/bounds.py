"""Bounds of question parameters, by name and type: the same for the command line and the endpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from coupon_ledger.ledger.errors import WrongQuestion

_INT64: Final = 2**63 - 1
_CENTURY_DAYS: Final = 36_525
MOST_ROWS: Final = 1_000_000_000
MAX_TEXT: Final = 64_000_000
"""Longest question, in characters."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range of numbers, both ends included."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"from {self.least:,} to {self.most:,}"


_ANY_INTEGER: Final = Bounds(-_INT64 - 1, _INT64)
_ANY_NUMBER: Final = Bounds(-1e15, 1e15)
BOUNDS: Final[Mapping[str, Bounds]] = MappingProxyType(
    {
        "limit": Bounds(0, MOST_ROWS),
        "partition": Bounds(0, 2**31 - 1),
        "offset": Bounds(0, _INT64),
        "bucket": Bounds(0, 2**31 - 1),
        "ended_days": Bounds(0, _CENTURY_DAYS),
        "ahead_days": Bounds(1, _CENTURY_DAYS),
        "after_days": Bounds(1, _CENTURY_DAYS),
        "active_days": Bounds(1, _CENTURY_DAYS),
        "days": Bounds(1, _CENTURY_DAYS),
        "within_s": Bounds(0, _CENTURY_DAYS * 86_400),
        "people": Bounds(1, 10**12),
        "treatments": Bounds(1, 1_000),
        "most": Bounds(2, 100),
    }
)


def bounds_of(name: str, kind: Any) -> Bounds | None:
    """The bounds of a parameter, by its name, else by its type; None if it is not a number."""
    kinds = {kind, *getattr(kind, "__args__", ())}
    if name in BOUNDS:
        return BOUNDS[name]
    return _ANY_INTEGER if int in kinds else _ANY_NUMBER if float in kinds else None


def checked(name: str, kind: Any, value: Any) -> Any:
    """The value in the form that the tables use: instants in naive UTC. Raises `WrongQuestion` with name and bounds."""
    if isinstance(value, datetime):
        return _naive(name, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    bounds = bounds_of(name, kind)
    if not math.isfinite(value) or (bounds is not None and not bounds.least <= value <= bounds.most):
        shown = str(value) if len(str(value)) <= 40 else str(value)[:39] + "…"
        raise WrongQuestion(f"{name} {shown}: is out of bounds; give a number {bounds}")
    return value


def _naive(name: str, value: datetime) -> datetime:
    try:
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    except OverflowError:
        raise WrongQuestion(
            f"{name} {value.isoformat()}: lies outside the years 1 to 9999 in UTC; give an instant within them"
        ) from None
