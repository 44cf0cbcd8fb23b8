"""Appending what was computed from a database, or defined beside it: only to the log that this database was filled
from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledger.log import EventLog
    from ledger.settings import Settings


@contextmanager
def appending(settings: Settings) -> Iterator[EventLog]:
    """Open the log for appending; any log where there is no database yet.

    Raises `LogReplaced` where the database was filled from another log, and what opening either of them raises.
    """
    from api.client import asking
    from consumers.log_identity import of_source, open_log_of, refuse
    from ledger.errors import StoreNotInitialised
    from projections.identity import ReadLog

    try:
        with asking(settings.database) as source:
            known = of_source(source)
    except StoreNotInitialised:
        known = ReadLog.of_rows([])
    with closing(open_log_of(settings.log, known, settings.database)) as log:
        refuse(known, log, settings.database)
        yield log
