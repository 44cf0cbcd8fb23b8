"""A rebuild and its swap under a live load: does anybody notice?

    python -m benchmarks.rebuild_live [--events 1000000] [--rate 5000] [--readers 50] [--pause 0.5]

`coupon-ledger consume --follow` owns a database of seeded sale days on an embedded log; a second process appends
`--rate` events a second; a third has `--readers` readers, which ask `state` and `history` of drawn coupons in turn,
pausing `--pause` seconds after each answer. Then `coupon-ledger rebuild` runs beside all of them, swaps, and is rolled
back.

One line of JSON: seconds of the rebuild, what it folded, how long the owner consumed nothing at each swap, questions
answered, questions that failed (any status except 200 and 503 "ask again", and any broken connection), answers with
positions before ones that the same reader had seen, and how long readers waited for an answer (p50, p99, most).
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from statistics import quantiles
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.growth import Appended, Upstream
from benchmarks.readers import COMMAND, PATIENCE_S
from coupon_ledger.api.contact import token_file
from coupon_ledger.ledger.settings import ENVIRONMENT_PREFIX, LogSettings
from coupon_ledger.projections.database import create_database
from coupon_ledger.projections.ownership import owner

_LIVE_S: Final = 600.0
_WARM_S: Final = 5.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--pause", type=float, default=0.5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coupon-ledger-swap-") as name:
        folder = Path(name)
        settings = LogSettings(url=f"sqlite:///{folder / 'coupon-ledger.log.db'}")
        held = min(round(_LIVE_S * options.rate), options.events // 2)
        upstream = Upstream(settings, (options.events, 1), held, options.rate)
        database = folder / "coupon-ledger.duckdb"
        create_database(database)
        run(folder, "consume")
        print(json.dumps(measured(folder, upstream, options)), flush=True)


def measured(folder: Path, upstream: Upstream, options: argparse.Namespace) -> dict[str, Any]:
    database = folder / "coupon-ledger.duckdb"
    owning = subprocess.Popen([str(COMMAND), "consume", "--follow"], cwd=folder, env=_environment())
    stop = multiprocessing.get_context("spawn").Event()
    results: multiprocessing.Queue[dict[str, Any]] = multiprocessing.get_context("spawn").Queue()
    try:
        _wait_for_owner(database, owning.pid)
        asking = multiprocessing.get_context("spawn").Process(
            target=ask_all, args=(str(database), options.readers, options.pause, stop, results)
        )
        asking.start()
        upstream.go_on()
        Appended(upstream.connection)  # otherwise it would wait for a listener
        time.sleep(_WARM_S)
        started = time.perf_counter()
        rebuilt = json.loads(run(folder, "rebuild", "--output", "json"))
        seconds = time.perf_counter() - started
        back = json.loads(run(folder, "rebuild", "--rollback", "--why", "a benchmark", "--output", "json"))
        stop.set()
        counts = results.get(timeout=PATIENCE_S)
        asking.join()
    finally:
        owning.terminate()
        owning.wait()
    return {
        **vars(options),
        "rebuild_s": round(seconds, 1),
        "folded_per_second": round(rebuilt["records"] / rebuilt["seconds"]),
        "equal_tables": len(rebuilt["equal"]),
        "swap_pause_s": rebuilt["swap"]["seconds"],
        "rollback_pause_s": back["seconds"],
        **counts,
    }


def ask_all(database: str, readers: int, pause: float, stop: Any, results: Any) -> None:
    """Run all readers, in a process of its own, until they are stopped."""
    said = owner(Path(database))
    address, token = urlsplit(said["url"]).netloc, token_file(Path(database)).read_text()
    coupons = [row["coupon_id"] for row in _get(address, token, "/v1/coupons?limit=2000")[1]["rows"]]
    counts: dict[str, Any] = {"answers": 0, "busy": 0, "failed": 0, "backward": 0, "waited": []}
    threads = [
        threading.Thread(target=_read, args=(address, token, coupons, random.Random(n), pause, stop, counts))
        for n in range(readers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waited = counts.pop("waited")
    cuts = quantiles(waited, n=100)
    counts["waited_ms"] = {"p50": round(cuts[49]), "p99": round(cuts[98]), "most": round(max(waited))}
    results.put(counts)


def _read(
    address: str, token: str, coupons: list[str], draw: random.Random, pause: float, stop: Any, counts: dict[str, Any]
) -> None:
    reached: dict[tuple[str, int], int] = {}
    while not stop.is_set():
        for question in ("state", "history"):
            started = time.perf_counter()
            try:
                status, body = _get(address, token, f"/v1/{question}?coupon={draw.choice(coupons)}")
            except (OSError, http.client.HTTPException, ValueError):
                counts["failed"] += 1
                continue
            counts["busy"] += status == http.HTTPStatus.SERVICE_UNAVAILABLE
            counts["failed"] += status not in (http.HTTPStatus.OK, http.HTTPStatus.SERVICE_UNAVAILABLE)
            if status == http.HTTPStatus.OK:
                counts["answers"] += 1
                counts["waited"].append(1000 * (time.perf_counter() - started))
                for p in body["as_of"]["positions"]:
                    at = (p["topic"], p["partition"])
                    counts["backward"] += p["next_offset"] < reached.get(at, 0)
                    reached[at] = p["next_offset"]
            time.sleep(pause)


def _get(address: str, token: str, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _wait_for_owner(database: Path, pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while owner(database).get("pid") != pid or "url" not in owner(database):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run(folder: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [str(COMMAND), *arguments], cwd=folder, env=_environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    return ran.stdout


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}


if __name__ == "__main__":
    main()
