"""The cost of attribution for ten million coupon events and five million orders, at rest and while consuming.

    python -m benchmarks.attribution [--events 10000000] [--upkeep-events 1000000] [--batch-size 125000]

Three measurements, each printed as lines of JSON with seconds and the CPU seconds of all threads:

    rebuild   all paths made again (`settle_all`), from rows laid down as a consumer would have left them: coupons (3.3
              events each), orders (one for two events), touches; a million users, some with far more than others
    asking    a campaign's ROI by all models; credits by channel; with users that are stale, completed on the fly; how
              long settling these holds the consumer's thread (`longest_held_ms`, at once; `held_s`, in all)
    upkeep    a seeded sale day with orders consumed batch by batch, with paths kept up and without: `part` is what
              upkeep adds to the CPU seconds of consuming
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from benchmarks.run import encoded
from coupon_ledger.cli.sources.simulate import World, sale_day
from coupon_ledger.consumers import runner
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.consumers.tuning import tune_process
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.projections.attribution import upkeep
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.local import Local

_CHANNELS: Final = "['app', 'mini_program', 'sms', 'store', 'wechat', 'search', 'email', 'ad']"
_USER: Final = "'u-' || (floor(pow(random(), 2) * $users)::BIGINT)::VARCHAR"
_WHEN: Final = "TIMESTAMP '2026-05-01' + to_seconds(floor(random() * 15552000)::BIGINT)"
_BETWEEN_S: Final = 0.01
_HASH: Final = "(hash(n) >> 1)::BIGINT"
_LAID: Final = f"""
INSERT INTO coupons (key_hash, coupon_id, state, resting, campaign_id, owner, acquired_by, acquired_at, issue_channel,
    claim_channel, issued_at, claimed_at, order_id, discount_minor, used_at, last_event_at, events, violations,
    last_type, ids_low, ids_high, first_recorded_at)
SELECT {_HASH}, 'c-' || n, if(n % 3 = 0, 'used', 'claimed'), 'claimed', 'k-' || floor(pow(random(), 3) * 200)::INT,
    whose, whose, moment, channel, channel, moment, moment + to_hours(1), if(n % 3 = 0, 'o-' || n, NULL),
    if(n % 3 = 0, 500, NULL), moment, moment, 3, 0, 0, 0, 0, moment
FROM (SELECT n, {_USER} AS whose, {_CHANNELS}[1 + n % 8] AS channel, {_WHEN} AS moment FROM range($coupons) t(n));
INSERT INTO orders (key_hash, order_id, user_id, currency, gross_minor, net_minor, refunded_minor,
    cost_of_goods_minor, paid_at, last_event_at, events, violations, last_type, ids_low, ids_high, first_recorded_at)
SELECT {_HASH}, 'o-' || n, whose, if(n % 50 = 0, 'USD', 'CNY'), 10000, 9000, if(n % 20 = 0, 100, 0), 6000, moment,
    moment, 2, 0, 0, 0, 0, moment
FROM (SELECT n, {_USER} AS whose, {_WHEN} AS moment FROM range($orders) t(n));
INSERT INTO user_events (key_hash, user_id, event_id, type, occurred_at, source, kind, channel, campaign_id,
    recorded_at, log_partition, log_offset)
SELECT {_HASH}, whose, 'e-' || n, 'touched', moment, 's', ['view', 'click', 'cart'][1 + n % 3], {_CHANNELS}[1 + n % 8],
    'k-' || floor(pow(random(), 3) * 200)::INT, moment, 0, n
FROM (SELECT n, {_USER} AS whose, {_WHEN} AS moment FROM range($touches) t(n))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--upkeep-events", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=125_000)
    options = parser.parse_args()
    tune_process()
    with tempfile.TemporaryDirectory(prefix="coupon-ledger-attribution-") as name:
        folder = Path(name)
        if options.events:
            for line in at_rest(folder / "paths.duckdb", options.events):
                print(json.dumps(line), flush=True)
        if options.upkeep_events:
            for line in while_consuming(folder, options.upkeep_events, options.batch_size):
                print(json.dumps(line), flush=True)


