"""Statistics: pure functions of arrays and frames, each with the source of its formula. They do not read tables.

Libraries that only this package needs are imported inside the functions that use them, so that the rest starts without
them.
"""

from __future__ import annotations

from importlib.util import find_spec

from coupon_ledger.ledger.extras import missing


def need(what: str, library: str) -> None:
    """Raises `LedgerError` if the library is not installed. `what`: what needs it, for the error."""
    if find_spec(library) is None:
        raise missing(library, what)
