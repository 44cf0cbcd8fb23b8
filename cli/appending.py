"""Open the log to append what a command computed or defined with a database. Only the log that filled that database is
accepted."""

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
    """Open the log for appending. While there is no database, any log is accepted.

    Raises `LogReplaced` if the database was filled from another log, and whatever opening either of them raises.
    """
    from coupon_ledger.consumers.log_identity import open_log_of, refuse

    known = known_log(settings)
    with closing(open_log_of(settings.log, known, settings.database)) as log:
        refuse(known, log, settings.database)
        yield log


def known_log(settings: Settings) -> ReadLog:
    """What the database knows of the log that it was filled from; empty if there is no database yet."""
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
    """Within the block, give the right advice if the log or its topics are missing.

    `LogMissing` and `LogNotInitialised` advise to create them. If the database was filled from that log, `LogReplaced`
    is raised instead, which advises to restore it. If the database cannot be read, the first error stays.
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
