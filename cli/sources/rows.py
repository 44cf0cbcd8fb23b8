"""What every file format of `publish` has in common: what it hands over, and what its cells mean.

A source yields, in the file's order, a `Record` for every valid event and a `Refused` for every other; None where
nothing more has come yet. The same event gives the same bytes from every format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import schemas
from ledger.codec import JSON_FIELDS, SCHEMA_NAME, encode
from ledger.errors import InvalidEvent, Problem, UnusableFile
from ledger.events import Event, parse_event
from ledger.log import Record

MAX_ROW_BYTES: Final = 4_000_000

Kind = Literal["text", "integer", "instant", "json", "list"]


class Refused(NamedTuple):
    """A line or row that is no valid event: its number (from 1), as it stood, and every reason."""

    number: int
    text: str
    event_id: object
    problems: tuple[Problem, ...]


Item = Record | Refused | None


@dataclass(frozen=True, slots=True)
class Filling:
    """What rows are given: `made`, which none may bring itself, and `default`, where a row lacks it."""

    made: Mapping[str, Any] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {*self.made, *self.default}

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Raises `InvalidEvent`."""
        if brought := [name for name in self.made if data.get(name) is not None]:
            raise InvalidEvent([Problem(name, "is made here; leave it out") for name in brought])
        return {**self.default, **{k: v for k, v in data.items() if v is not None}, **self.made}


NOTHING: Final = Filling()


def record_of(event: Event) -> Record:
    return Record(event.topic, event.key.encode(), encode(event))


def table_event(topic: str, data: Mapping[str, Any], problems: Sequence[Problem] = ()) -> Event:
    """The event of a table's row; `problems`: what is known to be wrong with cells that `data` lacks.

    Raises `InvalidEvent` with these and all that the model finds.
    """
    seen = {p.field for p in problems}
    try:
        event = parse_event(topic, data)
    except InvalidEvent as error:
        raise InvalidEvent([*problems, *(p for p in error.problems if p.field not in seen)]) from error
    if problems:
        raise InvalidEvent(problems)
    return event


@cache
def column_kinds(topic: str) -> dict[str, Kind]:
    """Every column that a table of that topic may have, and what its cells hold."""
    return {f["name"]: kind_of(f["name"], f["type"]) for f in schemas.current(SCHEMA_NAME[topic])["fields"]}


def kind_of(name: str, avro: Any) -> Kind:
    if isinstance(avro, list):
        return kind_of(name, avro[1])
    if name in JSON_FIELDS:
        return "json"
    if isinstance(avro, str):
        return "text" if avro == "string" else "integer"
    kinds: dict[str, Kind] = {"long": "instant", "array": "list"}
    return kinds.get(avro["type"], "text")


@cache
def needed_columns(topic: str) -> tuple[str, ...]:
    """The columns without which no row can be an event."""
    return tuple(f["name"] for f in schemas.current(SCHEMA_NAME[topic])["fields"] if not isinstance(f["type"], list))


def check_columns(what: str, topic: str, names: Sequence[str], filling: Filling = NOTHING) -> None:
    """Raises `UnusableFile` for columns that are unknown, stand twice or lack."""
    known = column_kinds(topic)
    for name in names:
        if name not in known:
            raise UnusableFile(f"{what}: no column {name!r} on {topic}; there are {', '.join(known)}")
        if names.count(name) > 1:
            raise UnusableFile(f"{what}: column {name} stands more than once; leave one")
    lacking = [name for name in needed_columns(topic) if name not in names and name not in filling.names]
    if lacking:
        raise UnusableFile(f"{what}: lacks the column {', '.join(lacking)}, which every event of {topic} needs")


def json_value(text: str, parse_float: Callable[[str], Any] = float) -> Any:
    """The value of a JSON text; strict where Python is not. Raises `InvalidEvent`, its problem without a field."""
    try:
        return json.loads(text, parse_float=parse_float, parse_constant=_no_number, object_pairs_hook=_each_name_once)
    except json.JSONDecodeError as error:
        raise bad(f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise bad("JSON that is nested too deeply") from error
    except ValueError as error:  # Python reads no integer of more than 4,300 digits
        raise bad("JSON with a number of too many digits") from error


def bad(problem: str) -> InvalidEvent:
    return InvalidEvent([Problem("", problem)])


def _no_number(name: str) -> None:
    raise bad(f"not JSON ({name} is no JSON number)")


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two values was meant, nobody can know."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidEvent([Problem(twice, "stands more than once in one object")])
    return found
