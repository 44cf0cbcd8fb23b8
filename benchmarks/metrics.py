"""How long a dashboard's questions about metrics take.

    python -m benchmarks.metrics [--coupons 2930000] [--orders 4085000] [--runs 20] [--database FILE]

Seeded tables (metrics_data.sql): half a year with 10 million coupon events and 5 million orders, a million of them with
a coupon. Each question is asked `--runs` times on the open database, within the owner's memory limit and with all
cores, after one run that is not counted. With --database, the tables are kept there and reused by the next run.

Lines of JSON, one per question: `wall_ms` and `cpu_ms` (of all threads), p50 and p95 of each; the number of rows in the
answer; and the `load` of the machine beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from coupon_ledger.projections import coupon_sales as sales
from coupon_ledger.projections import event_counts as counts
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.local import Local

SEED: Final = 20261111
_DAY = {"since": datetime(2026, 10, 27), "until": datetime(2026, 10, 28)}
_WEEK = {"since": datetime(2026, 10, 21), "until": datetime(2026, 10, 28)}
_MONTH = {"since": datetime(2026, 9, 28), "until": datetime(2026, 10, 28)}
_NUMBER_7 = {"where": {"campaign": ["camp-7"]}}

QUESTIONS: Final[dict[str, dict[str, Any]]] = {
    "today by minute": {"names": "claimed_events,used_events", "grain": "minute", **_DAY},
    "today by hour and channel": {"names": "claimed_events,claim_rate", "by": "channel", "grain": "hour", **_DAY},
    "the week by campaign beside the one before": {
        "names": "claimed_events,used_events,use_rate", "by": "campaign", "compare": "previous", **_WEEK
    },
    "the month by day": {"names": "issued_events,claimed_events,used_events,use_rate", "grain": "day", **_MONTH},
    "the month's users and coupons": {"names": "claimed_users,used_users,claimed_coupons,used_coupons", **_MONTH},
    "the month's sales by day": {
        "names": "coupon_gmv_minor,average_order_with_coupon_minor,discount_cost_minor", "grain": "day", **_MONTH
    },
    "the month's sales by region": {"names": "gmv_minor,coupon_gmv_minor,orders", "by": "region", **_MONTH},
    "the month's uses by segment": {"names": "net_uses,discount_cost_minor", "by": "segment", **_MONTH},
    "a campaign's month by day": {"names": "claimed_events,use_rate", "grain": "day", **_MONTH, **_NUMBER_7},
    "a campaign's cohorts, all time": {"names": "cohort_use_rate,cohort_claim_rate", "grain": "day", **_NUMBER_7},
    "heat map, all time": {"names": "used_events", "by": "weekday,hour_of_day"},
    "stock by campaign": {"names": "stock_left,minutes_to_sell_out", "by": "campaign"},
    "waits by channel, all time": {"names": "claim_to_use_p50_s,claim_to_use_p90_s", "by": "channel"},
    "cohorts by month, all time": {"names": "cohort_issued_use_rate,cohort_use_rate", "grain": "month"},
    "claims and uses by month, all time": {"names": "claimed_events,used_events", "grain": "month"},
    "events by campaign, all time": {"names": "claimed_events,used_events,use_rate", "by": "campaign"},
    "users, all time": {"names": "used_users"},
    "sales by month, all time": {"names": "coupon_gmv_minor,gmv_minor", "grain": "month"},
    "simple ROI by campaign, all time": {"names": "simple_roi,cost_minor", "by": "campaign"},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--coupons", type=int, default=2_930_000)
    parser.add_argument("--orders", type=int, default=4_085_000, help="those without a coupon")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--database", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coupon-ledger-metrics-") as folder:
        database = options.database or Path(folder) / "metrics.duckdb"
        if create_database(database):
            fill(database, options.coupons, options.orders)
        with open_database(database) as store:
            measure(store, options.runs)


def fill(database: Path, coupons: int, orders: int, *more: tuple[str, dict[str, int]]) -> None:
    """`more`: further statements, each with the variables that it reads."""
    tables_sql = Path(__file__).with_name("metrics_data.sql").read_text(encoding="utf-8")
    sizes = {"seed": SEED, "coupons": coupons, "others": orders}
    with open_database(database) as store:
        store.execute("SET memory_limit = '4GB'")
        for statements, variables in ((tables_sql, sizes), *more):
            for name, value in variables.items():
                store.execute(f"SET VARIABLE {name} = {value}")
            for statement in filter(str.strip, statements.split(";\n")):
                store.execute(statement)
        with store.transaction():
            counts.fill(store)
            sales.fill(store)
        events, bought = (store.rows(f"SELECT count(*) FROM {t}")[0][0] for t in ("coupon_events", "orders"))
    print(json.dumps({"coupon_events": events, "orders": bought}), flush=True)


def measure(store: Store, runs: int) -> None:
    with closing(Local(store)) as local:
        for name, parameters in QUESTIONS.items():
            load, wall, cpu, rows = os.getloadavg()[0], [], [], 0
            for _ in range(runs + 1):
                started, used = time.perf_counter(), time.process_time()
                rows = sum(frame.height for frame in local.ask("metrics", **parameters).frames)
                wall.append(1000 * (time.perf_counter() - started))
                cpu.append(1000 * (time.process_time() - used))
            times = {"wall_ms": _percentiles(wall[1:]), "cpu_ms": _percentiles(cpu[1:])}
            print(json.dumps({"question": name, **times, "rows": rows, "load": round(load, 1)}), flush=True)


def _percentiles(values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=20)
    return {"p50": round(cuts[9], 1), "p95": round(cuts[18], 1)}


if __name__ == "__main__":
    main()
