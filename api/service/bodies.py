"""Reads the body of a request within bounds: a size, also after gzip was unpacked, and a time."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from starlette.requests import ClientDisconnect, Request

from coupon_ledger.api.service.problems import Refusal

MOST_BYTES: Final = 16_000_000
WITHIN_S: Final = 60.0


async def body_of(request: Request, most: int = MOST_BYTES, within_s: float = WITHIN_S) -> bytes:
    """The body, unpacked. Raises `Refusal`."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Refusal(415, f"Content-Encoding {encoding}: is not read here; send gzip, or no encoding")
    try:
        async with asyncio.timeout(within_s):
            packed = await _received(request, most)
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {within_s:g} s; send it faster, or less") from None
    except ClientDisconnect:
        raise Refusal(400, "the client has gone") from None
    return packed if encoding == "identity" else _unpacked(packed, most)


async def _received(request: Request, most: int) -> bytes:
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length) > most:
        raise _too_large(most)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _unpacked(packed: bytes, most: int) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        body = unpacking.decompress(packed, most)
        if unpacking.unconsumed_tail:
            raise _too_large(most)
        if not unpacking.eof or unpacking.unused_data:
            raise Refusal(400, "the body is no complete gzip stream; pack it again")
    except zlib.error as error:
        raise Refusal(400, f"the body cannot be unpacked ({error}); pack it again") from None
    return body


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body has more than {most:,} bytes; send it in parts")
