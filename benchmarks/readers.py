"""What readers cost the consumer, and what the consumer costs readers.

    python -m benchmarks.readers [--events 1000000] [--readers 0 20] [--pause 0 0.2] [--batch-size 125000]

A log on SQLite with a seeded sale day; the first half is consumed beforehand, so that there is something to ask about.
Then `coupon-ledger consume` (in a process of its own) folds the second half. Meanwhile `--readers` readers, threads of
one further process with a connection each, ask for `state` and `history` of drawn coupons in turn, one question at a
time, pausing `--pause` seconds between an answer and the next question (0: no pause).

One line of JSON per run: `consumed_per_second` (from the first commit of the second half to the last), `questions`,
`state_ms` and `history_ms` (p50 and p99 as the readers see them, who share the cores), and the largest size of the
write-ahead log. Every answer is checked to be of a state not older than the one before it.

Measured on two cores that other work shared (800,000 events, 50,000 a batch), consumed per second and milliseconds
p50/p99:

    no reader                         64,000
    20 readers without a pause        43,000   state 258/567   history 260/526   (the readers wait for each other)
    20 readers, 0.2 s between         44,000   state  61/437   history  71/258
    one reader beside an idle owner            state 8         history 11
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import quantiles
from typing import Any, Final
from urllib.parse import urlsplit

from coupon_ledger.api.contact import ARROW, token_file
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import ENVIRONMENT_PREFIX, LogSettings
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.generations import wal_file
from coupon_ledger.projections.ownership import owner

COMMAND: Final = Path(sys.executable).with_name("coupon-ledger")
SEED: Final = 20261111
PATIENCE_S: Final = 120.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--readers", type=int, nargs="+", default=[0, 20])
    parser.add_argument("--pause", type=float, nargs="+", default=[0.0, 0.2])
    parser.add_argument("--batch-size", type=int, default=125_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(folder, "init")
        _run(folder, "simulate", "--events", str(options.events), "--seed", str(SEED))
        _consume_half(folder, options.events // 2, options.batch_size)
        kept = {file: file.read_bytes() for file in folder.glob("*.duckdb")}
        for readers in options.readers:
            for pause in options.pause if readers else [0.0]:
                for file, content in kept.items():
                    file.write_bytes(content)
                print(json.dumps(measured(folder, readers, pause, options.batch_size)), flush=True)


def _consume_half(folder: Path, events: int, batch_size: int) -> None:
    log = open_log(LogSettings(url=f"sqlite:///{folder / 'coupon-ledger.log.db'}"))
    with open_database(folder / "coupon-ledger.duckdb") as store:
        consumer = Consumer(log, store, outlet=log, batch_size=batch_size)
        consumed = 0
        for commit in consumer.run():
            consumed += commit.records
            if consumed >= events:
                consumer.stop()
    log.close()


def measured(folder: Path, readers: int, pause: float, batch_size: int) -> dict[str, Any]:
    database = folder / "coupon-ledger.duckdb"
    coupons = _coupons(database)
    latencies_queue: multiprocessing.Queue[dict[str, list[float]]] = multiprocessing.get_context("spawn").Queue()
    with _owner(folder, batch_size) as process:
        asking = multiprocessing.get_context("spawn").Process(
            target=ask_all, args=(str(database), coupons, readers, pause, latencies_queue)
        )
        if readers:
            asking.start()
        largest = 0
        lines: list[tuple[float, dict[str, Any]]] = []
        assert process.stderr is not None
        for line in process.stderr:
            said = json.loads(line)
            lines.append((time.perf_counter(), said))
            with suppress(OSError):
                largest = max(largest, wal_file(database).stat().st_size)
        commits = [(at, said) for at, said in lines if said["event"] == "commit"]
        process.wait()
        latencies = latencies_queue.get(timeout=PATIENCE_S) if readers else {}
        if readers:
            asking.join()
    records = sum(said["records"] for _, said in commits)
    folding = sum(said["seconds"] for _, said in commits)
    return {
        "readers": readers,
        "pause_s": pause,
        "batch_size": batch_size,
        "records": records,
        "consumed_per_second": round(records / (commits[-1][0] - lines[0][0])),
        "folded_per_second": round(records / folding),
        "commits": sum(said["commits"] for _, said in commits),
        "largest_wal_mb": round(largest / 1e6),
        "questions": sum(map(len, latencies.values())),
        **{f"{name}_ms": _percentiles(times) for name, times in latencies.items()},
    }


def ask_all(database: str, coupons: list[str], readers: int, pause: float, latencies_queue: Any) -> None:
    """Run all readers, in a process of its own, until the owner is gone."""
    said = owner(Path(database))
    address, token = urlsplit(said["url"]).netloc, token_file(Path(database)).read_text()
    times: dict[str, list[float]] = {"state": [], "history": []}
    threads = [
        threading.Thread(target=_ask, args=(address, token, random.Random(n), coupons, pause, times))
        for n in range(readers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latencies_queue.put(times)


def _ask(
    address: str, token: str, draw: random.Random, coupons: list[str], pause: float, times: dict[str, list[float]]
) -> None:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {token}", "Accept": ARROW}
    last = 0
    with suppress(OSError, http.client.HTTPException):
        while True:
            for question in times:
                started = time.perf_counter()
                connection.request("GET", f"/v1/{question}?coupon={draw.choice(coupons)}", headers=headers)
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    return
                times[question].append(time.perf_counter() - started)
                [commit] = re.findall(rb'"commits": (\d+)', body)
                assert int(commit) >= last, "an answer of an older state than the one before it"
                last = int(commit)
                time.sleep(pause)


def _coupons(database: Path) -> list[str]:
    with open_database(database, read_only=True) as store:
        latencies_queue = store.frame("SELECT coupon_id FROM coupons ORDER BY hash(coupon_id) LIMIT 5000")
    return latencies_queue["coupon_id"].to_list()


@contextmanager
def _owner(folder: Path, batch_size: int) -> Iterator[subprocess.Popen[str]]:
    database = folder / "coupon-ledger.duckdb"
    command = [COMMAND, "consume", "--log-format", "json", "--batch-size", str(batch_size)]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env=_environment(),
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while owner(database).get("url") is None or owner(database).get("pid") != process.pid:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run([str(COMMAND), *arguments], cwd=folder, env=_environment(), check=True, stdout=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}


def _percentiles(times: list[float]) -> dict[str, float]:
    if len(times) < 2:
        return {}
    cut = quantiles(times, n=100)
    return {"p50": round(1e3 * cut[49], 1), "p99": round(1e3 * cut[98], 1)}


if __name__ == "__main__":
    main()
