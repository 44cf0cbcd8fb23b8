"""Open the log for commands that append to it what they computed from a database, or what the user defined.

Such a command refuses any other log than the one that the database was filled from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coupon_ledger.ledger.log import EventLog
    from coupon_ledger.ledger.settings import Settings
    from coupon_ledger.projections.identity import ReadLog


@contextmanager
def appending(settings: Settings) -> Iterator[EventLog]:
    """Within the block, the log is open for appending. Any log is accepted if there is no database yet.

    Raises `LogReplaced` if the database was filled from another log, and any error of opening the log or the database.
    """
    from coupon_ledger.consumers.log_identity import open_log_of, refuse

    known = known_log(settings)
    with closing(open_log_of(settings.log, known, settings.database)) as log:
        refuse(known, log, settings.database)
        yield log


def known_log(settings: Settings) -> ReadLog:
    """The identity of the log that the database was filled from, as stored in the database. Empty if there is no
    database yet."""
    from coupon_ledger.api.client import asking
    from coupon_ledger.consumers.log_identity import of_source
    from coupon_ledger.ledger.errors import StoreNotInitialised
    from coupon_ledger.projections.identity import ReadLog

    try:
        with asking(settings.database) as source:
            return of_source(source)
    except StoreNotInitialised:
        return ReadLog.of_rows([])


@contextmanager
def remembering(settings: Settings) -> Iterator[None]:
    """Within the block, a missing log or topic gets the right advice.

    `LogMissing` and `LogNotInitialised` advise the user to create what is missing. If the database has already read
    records from a log, this raises `LogReplaced` instead, which advises to restore that log. If the database cannot be
    read, the original error is raised.
    """
    from coupon_ledger.ledger.address_space import check_for_reading
    from coupon_ledger.ledger.errors import LedgerError, LogMissing, LogNotInitialised
    from coupon_ledger.ledger.extras import is_missing

    try:
        yield
    except (LogMissing, LogNotInitialised) as error:
        try:
            from coupon_ledger.consumers.log_identity import gone

            check_for_reading()
            known = known_log(settings)
        except LedgerError:  # the database cannot be read
            raise error from None
        except ModuleNotFoundError as absent:
            if not is_missing(absent):
                raise
            raise error from None  # a publish-only system has no database
        raise gone(error, settings.database, known) from error
