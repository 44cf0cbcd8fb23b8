"""Plans an experiment: how many people it needs, or the smallest effect that it can detect.

Normal approximation for two means of groups of different sizes: n = (z(1-α/2) + z(power))² · (σ²/s_T + σ²/s_C) / δ²
(Chow, Shao and Wang 2008, Sample Size Calculations in Clinical Research, section 3.2). Here n is the number of people
in all arms together, s_T and s_C are the shares of the treatment and of the control, σ² is the variance of the outcome,
and δ is the effect. Both groups are assumed to have the same variance.

If there are several treatments, each is compared with the control at alpha / treatments (Bonferroni; Holm's correction
never needs more people). CUPED multiplies the variance by 1 - r², where r is the correlation between the outcome before
the window and the outcome in it (Deng et al. 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from coupon_ledger.analysis.lift import ALPHA

POWER: Final = 0.8


@dataclass(frozen=True, slots=True)
class Design:
    """The design of an experiment. `share`: the share of people in the control; the rest is split equally among the
    `treatments` (their number). `alpha`: the accepted probability of finding an effect that does not exist. `power`:
    the wanted probability of finding an effect that exists."""

    share: float = 0.5
    treatments: int = 1
    alpha: float = ALPHA
    power: float = POWER

    @property
    def treated(self) -> float:
        """The share of people in each treatment."""
        return (1 - self.share) / self.treatments

    @property
    def _z(self) -> float:
        from scipy import stats

        return float(stats.norm.ppf(1 - self.alpha / self.treatments / 2) + stats.norm.ppf(self.power))

    def smallest_lift(self, sd: float, people: int, correlation: float = 0.0) -> float:
        """The smallest effect per person that is found with the wanted power. `sd`: the standard deviation of the
        outcome; `people`: how many people are in all arms together; `correlation`: that of the outcome before the
        window with the outcome in it, for CUPED."""
        spread = sd * math.sqrt(1 - correlation**2)
        return self._z * spread * math.sqrt((1 / self.share + 1 / self.treated) / people)

    def people_needed(self, sd: float, lift: float, correlation: float = 0.0) -> int:
        """How many people are needed in all arms together to find an effect of `lift` (not zero) per person. `sd`,
        `correlation`: as in `smallest_lift`."""
        variance = sd**2 * (1 - correlation**2)
        return math.ceil(self._z**2 * variance * (1 / self.share + 1 / self.treated) / lift**2)
