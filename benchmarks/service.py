"""The service under load: viewers of pages, checks whether coupons can be used, beside a consumer that is busy.

    python -m benchmarks.service [--events 400000] [--rate 20000] [--viewers 50] [--checks 200] [--seconds 60]

A ledger is made with a sale day of `--events`. Then, for `--seconds`: a producer appends another sale day at `--rate`
records a second; each viewer follows the live feed, and fetches the page again after each commit, as `page.js` does;
`--checks` requests a second ask whether a coupon can be used. Everything runs on this machine, on loopback.

Prints for each kind the requests, their percentiles and the statuses; from a commit to a page that shows it; the lag at
the end; and the processor time of consumer and service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from benchmarks.http_load import Measured, load, request
from coupon_ledger.api.service.settings_store import SettingsStore, settings_file
from coupon_ledger.cli.imports import _records
from coupon_ledger.cli.sources.simulate import World, sale_day
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings

_COMMAND: Final = [sys.executable, "-m", "coupon_ledger.cli"]
_PAGES: Final = ("/now", "/campaigns", "/campaigns/camp-0001", "/alerts")
_ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")
_EVERY_S: Final = 0.05
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--checks", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), options)


def _measure(folder: Path, options: argparse.Namespace) -> None:
    environment = {
        **os.environ,
        "COUPON_LEDGER_LOG": f"sqlite:///{folder}/log.db",
        "COUPON_LEDGER_DATABASE": str(folder / "ledger.duckdb"),
    }
    for arguments in (["init"], ["simulate", "--events", str(options.events), "--orders"], ["consume"]):
        subprocess.run([*_COMMAND, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    with SettingsStore(settings_file(folder / "ledger.duckdb")) as store:
        token = store.add_token("shop", role="ops", valid_s=86_400)
        store.add_person("viewer", role="admin", password=secrets.token_urlsafe(20))
        cookie = store.begin_session("viewer")
    with subprocess.Popen([*_COMMAND, "run", "--port", "0"], env=environment, stderr=subprocess.PIPE, text=True) as run:
        try:
            port = _port(run)
            threading.Thread(target=lambda: [None for _ in run.stderr or ()], daemon=True).start()
            _wait_ready(port)
            asyncio.run(_loaded(folder, port, token, cookie, options))
            for name, part in _parts(run.pid).items():
                print(f"processor time of the {name}: {_processor_s(part):.1f} s")
        finally:
            run.send_signal(signal.SIGTERM)


def _port(run: subprocess.Popen[str]) -> int:
    assert run.stderr is not None
    for line in run.stderr:
        if matched := _ADDRESS.search(line):
            return int(matched[1])
    raise SystemExit("the service did not start")


def _wait_ready(port: int) -> None:
    from urllib.error import URLError
    from urllib.request import urlopen

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("the service did not become ready")


async def _loaded(folder: Path, port: int, token: str, cookie: str, options: argparse.Namespace) -> None:
    stop = threading.Event()
    producer = threading.Thread(target=_produce, args=(folder, options.rate, stop))
    producer.start()
    pages, shown = Measured(), Measured()
    viewers = [
        _view(port, cookie, page, options.seconds, pages, shown)
        for page, _ in zip(cycle(_PAGES), range(options.viewers), strict=False)
    ]
    checks = load(port, _checks(token, options.events), clients=40, seconds=options.seconds, rate=options.checks)
    started = time.perf_counter()
    measured, *_ = await asyncio.gather(checks, *viewers)
    pages.elapsed_s = shown.elapsed_s = time.perf_counter() - started
    stop.set()
    producer.join()
    print(f"checks: {measured}")
    if pages.seconds:
        print(f"pages: {pages}")
        print(f"commit to visible: {shown}")
    status, body = await _fetch(port, b"GET /ready HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % port)
    print(f"at the end: {status} {body.decode()}")


def _checks(token: str, events: int) -> Iterator[bytes]:
    for number in cycle(range(events // 4)):
        yield request("GET", f"/v1/coupons/c-{number:08d}/usable?user=u-0000001", token)


def _produce(folder: Path, rate: int, stop: threading.Event) -> None:
    log = open_log(LogSettings(url=f"sqlite:///{folder}/log.db"))
    started, sent = time.perf_counter(), 0
    world = World(events=2_000_000, seed=5, edition="b-", start=datetime.now(UTC), frame_rows=20_000)
    for topic, frame in sale_day(world):
        records = _records(topic, frame)
        step = max(1, int(rate * _EVERY_S))
        for first in range(0, len(records), step):
            if stop.is_set():
                log.close()
                return
            log.append(records[first : first + step])
            sent += step
            time.sleep(max(0.0, started + sent / rate - time.perf_counter()))
    log.close()


async def _view(port: int, cookie: str, page: str, seconds: float, pages: Measured, shown: Measured) -> None:
    """Follow commits, and fetch the page after each; while it is fetched, later commits are one."""
    head = f"Host: localhost:{port}\r\nCookie: coupon-ledger-session={cookie}\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    writer.write(b"GET /live HTTP/1.1\r\n" + head + b"\r\n")
    latest: dict[str, Any] = {}
    changed = asyncio.Event()

    async def follow() -> None:
        async for line in reader:
            if line.startswith(b"data: ") and b"committed_at" in line:
                latest.update(json.loads(line[6:]))
                changed.set()

    following = asyncio.create_task(follow())
    ends = time.perf_counter() + seconds
    fetch = b"GET %s HTTP/1.1\r\nX-Fragment: main\r\n%s\r\n" % (page.encode(), head)
    own_reader, own_writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    while time.perf_counter() < ends:
        try:
            await asyncio.wait_for(changed.wait(), 1.0)
        except TimeoutError:
            continue
        changed.clear()
        committed = datetime.fromisoformat(latest["committed_at"]).timestamp() if latest["committed_at"] else None
        began = time.perf_counter()
        own_writer.write(fetch)
        status, _ = await asyncio.wait_for(_answered(own_reader), 60)
        pages.seconds.append(time.perf_counter() - began)
        pages.statuses[status] = pages.statuses.get(status, 0) + 1
        if committed is not None:
            shown.seconds.append(time.time() - committed)
            shown.statuses[status] = shown.statuses.get(status, 0) + 1
    following.cancel()
    writer.close()
    own_writer.close()


async def _answered(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])  # type: ignore[index]
    return int(head[9:12]), await reader.readexactly(length)


async def _fetch(port: int, sent: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answered = await _answered(reader)
    writer.close()
    return answered


def _parts(supervisor: int) -> dict[str, int]:
    """The processes of the supervisor's parts, by name."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
    found = {}
    for child in children:
        command = Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8").split("\0")
        found["service" if "serve" in command else "consumer"] = int(child)
    return found


def _processor_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
