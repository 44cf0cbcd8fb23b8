"""Sends HTTP requests to a service on loopback, as many at once as asked, and measures how long each takes.

It is one thread with bare sockets, so that the load takes little of the processor time that it measures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_LIMIT_S: Final = 60.0


@dataclass
class Measured:
    """`seconds`: how long each request took, by the order of their ends. `statuses`: how many answers had each."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    elapsed_s: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        ranked = sorted(self.seconds)
        return 1_000 * ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]

    def __str__(self) -> str:
        rate = len(self.seconds) / self.elapsed_s
        marks = ", ".join(f"p{percent:g} {self.percentile_ms(percent):.1f} ms" for percent in (50, 95, 99))
        return f"{rate:,.0f} requests/s; {marks}; {self.statuses}"


def request(method: str, path: str, token: str, body: bytes = b"", media_type: str = "application/json") -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost:{{port}}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(port: int, requests: Iterator[bytes], *, clients: int, seconds: float, rate: float = 0.0) -> Measured:
    """Send requests for so many seconds over `clients` connections. `rate`: requests per second; 0: each client sends
    its next one as soon as it has an answer. With a rate, the time counts from when a request was due."""
    measured, started = Measured(), time.perf_counter()
    due: asyncio.Queue[float] = asyncio.Queue()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (now := time.perf_counter()) - started < seconds:
            began = await due.get() if rate else now
            if began < 0 or (sent := next(requests, None)) is None:
                break
            writer.write(sent.replace(b"{port}", str(port).encode(), 1))
            status = await asyncio.wait_for(_answer(reader), _LIMIT_S)
            measured.seconds.append(time.perf_counter() - began)
            measured.statuses[status] = measured.statuses.get(status, 0) + 1
        writer.close()

    async def clock() -> None:
        number = 0
        while (at := started + number / rate) - started < seconds:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            due.put_nowait(at)
            number += 1
        for _ in range(clients):
            due.put_nowait(-1.0)

    await asyncio.gather(*(client() for _ in range(clients)), *([clock()] if rate else []))
    measured.elapsed_s = time.perf_counter() - started
    return measured


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    await reader.readexactly(length)
    return int(head[9:12])
