"""Sentences that describe the cut of an answer: up to which instant events count."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from coupon_ledger.ledger.words import Note, note

CUTS: Final = {
    "at": ("only what happened until {at:instant}", "only what happened before {at:instant}"),
    "known_at": ("only what was recorded until {at:instant}", "only what was recorded before {at:instant}"),
}
"""By cut: the sentence for "until an instant" and the one for "before it"."""


def cut_of(name: str, at: datetime) -> Note:
    """Describe a cut. A cut before a day is given as the last microsecond before the day begins; the sentence then says
    "before" the day."""
    until, before = CUTS[name]
    return note(before, at=at + timedelta(microseconds=1)) if at.microsecond == 999_999 else note(until, at=at)
