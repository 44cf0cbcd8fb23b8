"""What the file formats of `publish` share: the items that each format yields, and how cells become event data.

Each format yields, in the order of the file, a `Record` for every valid event, a `Refused` for every other row, and
None whenever no more input has arrived yet. The same event becomes the same bytes in every format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import JSON_FIELDS, SCHEMA_NAME, encode
from coupon_ledger.ledger.errors import InvalidEvent, Problem, UnusableFile, alike
from coupon_ledger.ledger.events import Event, parse_event
from coupon_ledger.ledger.json_text import bad
from coupon_ledger.ledger.log import Record

MAX_ROW_BYTES: Final = 4_000_000
BROKEN: Final = b"\xed\xb3\xbf"
"""Replaces bytes that are not text in the file's encoding. It is not UTF-8 itself."""

Kind = Literal["text", "integer", "instant", "json", "list"]


class Refused(NamedTuple):
    """A line or row that is not a valid event: its number (from 1), its text, its `event_id` if it has one, and all its
    problems."""

    number: int
    text: str
    event_id: object
    problems: tuple[Problem, ...]


Item = Record | Refused | None


@dataclass(frozen=True, slots=True)
class Filling:
    """Values that are added to every row. `made`: if a row already has one of these fields, the row is refused.
    `default`: if a row already has one of these fields, it keeps its own value. `sources`: the values that the field
    `source` may have; None: any."""

    made: Mapping[str, Any] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)
    sources: frozenset[str] | None = None

    @property
    def names(self) -> set[str]:
        return {*self.made, *self.default}

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the row's data with the values added. Raises `InvalidEvent` if the row already has a field of `made`,
        or a `source` that it may not have."""
        if brought := [name for name in self.made if data.get(name) is not None]:
            raise InvalidEvent([Problem(name, "is made here; leave it out") for name in brought])
        filled = {**self.default, **{k: v for k, v in data.items() if v is not None}, **self.made}
        if self.sources is not None and filled.get("source") not in self.sources:
            allowed = ", ".join(sorted(self.sources)) or "none"
            raise InvalidEvent([Problem("source", f"is none that may be published here; allowed: {allowed}")])
        return filled


NOTHING: Final = Filling()


def record_of(event: Event) -> Record:
    return Record(event.topic, event.key.encode(), encode(event))


def table_event(topic: str, data: Mapping[str, Any], problems: Sequence[Problem] = ()) -> Event:
    """Make an event from the data of a table row. `problems`: why some cells could not be converted; `data` lacks these
    cells.

    Raises `InvalidEvent` with `problems` and with all that is wrong with the other fields.
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
    """The names of all columns that a table of this topic's events may have, each with the kind of its values."""
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
    """The columns that a table of this topic's events must have, since every event needs them."""
    return tuple(f["name"] for f in schemas.current(SCHEMA_NAME[topic])["fields"] if not isinstance(f["type"], list))


def check_columns(what: str, topic: str, names: Sequence[str], filling: Filling = NOTHING) -> None:
    """Check the column names of a table. Raises `UnusableFile`, with every unknown, repeated or missing column in its
    message. A column that `filling` supplies may be missing. `what`: the file's name in messages."""
    known = column_kinds(topic)
    unknown = list(dict.fromkeys(name for name in names if name not in known))
    repeated = list(dict.fromkeys(name for name in names if name in known and names.count(name) > 1))
    lacking = [name for name in needed_columns(topic) if name not in names and name not in filling.names]
    problems = []
    if unknown:
        problems.append(f"no column {', '.join(map(_quoted, unknown))} on {topic}")
    if repeated:
        problems.append(f"column {', '.join(repeated)} stands more than once")
    if lacking:
        problems.append(f"lacks the column {', '.join(lacking)}, which every event of {topic} needs")
    if not problems:
        return
    # For a misspelled name, suggest the right one; for a missing name or another file, list all.
    meant = alike(unknown, known) if not lacking or len(unknown) == 1 else []
    hint = f"did you mean {' or '.join(meant)}?" if meant else f"there are {', '.join(known)}"
    raise UnusableFile(f"{what}: {'; '.join(problems)}; {hint}")


def _quoted(name: str) -> str:
    text = repr(name)
    return text if len(text) <= 60 else text[:57] + "…"


def not_text(error: UnicodeDecodeError) -> InvalidEvent:
    """The error for a line whose bytes are not valid UTF-8, or were not valid in the encoding that the file has."""
    if bytes(error.object[error.start : error.start + len(BROKEN)]) == BROKEN:
        return bad("holds bytes that are no text in the file's encoding")
    return bad(f"not UTF-8 ({error.reason} at byte {error.start + 1})")


def in_zone(local: datetime, zone: ZoneInfo | None) -> datetime:
    """Convert the local time `local` in `zone` to an instant (UTC). Raises `InvalidEvent` if `zone` is None, and if
    clocks in the zone skip that time or show it twice."""
    if zone is None:
        raise bad("must carry a time zone: end it with Z or an offset such as +08:00, or name the file's with --zone")
    first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    try:
        instant = first.astimezone(UTC)
    except OverflowError:
        raise bad("lies outside the years 1 to 9999") from None
    if first.utcoffset() != second.utcoffset():
        skipped = instant.astimezone(zone).replace(tzinfo=None) != local
        raise bad(f"is a time that clocks in {zone} {'skip' if skipped else 'show twice'}; write it with its offset")
    return instant
