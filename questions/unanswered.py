"""Why a question has no answer."""

from __future__ import annotations

from ledger.errors import LedgerError


class NotThere(LedgerError):
    """What was asked for is not in the database."""


class UnknownCoupon(NotThere):
    pass


class WrongQuestion(LedgerError):
    """Its parameters do not go together."""

    exit_code = 2
