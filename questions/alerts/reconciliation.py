"""Rules of kind `reconciliation`: numbers of the ledger that must be equal, and are not.

These are audits of `verify` that take seconds even on a large database. `conservation` reads the events of all coupons:
it runs if the journal is not longer than `LONGEST` events. `verify` checks everything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions import audits

FAST: Final = ("accounts", "accounts_of_tables", "positions_not_read", "data_clock")
SLOW: Final = ("conservation",)
LONGEST: Final = 5_000_000
_MOST: Final = 50
_KEY: Final = ("topic", "log_partition", "campaign_id", "statement", "outcome")


def offenders(reading: Reading, clock: datetime) -> list[Offender]:
    """One offender per row that an audit finds, at most 50 per audit. The key has the `check` (the audit's name) and
    what it is about: topic and partition, or campaign and statement. The value is how far two numbers are apart, if the
    audit compares two, else 1. `clock`: the data's clock (naive UTC)."""
    [(events,)] = reading.rows("SELECT count(*) FROM coupon_events")
    checks = FAST + (SLOW if events <= LONGEST else ())
    found: dict[tuple[tuple[str, str], ...], Offender] = {}
    for check in checks:
        number, rows = audits.run(reading, check, _MOST)
        for row in rows:
            key = {"check": check} | {
                ("partition" if name == "log_partition" else name.removesuffix("_id")): ""
                if row[name] is None
                else str(row[name])
                for name in _KEY
                if name in row
            }
            details = {"question": audits.question_of(check), "found": number, **plain(row)}
            offender = Offender(key, _apart(row), 0.0, clock, details=details)
            found.setdefault(tuple(key.items()), offender)
    return list(found.values())


_COMPARED: Final = (("counted", "stands"), ("account", "in_tables"), ("read", "applied"))


def _apart(row: dict[str, object]) -> float:
    for one, other in _COMPARED:
        a, b = row.get(one), row.get(other)
        if isinstance(a, int) and isinstance(b, int):
            if one == "read":
                b = sum(int(str(row[name])) for name in ("applied", "repeats", "conflicts", "dead_letters"))
            return float(abs(a - b)) or 1.0
    return 1.0
