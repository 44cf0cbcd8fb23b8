"""Reads a JSON array of events one element at a time. Memory holds one element, not the whole array."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.ledger.formats.ndjson import ByteSource, json_item, more_waits
from coupon_ledger.ledger.formats.rows import MAX_ROW_BYTES, NOTHING, Filling, Item

_PIECE_BYTES: Final = 1 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r\n"
# Whole strings, brackets, braces and commas. A lone quote begins a string whose end has not been read yet.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|["\[\]{},]', re.DOTALL)


def json_array_items(source: ByteSource, topic: str | None, what: str, filling: Filling = NOTHING) -> Iterator[Item]:
    """Read the array's elements as events, numbered from 1. `topic`: the topic of elements that do not name one.
    `what`: the file's name in messages. `filling`: values to add to each element. Raises `UnusableFile` if the file is
    not one complete JSON array, or an element is too long."""
    number = 0
    for element in _elements(source, what):
        if element is None:
            yield None
        else:
            number += 1
            yield json_item(number, element, topic, filling)


class _Array:
    """Splits a JSON array into its elements while its bytes arrive in pieces. Between two pieces, it keeps the bytes of
    the unfinished element, and how many of them were already scanned."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._rest = b""
        self._looked = 0
        self._depth = 0
        self._begun = False
        self.ended = False
        self._number = 0

    def take(self, piece: bytes) -> Iterator[bytes]:
        """Add a piece of the file. Yields the elements that are complete with this piece."""
        self._rest += piece
        if not self._begun:
            self._rest = self._rest.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANK)
            if not self._rest:
                return
            if not self._rest.startswith(b"["):
                raise UnusableFile(f"{self._what}: is no JSON array; name what it holds with --format")
            self._begun, self._rest = True, self._rest[1:]
        if self.ended:
            self._check_end()
            return
        yield from self._whole()
        if len(self._rest) > MAX_ROW_BYTES:
            raise UnusableFile(
                f"{self._what}: row {self._number + 1} is longer than {MAX_ROW_BYTES:,} bytes, or a quote or bracket in"
                " it is never closed; mend that row"
            )

    def _whole(self) -> Iterator[bytes]:
        begin = 0
        for token in _TOKEN.finditer(self._rest, self._looked):
            text = token[0]
            self._looked = token.end()
            if text == b'"':  # its end is in a later piece
                self._looked = token.start()
                break
            if text in (b"[", b"{"):
                self._depth += 1
            elif self._depth and text in (b"]", b"}"):
                self._depth -= 1
            elif not self._depth and text in (b",", b"]"):
                element = self._rest[begin : token.start()]
                begin = token.end()
                self.ended = text == b"]"
                if not self.ended or self._number or element.strip(_BLANK):
                    self._number += 1
                    yield element.strip(_BLANK)
                if self.ended:
                    break
        else:
            self._looked = len(self._rest)
        self._rest = self._rest[begin:]
        self._looked = max(0, self._looked - begin)
        if self.ended:
            self._check_end()

    def _check_end(self) -> None:
        if self._rest.strip(_BLANK):
            raise UnusableFile(
                f"{self._what}: something follows the end of the JSON array, behind row {self._number}; write one array"
            )
        self._rest = b""

    def close(self) -> None:
        if self._begun and not self.ended:
            raise UnusableFile(
                f"{self._what}: the JSON array does not end (cut off in row {self._number + 1}?); copy the file again"
            )


def _elements(source: ByteSource, what: str) -> Iterator[bytes | None]:
    array = _Array(what)
    while piece := source.read1(_PIECE_BYTES):
        yield from array.take(piece)
        if not more_waits(source):
            yield None
    array.close()
