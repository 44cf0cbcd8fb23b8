"""Planning an experiment: how many people it needs, and the smallest effect that it can detect.

Normal approximation for two means with their own group sizes: n = (z(1-α/2) + z(power))² · (σ²/n_T + σ²/n_C) / δ²
(Chow, Shao and Wang 2008, Sample Size Calculations in Clinical Research, section 3.2). Both groups are assumed to have
the same variance. With several treatments, each is compared with the control at alpha / treatments (Bonferroni; Holm's
correction never needs more people). CUPED multiplies the variance by 1 - r², where r is the correlation between the
outcome before and in the window (Deng et al. 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from coupon_ledger.analysis.lift import ALPHA

POWER: Final = 0.8


@dataclass(frozen=True, slots=True)
class Design:
    """An experiment's design. `share`: the share of the control; the rest is split equally among the `treatments`.
    `alpha`, `power`: probability of detecting an effect that does not exist, and one that exists."""

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
        """The smallest change per person that is detected with this power, given `people` in all arms together."""
        spread = sd * math.sqrt(1 - correlation**2)
        return self._z * spread * math.sqrt((1 / self.share + 1 / self.treated) / people)

    def people_needed(self, sd: float, lift: float, correlation: float = 0.0) -> int:
        """People needed in all arms together to detect a change of `lift` (not zero) per person."""
        variance = sd**2 * (1 - correlation**2)
        return math.ceil(self._z**2 * variance * (1 / self.share + 1 / self.treated) / lift**2)
