"""Statistics: pure functions of arrays and frames, each with the source of its formula. They do not read the database.

Libraries that only this package needs are imported inside the functions that use them. So commands that do not use
these functions start faster, and do not need the libraries.
"""

from __future__ import annotations

from importlib.util import find_spec

from coupon_ledger.ledger.extras import missing


def need(what: str, library: str) -> None:
    """Raise `LedgerError` if the library is not installed. `what`: the feature that needs the library, for the text of
    the error."""
    if find_spec(library) is None:
        raise missing(library, what)