@contextmanager
def timed(**line: Any) -> Iterator[dict[str, Any]]:
    """Add to the line what the block took."""
    started, cpu = time.perf_counter(), time.process_time()
    yield line
    line |= {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "load": round(os.getloadavg()[0], 1),
    }


def at_rest(database: Path, events: int) -> Iterator[dict[str, Any]]:
    sizes = {"coupons": round(events / 3.3), "orders": events // 2, "touches": events * 2 // 5, "users": events // 10}
    create_database(database)
    with open_database(database) as store:
        store.execute("SET enable_progress_bar = false")
        store.execute("SELECT setseed(0.5)")
        for statement in _LAID.split(";\n"):
            with store.transaction():
                store.execute(statement, {n: v for n, v in sizes.items() if f"${n}" in statement})
        with timed(what="rebuild", **sizes) as line, store.transaction():
            upkeep.settle_all(store)
        [(paths, touches)] = store.rows("SELECT count(*), sum(len(sources))::BIGINT FROM paths")
        yield line | {"paths": paths, "touches_of_paths": touches, "database_mb": round(database.stat().st_size / 1e6)}
        yield from _timed_question(store, "a campaign's ROI, all models", "attribution-roi", campaign="k-3")
        yield from _timed_question(store, "credits by channel, all models", "attribution")
        for stale in (1, 1_000, 100_000):
            with store.transaction():
                store.execute("DELETE FROM stale_users")
                store.execute(f"INSERT INTO stale_users SELECT 'u-' || n, false FROM range({stale}) t(n)")
            yield from _timed_question(store, f"credits with {stale:,} stale users", "attribution", models="last")
            yield _beside(store, stale)


def _beside(store: Store, stale: int) -> dict[str, Any]:
    """Settle as between batches."""
    held = []
    with timed(what=f"settling {stale:,} stale users") as line, upkeep.Upkeep(store) as paths:
        while store.rows("SELECT count(*) FROM stale_users") != [(0,)]:
            started = time.perf_counter()
            paths(idle=True)
            held.append(time.perf_counter() - started)
            time.sleep(_BETWEEN_S)
    return line | {"longest_held_ms": round(1000 * max(held)), "held_s": round(sum(held), 2)}


def _timed_question(store: Store, what: str, question: str, **parameters: Any) -> Iterator[dict[str, Any]]:
    with closing(Local(store)) as local, timed(what=what) as line:
        line["rows"] = sum(frame.height for frame in local.ask(question, **parameters).frames)
    yield line


class _Nothing:
    """Upkeep that does nothing."""

    def __init__(self, store: Store) -> None:
        pass

    def __call__(self, *, idle: bool) -> None:
        pass

    def finish(self) -> None:
        pass

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def while_consuming(folder: Path, events: int, batch_size: int) -> Iterator[dict[str, Any]]:
    settings = LogSettings(url=f"sqlite:///{folder / 'log.db'}")
    with closing(open_log(settings, create=True)) as log:
        log.create_topics()
        for topic, frame in sale_day(World(events=events, orders=True, user_skew=1.0)):
            records = encoded(topic, frame)
            for start in range(0, len(records), 50_000):
                log.append(records[start : start + 50_000])
    lines = []
    for kept in (False, True):
        database = folder / f"consumed-{kept}.duckdb"
        create_database(database)
        with closing(open_log(settings)) as log, open_database(database) as store:
            store.execute("SET enable_progress_bar = false")
            with (
                timed(what="consuming" + (", paths kept up" if kept else "")) as line,
                patch.object(runner, "Upkeep", upkeep.Upkeep if kept else _Nothing),
                patch.object(upkeep, "mark", upkeep.mark if kept else lambda *_: None),
            ):
                consumer = Consumer(log, store, outlet=None, batch_size=batch_size)
                line["records"] = sum(commit.records for commit in consumer.run())
        lines.append(line)
        yield line
    without, kept_up = (line["cpu_seconds"] for line in lines)
    yield {"what": "upkeep", "part": round((kept_up - without) / without, 3)}


if __name__ == "__main__":
    main()
