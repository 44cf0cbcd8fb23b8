"""The basic types: a question, a source that answers questions, an answer, and the state that an answer was read from
(`AsOf`). Also parses the parameters that describe a cut."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, get_type_hints

import polars as pl

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.progress import Progress
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.questions.parameters import OfPast, P, Parameter, parameters_of, read, validator_of

if TYPE_CHECKING:
    from pydantic import BaseModel

_PAST_LIMIT_S: Final = 300.0
_POSITION: Final = re.compile(r"([a-z]+\.[a-z-]+):([0-9]{1,9}):([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class AsOf:
    """The committed state that an answer was read from. `positions`: one dict per partition, with `topic`, `partition`,
    `next_offset`."""

    commits: int
    committed_at: datetime | None
    data_clock: datetime | None
    positions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question: at least one data frame. All frames have the same columns. `frames` can be iterated
    once."""

    as_of: AsOf
    frames: Iterator[pl.DataFrame]

    def row(self) -> dict[str, Any]:
        """The only row of an answer that has one row, as values by column name."""
        return next(self.frames).row(0, named=True)


class Source(Protocol):
    """Answers questions: the database itself, its owner, or a snapshot."""

    def ask(self, question: str, **parameters: Any) -> Answer:
        """Answer the question with this name. A parameter that is None counts as omitted. Raises `WrongQuestion`,
        `NotThere`, and the errors of reading the database."""
        ...

    def snapshot(self) -> AbstractContextManager[Source]:
        """A source whose answers are all read from the same committed state, until the block ends. Consecutive
        questions with the same cut share the tables of the past, so these are built only once."""
        ...

    def close(self) -> None: ...


Frames = pl.DataFrame | Iterator[pl.DataFrame]
Area = Literal[
    "campaigns", "coupons", "customers", "finance", "metrics", "attribution", "experiments", "alerts", "backtest", "ops"
]


@dataclass(frozen=True)
class Question(Generic[P]):
    """A question, defined by the function that answers it (`ask`). The type of the function's second parameter is the
    question's parameter model.

    `limit_s`: the time limit in seconds when a running consumer answers the question. `json`: the columns that contain
    JSON text. `stand_in`: a function that replaces the live tables that the question reads by their past states. If it
    is None, `ask` applies the cut itself. `folds`: whether `ask` itself folds the past of many coupons, which takes
    long. `ask` then has a third parameter, with which it reports progress.

    For access rights (`questions.access`): `area`: the part of the ledger that the question is about; roles name these.
    `whole`: whether it has no meaning for a part of the objects, so that it is refused under a scope. `personal`:
    `none` if no answer or parameter has personal data, so that nothing needs to be masked; `masked` if they can be
    masked; `shown` if the question is refused to roles without personal data.
    """

    ask: Callable[[Reading, P], Frames] | Callable[[Reading, P, Progress], Frames]
    limit_s: float = 30.0
    json: tuple[str, ...] = ()
    stand_in: Callable[[Past, P], None] | None = None
    folds: bool = False
    area: Area = field(kw_only=True)
    whole: bool = False
    personal: Literal["none", "masked", "shown"] = "masked"

    @cached_property
    def model(self) -> type[P]:
        _, parameters = islice(inspect.signature(self.ask).parameters, 2)
        model: type[P] = get_type_hints(self.ask)[parameters]
        return model

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """The fields of the parameter model, by name."""
        return parameters_of(self.model)

    @cached_property
    def validator(self) -> type[BaseModel]:
        """The parameter model as a pydantic model, which reads and writes JSON and describes the model as a JSON
        schema."""
        return validator_of(self.model)

    def read(self, name: str, values: Mapping[str, Any]) -> P:
        """Make an instance of the parameter model. `values`: the parameters by name; None means that the parameter is
        absent. `name`: the name of the question, used in errors. Raises `WrongQuestion`."""
        return read(name, self.model, self.validator, self.parameters, values)

    def as_json(self, parameters: P) -> bytes:
        """The parameters as a JSON object."""
        values = {name: value for name in self.parameters if (value := getattr(parameters, name)) is not None}
        return self.validator.model_construct(**values).model_dump_json(include=set(values)).encode()

    def limit_for(self, parameters: P) -> float:
        """The time limit in seconds for the question with these parameters: `limit_s`, but at least `_PAST_LIMIT_S` if
        `looks_back`."""
        return max(self.limit_s, _PAST_LIMIT_S) if self.looks_back(parameters) else self.limit_s

    def looks_back(self, parameters: P) -> bool:
        """Whether many coupons have to be folded to answer the question with these parameters, which takes long. False
        for questions that fold a single coupon."""
        return self.folds or (self.stand_in is not None and parameters.looks_back)


def cut_of(reading: Reading, parameters: OfPast) -> Cut:
    """The cut that the parameters describe. Raises `WrongQuestion`."""
    return Cut(parameters.at, parameters.known_at, positions_of(reading, parameters.positions))


def positions_of(reading: Reading, text: str | None) -> dict[tuple[str, int], int] | None:
    """Parse `TOPIC:PARTITION:OFFSET,…`. Returns the offset by topic and partition; records before that offset count.
    None if `text` is None. Raises `WrongQuestion` if the text is malformed, or if an offset is beyond what the database
    has read."""
    if text is None:
        return None
    read = {(topic, partition): offset for topic, partition, offset in reading.rows(sql(__package__, "positions"))}
    positions: dict[tuple[str, int], int] = {}
    for one in text.split(",") if text else ():
        parts = _POSITION.fullmatch(one)
        if parts is None or parts[1] not in INPUT_TOPICS:
            raise WrongQuestion(f"position {one}: is none; write TOPIC:PARTITION:OFFSET, such as {COUPON}:2:75632")
        place, offset = (parts[1], int(parts[2])), int(parts[3])
        if place in positions:
            raise WrongQuestion(f"position {one}: this partition is named twice; name it once")
        if offset > read.get(place, 0):
            raise WrongQuestion(
                f"position {one}: the database has read this partition up to {read.get(place, 0)} only; ask for an"
                " earlier position, or run `consume`"
            )
        positions[place] = offset
    return positions


def as_of(reading: Reading) -> AsOf:
    [(commits, committed_at, data_clock)] = reading.rows(sql(__package__, "as_of"))
    names = ("topic", "partition", "next_offset")
    positions = [dict(zip(names, row, strict=True)) for row in sorted(reading.rows(sql(__package__, "positions")))]
    return AsOf(commits, committed_at, data_clock, positions)
