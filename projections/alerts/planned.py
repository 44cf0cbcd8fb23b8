"""Plans: what a metric is to be, per stretch of time and slice, for rules that compare with them."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from math import fsum, nan
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from coupon_ledger.ledger.events import Instant
from coupon_ledger.ledger.words import Note, note

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST: Final = timedelta(days=732)
"""Each bucket of a plan's time is judged, also those without events."""
MOST_ROWS: Final = 5_000
_MOST_BYTES: Final = 1 << 20
_OWN: Final = ("starts", "ends", "value")


class Planned(BaseModel):
    """What a metric is to be in a stretch of time."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    starts: Annotated[Instant, "Its first instant, with a zone."]
    ends: Annotated[Instant, "Its end, which does not belong to it."]
    value: Annotated[
        Annotated[float, Field(ge=-1e15, le=1e15)],
        "The count or sum of the whole stretch (money in minor units), or the rate.",
    ]
    slice: Annotated[
        dict[str, Annotated[str, StringConstraints(max_length=200)]], "The value of each slice of the rule."
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some_time(self) -> Planned:
        if self.ends <= self.starts:
            raise ValueError("ends before it starts; exchange them")
        return self


def check(rows: Sequence[Planned], by: Sequence[str]) -> None:
    """Raises `ValueError` if a row does not name the slices of its rule, or if two rows are about the same time."""
    if any(row.slice.keys() != set(by) for row in rows):
        raise ValueError("has a plan whose slices are not those of by; name the same ones in both")
    for of_slice in _by_slice(rows, by).values():
        if any(later.starts < earlier.ends for earlier, later in pairwise(of_slice)):
            raise ValueError("has a plan with two values for one time and slice; leave one out")
    if rows and max(row.ends for row in rows) - min(row.starts for row in rows) > _LONGEST:
        raise ValueError("has a plan of more than two years; leave out what is long past")


def _by_slice(rows: Iterable[Planned], by: Sequence[str]) -> dict[tuple[str, ...], list[Planned]]:
    found = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.starts):
        found[tuple(row.slice[name] for name in by)].append(row)
    return found


class _Stretch(NamedTuple):
    start: int
    end: int
    value: float


class Plan:
    """A plan to look up. `is_rate`: the metric is a ratio, so values of stretches are averaged, not added up."""

    def __init__(self, rows: Iterable[Planned], by: Sequence[str], *, is_rate: bool) -> None:
        self._is_rate = is_rate
        self._stretches = {
            key: [_Stretch(_micros(row.starts), _micros(row.ends), row.value) for row in of_slice]
            for key, of_slice in _by_slice(rows, by).items()
        }
        self._ends = {key: [s.end for s in stretches] for key, stretches in self._stretches.items()}

    @property
    def slices(self) -> Iterable[tuple[str, ...]]:
        return self._stretches.keys()

    @property
    def span(self) -> tuple[int, int]:
        """From when to when the plan says anything (microseconds since the epoch); twice the same if it is empty."""
        stretches = [stretch for of_slice in self._stretches.values() for stretch in of_slice]
        return min((s.start for s in stretches), default=0), max((s.end for s in stretches), default=0)

    def between(self, key: tuple[str, ...], start: int, end: int) -> float:
        """What is planned for a slice from `start` to `end` (microseconds since the epoch), if each stretch is spread
        evenly over its time. NaN if the plan does not say it for the whole time."""
        parts = []
        reached = start
        for stretch in self._stretches.get(key, ())[bisect_right(self._ends.get(key, ()), start) :]:
            if stretch.start > reached or reached >= end:
                break
            upto = min(stretch.end, end)
            whole = end - start if self._is_rate else stretch.end - stretch.start
            parts.append(stretch.value * (upto - reached) / whole)
            reached = upto
        return fsum(parts) if reached >= end else nan


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def rows_of(path: Path, name: str) -> tuple[list[dict[str, Any]], Note | None]:
    """The rows of a CSV file with the columns `starts`, `ends`, `value` and one per slice, as data of `Planned`; and
    what is wrong with the file, None if nothing. `name`: what people call the file."""
    text, said = text_of(path, name)
    if text is None:
        return [], said
    try:
        return _read(text, name)
    except csv.Error as error:
        return [], note("the file {file} is no CSV: {why}", file=name, why=str(error))


def text_of(path: Path, name: str) -> tuple[str | None, Note | None]:
    """The text of a file beside a rules file; or None, and what is wrong with the file. `name`: what people call it."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe waits for whoever writes into it
            return None, note("the file {file} is a folder or device, not a file", file=name)
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None, note("the file {file} is not in UTF-8; save it as UTF-8", file=name)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return None, note("the file {file} cannot be read ({why}); check its path", file=name, why=why)
    if len(content) > _MOST_BYTES:
        return None, note("the file {file} is larger than {n:count} bytes; split it", file=name, n=_MOST_BYTES)
    return text, None


def _read(text: str, file: str) -> tuple[list[dict[str, Any]], Note | None]:
    lines = csv.DictReader(StringIO(text))
    names = list(lines.fieldnames or ())
    if absent := [name for name in _OWN if name not in names]:
        return [], note("the file {file} has no column {absent}; it needs {names}, and one for each of by",
                        file=file, absent=absent, names=list(_OWN))  # fmt: skip
    rows: list[dict[str, Any]] = []
    for row in lines:
        problem = _problem(row)
        if problem is not None:
            return [], note("the file {file}, line {line}: {problem}", file=file, line=lines.line_num, problem=problem)
        if len(rows) == MOST_ROWS:
            return [], note("the file {file} has more than {n:count} rows; leave some out", file=file, n=MOST_ROWS)
        rows.append({**{name: row[name] for name in _OWN}, "slice": {n: row[n] for n in names if n not in _OWN}})
    return rows, None


def _problem(row: dict[str, Any]) -> Note | None:
    """What is wrong with a line, None if nothing."""
    if None in row or None in row.values():
        return note("has not as many values as there are columns; correct it")
    for problem in _problems({name: row[name] for name in _OWN}):
        return problem
    return None


def _problems(data: dict[str, Any]) -> Iterator[Note]:
    from pydantic import ValidationError

    try:
        Planned.model_validate(data)
    except ValidationError as error:
        for details in error.errors():
            place = ".".join(map(str, details["loc"])) or "ends"
            yield note("{field}: {why}", field=place, why=details["msg"].removeprefix("Value error, "))
