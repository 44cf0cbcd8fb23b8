"""Publishing through the service with `Publisher`: events per second in batches and one by one, and the processor time
of the publishing process.

    python -m benchmarks.http_publish [EVENTS]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from coupon_ledger import Publisher
from coupon_ledger.api.service.settings_store import SettingsStore, settings_file

_STARTS_S: Final = 60.0
_SINGLES: Final = 500


def event(number: int) -> dict[str, Any]:
    common = {"source": "shop", "occurred_at": "2026-11-11T00:00:00Z", "user_id": f"u-{number % 9_973}"}
    ids = {"event_id": f"e-{number}", "coupon_id": f"c-{number}", "order_id": f"o-{number}"}
    return {"topic": "coupon.events", "type": "used", "discount_minor": 500, **common, **ids}


def measured(what: str, count: int, work: Callable[[], None]) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{what}: {count / wall:,.0f} events/s; {1e6 * processor / count:,.1f} µs of the publisher's processor each")


def published(publisher: Publisher, first: int, count: int, batch: int) -> None:
    for number in range(first, first + count):
        publisher.publish(event(number))
        if (number + 1) % batch == 0:
            publisher.flush()
    publisher.flush()


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, database = f"sqlite:///{folder / 'log.db'}", folder / "ledger.duckdb"
        command = [sys.executable, "-m", "coupon_ledger.cli", "run", "--port", "0", "--log", log]
        with (folder / "err").open("wb") as err:
            process = subprocess.Popen([*command, "--database", str(database)], stderr=err)
        try:
            url = _url(folder / "err")
            with SettingsStore(settings_file(database)) as store:
                token = store.add_token("bench", role="publisher", valid_s=86_400, sources=["shop"])
            with Publisher.open(url, token=token) as publisher:
                for batch in (10_000, 1_000, 100):
                    start = batch * 10_000_000
                    measured(f"batches of {batch:,}", count, partial(published, publisher, start, count, batch))
                measured("one by one", _SINGLES, lambda: published(publisher, 0, _SINGLES, 1))
        finally:
            process.terminate()
            process.wait(_STARTS_S)
        with Publisher.open(log) as publisher:
            measured("directly, batches of 10,000", count, lambda: published(publisher, 10**9, count, 10_000))


def _url(err: Path) -> str:
    deadline = time.monotonic() + _STARTS_S
    while time.monotonic() < deadline:
        if found := re.search(r"pages and API: (\S+)", err.read_text()):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(err.read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
