"""Offenders: what a rule found that is evaluated on the tables, not event by event (docs/decisions/0032-alerts.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Offender:
    """One key for which the condition of a rule holds. `since`: since when it holds, by the data's clock (naive UTC).
    `money_minor`: the money at stake, in the minor unit of `currency`. `details`: further values, which become part of
    the alert's evidence."""

    key: Mapping[str, str]
    value: float
    threshold: float
    since: datetime
    money_minor: int | None = None
    currency: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
