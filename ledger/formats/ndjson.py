"""Reads events from NDJSON: one event, as a JSON object, per line."""

from __future__ import annotations

import select
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol

from coupon_ledger.ledger.errors import InvalidEvent
from coupon_ledger.ledger.events import parse_with_topic
from coupon_ledger.ledger.formats.rows import MAX_ROW_BYTES, NOTHING, Filling, Item, Refused, not_text, record_of
from coupon_ledger.ledger.json_text import bad, json_value

_PIECE_BYTES: Final = 1 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class ByteSource(Protocol):
    """A source of bytes, such as a file or a pipe, that returns what has arrived so far."""

    def read1(self, size: int, /) -> bytes: ...

    def fileno(self) -> int: ...


def lines_of(source: ByteSource) -> Iterator[bytes | None]:
    """Yields the lines without their line ends, and None whenever no more input has arrived yet. A line longer than
    `MAX_ROW_BYTES` may be cut, but what is left of it is still longer than that."""
    rest, first = b"", True
    while piece := source.read1(_PIECE_BYTES):
        *whole, rest = (rest + piece).split(b"\n")
        if whole and first:
            whole[0], first = whole[0].removeprefix(_BYTE_ORDER_MARK), False
        yield from whole
        rest = rest[: MAX_ROW_BYTES + 1]
        if not more_waits(source):
            yield None
    if rest:
        yield rest.removeprefix(_BYTE_ORDER_MARK) if first else rest


def more_waits(source: ByteSource) -> bool:
    """Whether the next read of `source` returns at once, without waiting for input. True if this cannot be found
    out."""
    try:
        return bool(select.select([source.fileno()], [], [], 0)[0])
    except (OSError, ValueError):  # `select` cannot wait for this source
        return True


def ndjson_items(lines: Iterable[bytes | None], topic: str | None, filling: Filling = NOTHING) -> Iterator[Item]:
    """Read the events from the lines of an NDJSON file. `topic`: the topic of lines that do not name one. `filling`:
    values to add to each line."""
    number = 0
    for line in lines:
        if line is None:
            yield None
            continue
        number += 1
        if line and not line.isspace():
            yield json_item(number, line, topic, filling)


def json_item(number: int, line: bytes, topic: str | None, filling: Filling = NOTHING) -> Item:
    """Convert one line or array element to a `Record`, or to a `Refused` with the problems if it is not a valid event.
    `number`: the number of the line or element."""
    data: dict[str, Any] = {}
    try:
        data = _json_object(line)
        if topic is not None:
            data.setdefault("topic", topic)
        return record_of(parse_with_topic(filling(data)))
    except InvalidEvent as error:
        text = line.decode("utf-8", "backslashreplace")
        return Refused(number, text, data.get("event_id"), error.problems)


def _json_object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_ROW_BYTES:
        raise bad(f"longer than {MAX_ROW_BYTES:,} bytes")
    try:
        data = json_value(line.decode())
    except UnicodeDecodeError as error:
        raise not_text(error) from error
    if not isinstance(data, dict):
        raise bad("not a JSON object")
    return data
