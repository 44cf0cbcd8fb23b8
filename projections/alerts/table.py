"""The kept table `alert_episodes`: when the condition of an alert rule held, for which key.

The rules are data (`rules.py`). Their evaluation follows the log's order, not the batches (`engine.py`), so live,
rebuilt and backtested episodes are equal. docs/decisions/0032-alerts.md has the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coupon_ledger.projections.alerts.buckets import TABLES
from coupon_ledger.projections.alerts.engine import release, settle
from coupon_ledger.projections.connection import Adding, live_schema
from coupon_ledger.projections.kept_table import KeptTable

if TYPE_CHECKING:
    from coupon_ledger.projections.past import Past


def _fill(into: Adding) -> None:
    """Nothing to do: after a bulk load, `release` evaluates the whole journal."""


def _stand_in(past: Past) -> None:
    """Show the episodes that were opened within the cut, as they were then."""
    at, known_at = past.cut.at, past.cut.known_at
    limit = min((cut for cut in (at, known_at) if cut is not None), default=None)
    until = "NULL" if limit is None else f"TIMESTAMP '{limit}'"
    recorded = "true" if known_at is None else f"opened_recorded_at <= TIMESTAMP '{known_at}'"
    past.show(
        "alert_episodes",
        f"""
        SELECT * REPLACE (
            CASE WHEN closed_at <= coalesce({until}, closed_at) THEN closed_at END AS closed_at,
            CASE WHEN fired_at <= coalesce({until}, fired_at) THEN fired_at END AS fired_at)
        FROM {live_schema(past.reading)}.alert_episodes
        WHERE opened_at <= coalesce({until}, opened_at) AND {recorded}
        """,
    )


ALERTS: Final = KeptTable(
    folder="coupon_ledger.projections.alerts",
    projection="alerts",
    tables={"alert_episodes": ("episode_id",)},
    helpers=("alert_progress", *TABLES),
    settle=settle,
    fill=_fill,
    stand_in=_stand_in,
    audits=("alert_episodes",),
    release=release,
)
