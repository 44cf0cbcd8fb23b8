"""What an answer is of: the cuts in the reader's words."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from coupon_ledger.ledger.words import Note, note

CUTS: Final = {
    "at": ("only what happened until {at:instant}", "only what happened before {at:instant}"),
    "known_at": ("only what was recorded until {at:instant}", "only what was recorded before {at:instant}"),
}
"""Up to an instant, and before one."""


def cut_of(name: str, at: datetime) -> Note:
    """Say what an answer is cut to. A day reaches here as the microsecond before it begins; people read "before"."""
    until, before = CUTS[name]
    return note(before, at=at + timedelta(microseconds=1)) if at.microsecond == 999_999 else note(until, at=at)
