"""What a question in plain words was understood as: a question of the registry with its parameters, and how sure that
is.

*Sure*: every word was used, and no other reading is near. *Likely*: answered, but `doubts` say what people could have
meant instead. `Unsure` and `Refused` are not answered; both offer readings that can be asked instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from coupon_ledger.ledger.words import Note


@dataclass(frozen=True)
class Chip:
    """One thing that was understood, which the reader can change. `kind`: metric, by, where, period, grain, zone,
    compare, order, top, as_of, question or object. `value`: what machines read. `said`: what people read."""

    kind: str
    value: Any
    said: Note


@dataclass(frozen=True)
class Reading:
    """A question of the registry. `order`: the column by which to sort the rows, the highest first (`descending`) or
    the lowest first. `top`: how many rows to keep."""

    question: str
    parameters: Mapping[str, Any]
    chips: tuple[Chip, ...] = ()
    order: str | None = None
    descending: bool = True
    top: int | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for readings that ask the same."""
        return (self.question, repr(sorted(self.parameters.items())), self.order, self.descending, self.top)


@dataclass(frozen=True)
class Understood:
    reading: Reading
    confidence: Literal["sure", "likely"]
    doubts: tuple[Note, ...] = ()
    alternatives: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Unsure:
    """Some words were not understood, or mean too many things. `alternatives`: the nearest readings."""

    why: Note
    alternatives: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The data cannot answer this. `alternatives`: what can be asked instead."""

    why: Note
    alternatives: tuple[Reading, ...] = ()


Outcome = Understood | Unsure | Refused


@dataclass(frozen=True)
class Vocabulary:
    """Names in the database. `campaigns`: names by id. `values`: values by dimension."""

    campaigns: Mapping[str, str | None] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
