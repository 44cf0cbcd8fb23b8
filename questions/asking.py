"""The types of asking: question, source, answer with its state (as of), and the cuts that ask about the past."""

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
"""The parameters of a cut, with their types."""
_POSITION: Final = re.compile(r"([a-z]+\.[a-z-]+):([0-9]{1,9}):([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class AsOf:
    """The committed state that an answer was read from. `positions`: rows of topic, partition, next_offset."""

    commits: int
    committed_at: datetime | None
    data_clock: datetime | None
    positions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """At least one frame, all with the same columns. `frames` can be iterated once."""

    as_of: AsOf
    frames: Iterator[pl.DataFrame]

    def row(self) -> dict[str, Any]:
        """The row of a one-row answer."""
        return next(self.frames).row(0, named=True)


class Source(Protocol):
    """Answers questions."""

    def ask(self, question: str, **parameters: Any) -> Answer:
        """Omitted parameters are None. Raises `NotThere`, and whatever reading the database raises."""
        ...

    def snapshot(self) -> AbstractContextManager[Source]:
        """A source that answers several questions from one committed state. It builds a past only once for all of
        them."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Question:
    """A question. `limit_s`: how long it may take beside the consumer. `json`: columns with JSON text.

    `then`: stands in the tables of the past that the question reads, according to its parameters; with it, the question
    takes `at`, `known_at` and `positions`. `tells`: the question reads the past itself, and takes the callback `told`
    to report progress.
    """

    ask: Callable[..., pl.DataFrame | Iterator[pl.DataFrame]]
    limit_s: float = 30.0
    json: tuple[str, ...] = ()
    then: Callable[[Past, Mapping[str, Any]], None] | None = None
    tells: bool = False

    def limit_for(self, parameters: Mapping[str, Any]) -> float:
        """`limit_s`, or more if the question is about the past."""
        return max(self.limit_s, _PAST_LIMIT_S) if self.looks_back(parameters) else self.limit_s

    def looks_back(self, parameters: Mapping[str, Any]) -> bool:
        """Whether tables of the past are built for the answer."""
        return self.tells or (self.then is not None and any(parameters.get(name) is not None for name in PAST))

    def checked(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters converted to the form that the tables use. Raises `WrongQuestion` if one is out of bounds."""
        known = self.parameters
        return {
            name: checked(name, known[name].annotation if name in known else None, value)
            for name, value in parameters.items()
        }

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters by name, with their types: those of the function without the reading, and those of the
        cut."""
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
    """The cut that the parameters describe. Raises `WrongQuestion`."""
    return Cut(parameters.get("at"), parameters.get("known_at"), positions_of(reading, parameters.get("positions")))


def positions_of(reading: Reading, told: str | None) -> dict[tuple[str, int], int] | None:
    """Next offset by topic and partition, parsed from `TOPIC:PARTITION:OFFSET,…`; None for None. Raises `WrongQuestion`
    if the text is malformed, or a position lies beyond what the database has read."""
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
