"""Time and memory of the questions about finance, customers and experiments.

    python -m benchmarks.reports [--coupons 2930000] [--orders 4085000] [--database FILE] [--only NAME,…]

The seeded tables of `benchmarks.metrics` (10 million coupon events, 5 million orders, a million users), and what these
questions read besides (reports_data.sql): 300,000 people in three arms, 2 million touches, budgets, discounts on
orders. Each question is asked once, as by somebody who opens a report, within the memory that the owner gives to slow
questions. With --database, the tables are kept there and reused by the next run; they are not those of
`benchmarks.metrics`.

Lines of JSON, one per question: wall-clock `seconds`; `cpu_seconds` of all threads; `peak_mb`, the process's peak
memory meanwhile; `over_mb`, the peak less the memory before; the number of rows in the answer; the machine's `load`
beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb

from benchmarks.metrics import fill
from coupon_ledger.consumers.tuning import resident
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live.signature import key_hash
from coupon_ledger.projections.store import Store
from coupon_ledger.questions import registry as queries

_MONTH: Final = {"since": datetime(2026, 9, 28), "until": datetime(2026, 10, 28)}
_TRIAL: Final = "camp-trial"
_TRIED: Final = {"campaign": _TRIAL, "start": datetime(2026, 8, 1), "expiry": datetime(2026, 8, 21)}
QUESTIONS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "split by kind": ("finance-split", {"by": "kind"}),
    "split by campaign and funder": ("finance-split", {"by": "campaign,funder"}),
    "split of a campaign by channel": ("finance-split", {"by": "channel", "campaign": "camp-7"}),
    "split of a month by channel": ("finance-split", {"by": "channel", **_MONTH}),
    "margin by channel": ("finance-margin", {"by": "channel"}),
    "margin of a month by store": ("finance-margin", {"by": "store", **_MONTH}),
    "categories": ("finance-categories", {}),
    "budgets": ("finance-budgets", {}),
    "cash by day": ("finance-cash", {}),
    "losses": ("finance-losses", {}),
    "losses of a campaign": ("finance-losses", {"campaign": "camp-7"}),
    "refunds": ("finance-refunds", {}),
    "doubts": ("finance-doubts", {}),
    "statement": ("finance-statement", {}),
    "statement of a campaign": ("finance-statement", {"campaign": "camp-7"}),
    "statement of a month": ("finance-statement", dict(_MONTH)),
    "segments": ("customer-segments", {}),
    "tiers": ("customer-tiers", {}),
    "clusters": ("customer-clusters", {}),
    "drivers of use": ("customer-drivers", {"outcome": "use"}),
    "drivers of repurchase": ("customer-drivers", {"outcome": "repurchase"}),
    "about to lapse": ("customers-lapsing", {"limit": 100}),
    "the best customers": ("customers", {"limit": 100}),
    "retention by first order": ("cohorts", {}),
    "repurchase": ("repurchase", {}),
    "behaviour": ("behaviour", {}),
    "experiments": ("experiments", {}),
    "an experiment": ("experiment", _TRIED),
    "its plan": ("experiment-plan", {}),
    "compared without arms": ("experiment-comparison", {**_TRIED, "campaign": "camp-9"}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--coupons", type=int, default=2_930_000)
    parser.add_argument("--orders", type=int, default=4_085_000, help="those without a coupon")
    parser.add_argument("--database", type=Path)
    parser.add_argument("--only", help="names of questions, with commas between them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coupon-ledger-reports-") as folder:
        database = options.database or Path(folder) / "reports.duckdb"
        if create_database(database):
            fill(database, options.coupons, options.orders, _tables(options.coupons))
        wanted = options.only.split(",") if options.only else list(QUESTIONS)
        with open_database(database) as store:
            store.execute("SET enable_progress_bar = false")
            for name in wanted:
                print(json.dumps(measured(store, name)), flush=True)


def _tables(coupons: int) -> tuple[str, dict[str, int]]:
    text = Path(__file__).with_name("reports_data.sql").read_text(encoding="utf-8")
    return text, {"trial": key_hash(_TRIAL), "assigned": coupons // 10, "touches": coupons * 2 // 3}


def measured(store: Store, name: str) -> dict[str, Any]:
    question, parameters = QUESTIONS[name]
    load, before = os.getloadavg()[0], resident()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    started, used = time.perf_counter(), time.process_time()
    line: dict[str, Any] = {"question": name}
    with closing(store.cursor()) as cursor:
        cursor.begin()
        try:
            with cursor.roomy():
                line["rows"] = sum(frame.height for frame in queries.answer(cursor, question, parameters).frames)
        except (LedgerError, duckdb.Error) as error:  # for example, if the memory limit is too small for it
            line["failed"] = str(error).partition("\n")[0]
        cursor.end()
    line |= {"seconds": round(time.perf_counter() - started, 2), "cpu_seconds": round(time.process_time() - used, 2)}
    peak = 1024 * int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0])
    return line | {"peak_mb": peak >> 20, "over_mb": (peak - before) >> 20, "load": round(load, 1)}


if __name__ == "__main__":
    main()
