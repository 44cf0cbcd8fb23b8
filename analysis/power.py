"""Before an experiment: how many people it needs, and the smallest effect that it can see.

Normal approximation for two means with their own group sizes: n = (z(1-α/2) + z(power))² · (σ²/n_T + σ²/n_C) / δ²
(Chow, Shao and Wang 2008, Sample Size Calculations in Clinical Research, section 3.2). The spread is taken as equal in
both groups. With several treatments each is held against the control at alpha / treatments (Bonferroni, which Holm's
correction never needs more than). With CUPED the variance goes down to 1 - r² of it, r the correlation of what people
did before with what they do in the window (Deng et al. 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from coupon_ledger.analysis.lift import ALPHA

POWER: Final = 0.8


@dataclass(frozen=True, slots=True)
class Design:
    """`share`: of the control; the rest is parted equally among the `treatments`."""

    share: float = 0.5
    treatments: int = 1
    alpha: float = ALPHA
    power: float = POWER

    @property
    def treated(self) -> float:
        """The share of each treatment."""
        return (1 - self.share) / self.treatments

    @property
    def _z(self) -> float:
        from scipy import stats

        return float(stats.norm.ppf(1 - self.alpha / self.treatments / 2) + stats.norm.ppf(self.power))

    def smallest_lift(self, sd: float, people: int, correlation: float = 0.0) -> float:
        """What a treatment must change per person to be seen with this power, among so many people in all arms."""
        spread = sd * math.sqrt(1 - correlation**2)
        return self._z * spread * math.sqrt((1 / self.share + 1 / self.treated) / people)

    def people_needed(self, sd: float, lift: float, correlation: float = 0.0) -> int:
        """In all arms together, to see a change of `lift` (not zero) per person."""
        variance = sd**2 * (1 - correlation**2)
        return math.ceil(self._z**2 * variance * (1 / self.share + 1 / self.treated) / lift**2)
