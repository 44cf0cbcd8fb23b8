"""What evaluates the rules of one kind, event by event or tick by tick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from coupon_ledger.projections.alerts.buckets import Buckets
from coupon_ledger.projections.alerts.chunk import Released
from coupon_ledger.projections.connection import Reading


class Evaluator(Protocol):
    """Evaluates the rules of some kinds on one topic."""

    @property
    def columns(self) -> set[str]:
        """The columns of the journal that its rules need."""

    @property
    def longest(self) -> int:
        """How far back (microseconds of the clock) `warm_up` must see events after a restart."""

    def restore(self, reading: Reading, clock: int | None) -> None:
        """Go on with the `buckets` that were stored. `clock`: the topic's clock; None before the first event."""

    def warm_up(self, earlier: Released) -> None:
        """See events again that were evaluated before a restart. Called after `restore`, piece by piece."""

    def see(self, reading: Reading, piece: Released) -> None:
        """Evaluate the rules on the next events."""

    @property
    def buckets(self) -> Sequence[Buckets]:
        """What a restart needs and `warm_up` cannot give. It is to be stored after each release."""


class Remade:
    """Base of an evaluator that stores nothing: `warm_up` makes its state again."""

    buckets: Sequence[Buckets] = ()

    def restore(self, reading: Reading, clock: int | None) -> None:
        """Nothing is stored."""


class Stored:
    """Base of an evaluator that stores all that it needs."""

    longest = 0

    def warm_up(self, earlier: Released) -> None:
        """Nothing to see again."""
