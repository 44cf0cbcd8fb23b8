"""What asking is: a question, who answers, an answer with the state that it is of, and the cuts that look back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Protocol, get_type_hints

import polars as pl

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.questions.bounds import checked

_PAST_LIMIT_S: Final = 300.0
PAST: Final[Mapping[str, Any]] = {"at": datetime | None, "known_at": datetime | None, "positions": str | None}
"""What cuts the past off, with its types."""
_POSITION: Final = re.compile(r"([a-z]+\.[a-z-]+):([0-9]{1,9}):([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class AsOf:
    """The committed state that an answer is of. `positions`: rows of topic, partition, next_offset."""

    commits: int
    committed_at: datetime | None
    data_clock: datetime | None
    positions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Frames of the same columns, at least one, to be taken once."""

    as_of: AsOf
    frames: Iterator[pl.DataFrame]

    def row(self) -> dict[str, Any]:
        """Of an answer that is one row."""
        return next(self.frames).row(0, named=True)


class Source(Protocol):
    """Who answers questions."""

    def ask(self, question: str, **parameters: Any) -> Answer:
        """Parameters that are left out are None. Raises `NotThere` and what reading a database raises."""
        ...

    def snapshot(self) -> AbstractContextManager[Source]:
        """Who answers many questions of one committed state, and puts a past in place once for all of them."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Question:
    """`limit_s`: how long it may take beside the consumer. `json`: columns whose text is JSON.

    `then`: puts in place what it reads of the past, given its parameters; it can be asked `at`, `known_at` and
    `positions`. `tells`: it looks back by itself, and takes a `told` to tell how far that has come.
    """

    ask: Callable[..., pl.DataFrame | Iterator[pl.DataFrame]]
    limit_s: float = 30.0
    json: tuple[str, ...] = ()
    then: Callable[[Past, Mapping[str, Any]], None] | None = None
    tells: bool = False

    def limit_for(self, parameters: Mapping[str, Any]) -> float:
        """`limit_s`, or more for the past."""
        return max(self.limit_s, _PAST_LIMIT_S) if self.looks_back(parameters) else self.limit_s

    def looks_back(self, parameters: Mapping[str, Any]) -> bool:
        """Whether tables are put in place before this can be answered."""
        return self.tells or (self.then is not None and any(parameters.get(name) is not None for name in PAST))

    def checked(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters as the tables have them. Raises `WrongQuestion` for one that is out of bounds."""
        known = self.parameters
        return {
            name: checked(name, known[name].annotation if name in known else None, value)
            for name, value in parameters.items()
        }

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """By name, with their types; those of the function after the reading."""
        hints = get_type_hints(self.ask)
        _, *rest = inspect.signature(self.ask).parameters.values()
        found = {
            p.name: p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for p in rest
            if p.name != "told" or not self.tells
        }
        if self.then is not None:
            for name, annotation in PAST.items():
                found[name] = inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
                )
        return found


def cut_of(reading: Reading, parameters: Mapping[str, Any]) -> Cut:
    """Raises `WrongQuestion`."""
    return Cut(parameters.get("at"), parameters.get("known_at"), positions_of(reading, parameters.get("positions")))


def positions_of(reading: Reading, told: str | None) -> dict[tuple[str, int], int] | None:
    """Next offsets, told as `TOPIC:PARTITION:OFFSET,…`; None where nothing is told. Raises `WrongQuestion` where they
    are not such, or lie beyond what the database has read."""
    if told is None:
        return None
    read = {(topic, partition): offset for topic, partition, offset in reading.rows(sql(__package__, "positions"))}
    found: dict[tuple[str, int], int] = {}
    for one in told.split(",") if told else ():
        parts = _POSITION.fullmatch(one)
        if parts is None or parts[1] not in INPUT_TOPICS:
            raise WrongQuestion(f"position {one}: is none; write TOPIC:PARTITION:OFFSET, such as {COUPON}:2:75632")
        place, offset = (parts[1], int(parts[2])), int(parts[3])
        if place in found:
            raise WrongQuestion(f"position {one}: this partition is named twice; name it once")
        if offset > read.get(place, 0):
            raise WrongQuestion(
                f"position {one}: the database has read this partition up to {read.get(place, 0)} only; ask for an"
                " earlier position, or run `consume`"
            )
        found[place] = offset
    return found


def as_of(reading: Reading) -> AsOf:
    [(commits, committed_at, data_clock)] = reading.rows(sql(__package__, "as_of"))
    names = ("topic", "partition", "next_offset")
    positions = [dict(zip(names, row, strict=True)) for row in sorted(reading.rows(sql(__package__, "positions")))]
    return AsOf(commits, committed_at, data_clock, positions)
