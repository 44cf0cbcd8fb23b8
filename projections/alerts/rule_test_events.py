"""The events of tests of alert rules, as in the ledger's own JSON; an entry of the file may stand for many events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path as File
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from coupon_ledger.ledger.errors import InvalidEvent
from coupon_ledger.ledger.errors import Problem as Wrong
from coupon_ledger.ledger.events import Event, parse_with_topic
from coupon_ledger.ledger.json_text import bad, json_value
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts.document import Node, Path
from coupon_ledger.projections.alerts.durations import Between, Duration
from coupon_ledger.projections.alerts.text_file import Problem, Problems
from coupon_ledger.projections.alerts.troubles import Trouble, shown, troubles_of

_LONGEST: Final = timedelta(days=366)
_LONGEST_LINE: Final = 1_000_000
_MOST_WRONG: Final = 100
_COUNTER: Final = re.compile(r"\{n(?::(\d{1,2}))?\}")
_SOURCE: Final = "test"
Offset = Annotated[Duration, AfterValidator(Between(timedelta(0), _LONGEST))]


@dataclass(frozen=True, slots=True)
class Timed:
    """An event, and when the log took it (aware, UTC)."""

    event: Event
    recorded_at: datetime


class Repeated(BaseModel):
    """What an entry of `events` may have beside the fields of an event. In its texts, `{n}` is the number of the event
    among those of the entry, and `{n:4}` the same with four digits."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    at: Annotated[Offset, "When it happens, after `start`; not for an event with `occurred_at`."] = timedelta(0)
    late: Annotated[Offset, "How much later it is recorded."] = timedelta(0)
    repeat: Annotated[int, Field(ge=1, le=200_000), "How many events the entry stands for."] = 1
    every: Annotated[Offset, "How far apart these are."] = timedelta(0)
    first: Annotated[int, Field(ge=0, le=10**12), "The number of the first one."] = 1


def of_node(node: Node, path: Path, start: datetime, before: int, most: int, problems: Problems) -> list[Timed]:
    """The events of one entry. `before`: how many events the test has already, of `most`. What is wrong is reported."""
    if not isinstance(node.value, dict):
        problems.report(
            Trouble(
                node.place,
                path,
                note("{value} is no mapping; write its fields, each with a colon", value=shown(node.data())),
            )
        )
        return []
    try:
        how = Repeated.model_validate(node.data())
    except ValidationError as error:
        problems.report_all(troubles_of(error, node, path, Repeated))
        return []
    if before + how.repeat > most:
        problems.report(Trouble(node.place, path, _too_many(most)))
        return []
    fields = {name: value for name, value in node.typed().items() if name not in Repeated.model_fields}
    found = []
    try:
        for number in range(how.repeat):
            found.append(_event(fields, how, start, number, before + number))
    except InvalidEvent as error:
        problems.report_all(_trouble(one, node, path) for one in error.problems)
    except OverflowError:
        said = note("lies outside the years 1 to 9999; choose an earlier start")
        problems.report(Trouble(node.place, path, said))
    return found


def _event(fields: dict[str, Any], how: Repeated, start: datetime, number: int, unique: int) -> Timed:
    numbered = _numbered(fields, how.first + number)
    if "occurred_at" not in numbered:
        numbered["occurred_at"] = start + how.at + number * how.every
    elif {"at", "every"} & how.model_fields_set:
        raise InvalidEvent([Wrong("occurred_at", "excludes at and every; leave it or them out")])
    event = parse_with_topic({"topic": COUPON, "event_id": f"test-{unique}", "source": _SOURCE, **numbered})
    return Timed(event, event.occurred_at + how.late)


def _numbered(value: Any, number: int) -> Any:
    if isinstance(value, str):
        return _COUNTER.sub(lambda found: f"{number:0{found[1] or 1}}", value)
    if isinstance(value, dict):
        return {name: _numbered(one, number) for name, one in value.items()}
    return [_numbered(one, number) for one in value] if isinstance(value, list) else value


def _trouble(wrong: Wrong, node: Node, path: Path) -> Trouble:
    inner: Path = tuple(int(step) if step.isdigit() else step for step in wrong.field.split(".") if step)
    said = note("{problem}; docs/events.md says what an event has", problem=wrong.rule)
    return Trouble(node.under(inner)[1], (*path, *inner), said)


def of_file(path: File, most: int) -> tuple[list[Timed], list[Problem]]:
    """The events of a file with one JSON object a line, `most` at most; each is recorded when it happens."""
    found: list[Timed] = []
    problems: list[Problem] = []
    try:
        for number, line in _lines(path):
            if len(problems) == _MOST_WRONG:
                break
            if len(found) == most:
                problems.append(Problem(str(path), number, 1, "", _too_many(most)))
                break
            try:
                event = _of_line(line)
                found.append(Timed(event, event.occurred_at))
            except InvalidEvent as error:
                said = note("{problem}; docs/events.md says what an event has", problem=str(error))
                problems.append(Problem(str(path), number, 1, "", said))
    except OSError as error:
        why = error.strerror or str(error)
        problems.append(Problem(str(path), 1, 1, "", note("cannot be read: {why}", why=why)))
    return found, problems


def _lines(path: File) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(_LONGEST_LINE + 1):
            number += 1
            if line.strip():
                yield number, line


def _of_line(line: bytes) -> Event:
    if len(line) > _LONGEST_LINE:
        raise bad(f"longer than {_LONGEST_LINE:,} bytes")
    try:
        data = json_value(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise bad("not in UTF-8") from error
    if not isinstance(data, dict):
        raise bad("not a JSON object")
    return parse_with_topic({"topic": COUPON, "source": _SOURCE, **data})


def _too_many(most: int) -> Note:
    return note("a test has at most {n:count} events; leave some out", n=most)
