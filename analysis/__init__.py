"""Statistics: pure functions of arrays and frames, each with the source of its formula. They know nothing of tables.

Libraries that only these need are imported where they are used, so that everything else starts without them.
"""

from __future__ import annotations

from importlib.util import find_spec

from coupon_ledger.ledger.extras import missing


def need(what: str, library: str) -> None:
    """Raises `LedgerError` where that library is not installed."""
    if find_spec(library) is None:
        raise missing(library, what)
