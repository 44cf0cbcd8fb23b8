"""Sentences that describe the cut of an answer: the instant up to which events count."""

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
    """The sentence for a cut. `name`: the kind of cut (`at` or `known_at`); `at`: its instant. If `at` is the last
    microsecond of a second, the cut was made before the next instant, such as the beginning of a day. The sentence then
    says "before" this instant."""
    until, before = CUTS[name]
    return note(before, at=at + timedelta(microseconds=1)) if at.microsecond == 999_999 else note(until, at=at)
