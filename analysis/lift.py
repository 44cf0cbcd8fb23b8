"""The effect of a treatment against a control group, with confidence intervals.

Every estimate is *treated minus control* per assigned person, whatever these people did afterwards (intent to treat).
Arrays have one value per person, in the unit of the outcome. Intervals are two-sided, at level 1 - alpha.

Always true: a group of fewer than two people, or two groups without any variance, raise `TooFew`. A value that cannot
be computed is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from coupon_ledger.ledger.errors import TooFew

Array = npt.NDArray[Any]

ALPHA: Final = 0.05
SRM_WARNS: Final = 0.001
"""A sample ratio mismatch with a smaller p is considered real, not due to chance."""
CAPPED: Final = 0.01
"""The share at each end that the winsorised variant caps."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Size, mean and variance of a group. The variance is that of single observations, not that of the mean."""

    n: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Array) -> Self:
        _enough(len(values))
        return cls(len(values), float(np.mean(values)), float(np.var(values, ddof=1)))

    @classmethod
    def of_sums(cls, n: int, total: float, squares: float) -> Self:
        """The moments, from the sum of the values and the sum of their squares."""
        _enough(n)
        return cls(n, total / n, max(squares - total**2 / n, 0.0) / (n - 1))

    @classmethod
    def of_share(cls, n: int, successes: int) -> Self:
        """The moments of a binary outcome, with variance p (1 - p) as in two-proportion tests."""
        _enough(n)
        share = successes / n
        return cls(n, share, share * (1 - share))

    @property
    def error2(self) -> float:
        """The squared standard error of the mean."""
        return self.variance / self.n


def _enough(n: int) -> None:
    if n < 2:
        raise TooFew(f"group of {n}: has too few people to tell a spread; two are needed at least")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval. `p`: of the hypothesis that the value is zero; `error`: its standard error; `degrees`:
    degrees of freedom of Student's t."""

    value: float
    low: float
    high: float
    p: float
    error: float
    degrees: float = math.inf

    def times(self, factor: float) -> Estimate:
        """The estimate scaled by a positive `factor`, such as a number of people."""
        return Estimate(
            self.value * factor, self.low * factor, self.high * factor, self.p, self.error * factor, self.degrees
        )


UNKNOWN: Final = Estimate(math.nan, math.nan, math.nan, math.nan, math.nan)


def estimate(value: float, error: float, degrees: float = math.inf, alpha: float = ALPHA) -> Estimate:
    """An estimate with Student's t interval (normal if `degrees` is infinite). If `error` is not positive, the interval
    is the value itself and `p` is NaN."""
    from scipy import stats

    if not error > 0:
        return Estimate(value, value, value, math.nan, error, degrees)
    half = float(stats.t.ppf(1 - alpha / 2, degrees)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, degrees))
    return Estimate(value, value - half, value + half, p, error, degrees)


def _welch_degrees(control: Moments, treated: Moments) -> float:
    """Degrees of freedom of Welch's t: Welch, B. L. (1947), The generalization of "Student's" problem; Satterthwaite
    (1946). Raises `TooFew` if neither group has any variance."""
    a, b = control.error2, treated.error2
    if a + b == 0:
        raise TooFew("two groups: nobody in them differs from anybody; there is no spread to judge by")
    return (a + b) ** 2 / (a**2 / (control.n - 1) + b**2 / (treated.n - 1))


def difference(control: Moments, treated: Moments, *, alpha: float = ALPHA) -> Estimate:
    """Treated minus control per person: Welch's t (Welch 1947), with unequal variances."""
    error = math.sqrt(control.error2 + treated.error2)
    return estimate(treated.mean - control.mean, error, _welch_degrees(control, treated), alpha)


def relative(control: Moments, treated: Moments, *, alpha: float = ALPHA) -> Estimate:
    """The difference relative to the absolute value of the control's mean; NaN if that is zero.

    Variance of a ratio of means by the delta method (Deng, Knoblich and Lu 2018, Applying the Delta Method in Metric
    Analytics, section 2): var(T)/C² + var(C) T²/C⁴.
    """
    degrees = _welch_degrees(control, treated)
    if control.mean == 0:
        return UNKNOWN
    variance = treated.error2 / control.mean**2 + control.error2 * treated.mean**2 / control.mean**4
    lift = (treated.mean - control.mean) / abs(control.mean)
    return estimate(lift, math.sqrt(variance), degrees, alpha)


# --- Variance reduction


@dataclass(frozen=True, slots=True)
class Group:
    """The people of one arm: the outcome of each person in the window, and before it."""

    outcome: Array
    before: Array


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Estimates after an adjustment. `kept`: the share of the variance that remains."""

    difference: Estimate
    relative: Estimate
    kept: float


def cuped(control: Group, treated: Group, *, alpha: float = ALPHA) -> Adjusted:
    """Absolute and relative effect, with the outcome adjusted for what people did before the window.

    Deng, Xu, Kohavi and Walker (2013), Improving the Sensitivity of Online Controlled Experiments by Utilizing
    Pre-Experiment Data: outcome - theta · before, theta = cov / var, here of the deviations within both arms. The
    relative effect is divided by the control's unadjusted mean; since that correlates with the adjusted mean, the delta
    method includes their covariance.
    """
    arms = (control, treated)
    theta = _theta(arms)
    residual = [Moments.of(g.outcome - theta * g.before) for g in arms]
    plain = [Moments.of(g.outcome) for g in arms]
    effect = difference(*residual, alpha=alpha)
    kept = (residual[0].error2 + residual[1].error2) / (plain[0].error2 + plain[1].error2)
    base = plain[0].mean
    if base == 0:
        return Adjusted(effect, UNKNOWN, kept)
    together = -float(np.cov(control.outcome - theta * control.before, control.outcome)[0, 1]) / plain[0].n
    lift = effect.value / abs(base)
    variance = (
        effect.error**2 / base**2 + effect.value**2 * plain[0].error2 / base**4 - 2 * effect.value * together / base**3
    )
    return Adjusted(effect, estimate(lift, math.sqrt(max(variance, 0.0)), effect.degrees, alpha), kept)


def _theta(arms: Sequence[Group]) -> float:
    """Slope of the outcome in the window on the outcome before, pooled within arms; 0 without variance before."""
    within = [(g.outcome - g.outcome.mean(), g.before - g.before.mean()) for g in arms]
    spread = sum(float(x @ x) for _, x in within)
    return sum(float(y @ x) for y, x in within) / spread if spread > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Capped:
    """Estimates of the outcome capped at `low` and `high`, which is a different quantity than the outcome itself."""

    difference: Estimate
    relative: Estimate
    low: float
    high: float


def winsorised(control: Array, treated: Array, *, share: float = CAPPED, alpha: float = ALPHA) -> Capped:
    """Estimates with outcomes capped at the quantiles `share` and 1 - `share` of both groups together.

    Tukey (1962), The Future of Data Analysis, section 14. Both groups have the same caps, so that they are treated
    alike.
    """
    low, high = (float(q) for q in np.quantile(np.concatenate([control, treated]), [share, 1 - share]))
    groups = [Moments.of(np.clip(values, low, high)) for values in (control, treated)]
    return Capped(difference(*groups, alpha=alpha), relative(*groups, alpha=alpha), low, high)


# --- Looking more than once


def always_valid(effect: Estimate, n: float, planned: float, alpha: float = ALPHA, tests: int = 1) -> Estimate:
    """The estimate with an interval that is valid at all looks simultaneously, however often one looks.

    `n`: people in both groups so far; `planned`: the `n` at which the interval is tightest. It must be the same at
    every look, otherwise the looks belong to different sequences. Asymptotic confidence sequence of Waudby-Smith,
    Arbour, Sinha, Kennedy and Ramdas (2024), Time-uniform central limit theory, equations 9 (the boundary) and 161 of
    arXiv 2103.06476v7 (the tuning). `p`: the smallest alpha at which the sequence with this tuning excludes zero.
    `tests`: as in `simultaneous`; the tuning remains that of one test.
    """
    if not effect.error > 0:
        return effect
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned
    grown = n * rho2 + 1
    half = effect.error * math.sqrt(2 * grown * math.log(math.sqrt(grown) * tests / alpha) / (n * rho2))
    z2 = (effect.value / effect.error) ** 2
    p = min(1.0, math.sqrt(grown) * math.exp(-z2 * n * rho2 / (2 * grown)))
    return Estimate(effect.value, effect.value - half, effect.value + half, p, effect.error, effect.degrees)


# --- Several tests at once


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected so that the probability of any false finding stays below alpha.

    Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure. NaN stays NaN and is not counted as a test.
    """
    corrected = [math.nan] * len(ps)
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def simultaneous(effect: Estimate, tests: int, alpha: float = ALPHA) -> Estimate:
    """The estimate with a simultaneous interval: `tests` such intervals all cover their true values with probability
    1 - alpha.

    Dunn (1961), Multiple Comparisons Among Means: Bonferroni's bound, each at alpha / tests. If the interval excludes
    zero, `holm` over the same tests finds an effect. The converse does not hold: Holm does not bound the size.
    """
    return estimate(effect.value, effect.error, effect.degrees, alpha / tests)


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """p values corrected so that the expected share of false findings among all findings stays below alpha.

    Benjamini and Hochberg (1995), Controlling the False Discovery Rate. NaN stays NaN and is not counted as a test.
    """
    corrected = [math.nan] * len(ps)
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    lowest = 1.0
    for rank in range(len(order), 0, -1):
        i = order[rank - 1]
        lowest = min(lowest, ps[i] * len(order) / rank)
        corrected[i] = lowest
    return corrected


def sample_ratio(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """p of the arms' sizes if people were assigned by the planned shares: Pearson's χ² (Fabijan et al. 2019, Diagnosing
    Sample Ratio Mismatch in Online Controlled Experiments). `shares` need not sum to one. NaN with one arm or without
    people."""
    from scipy import stats

    if len(shares) < 2:
        return math.nan
    observed = [counts.get(arm, 0) for arm in shares]
    if not sum(observed):
        return math.nan
    if any(n and not share for n, share in zip(observed, shares.values(), strict=True)):
        return 0.0  # an arm with share 0 has people
    scale = sum(observed) / sum(shares.values())
    drawn = [(n, share * scale) for n, share in zip(observed, shares.values(), strict=True) if share]
    if len(drawn) < 2:
        return math.nan
    return float(stats.chisquare(*zip(*drawn, strict=True)).pvalue)


# --- Return on cost


def return_on_cost(control: Array, treated: Array, discount: Array, booked: float, alpha: float = ALPHA) -> Estimate:
    """(incremental margin - booked) / (discount + booked), for the whole treated group. NaN if nothing was spent.

    `control`, `treated`: margin per person, after the discount; `discount`: discount of each treated person; `booked`:
    cost other than the discount, for the whole group; it is known exactly and adds no variance. Margin and discount of
    a person correlate, so the interval is that of a ratio of two means by the delta method with their covariance (Deng,
    Knoblich and Lu 2018), with Welch's degrees of freedom.
    """
    c, t, d = Moments.of(control), Moments.of(treated), Moments.of(discount)
    each = booked / t.n
    gain, spent = t.mean - c.mean - each, d.mean + each
    if spent <= 0:
        return UNKNOWN
    ratio = gain / spent
    together = float(np.cov(treated, discount)[0, 1]) / t.n
    variance = (t.error2 + c.error2 + ratio**2 * d.error2 - 2 * ratio * together) / spent**2
    return estimate(ratio, math.sqrt(max(variance, 0.0)), _welch_degrees(c, t), alpha)


def cuped_return_on_cost(
    control: Group, treated: Group, discount: Array, booked: float, alpha: float = ALPHA
) -> Estimate:
    """As `return_on_cost`, with margins adjusted for what people did before (as in `cuped`): the same return with less
    noise."""
    theta = _theta((control, treated))
    rest_c, rest_t = (g.outcome - theta * g.before for g in (control, treated))
    return return_on_cost(rest_c, rest_t, discount, booked, alpha)


@dataclass(frozen=True, slots=True)
class Response:
    """The outcome per person as a function of the face value. `slope`: per unit of face value; `unfit`: p of the
    hypothesis that a line fits (lack of fit); `bend`: the squared term of a parabola (NaN with fewer than three
    different doses)."""

    slope: Estimate
    unfit: float
    bend: Estimate


def response(arms: Sequence[tuple[float, Moments]], alpha: float = ALPHA) -> Response:
    """Fit a line and a parabola to the arms' means over their doses (the control at 0), by weighted least squares.

    Weights are the inverse squared standard errors, treated as known (Draper and Smith 1998, Applied Regression
    Analysis, chapter 9). Lack of fit: the weighted squared residuals against χ². Raises `TooFew`.
    """
    from scipy import stats

    doses = np.array([dose for dose, _ in arms])
    distinct = len(set(doses.tolist()))
    if distinct < 2:
        raise TooFew("response curve: all arms have one face value; two different ones are needed at least")
    if not all(m.error2 > 0 for _, m in arms):
        raise TooFew("response curve: in some arm nobody differs from anybody; there is no spread to weigh it by")
    means = np.array([m.mean for _, m in arms])
    weights = 1 / np.array([m.error2 for _, m in arms])
    line, spread, misfit = _fitted(doses, means, weights, 1)
    left = len(arms) - 2
    unfit = float(stats.chi2.sf(misfit, left)) if left else math.nan
    bend = UNKNOWN
    if distinct > 2:
        parabola, covariance, _ = _fitted(doses, means, weights, 2)
        bend = estimate(parabola[2], math.sqrt(covariance[2, 2]), alpha=alpha)
    return Response(estimate(line[1], math.sqrt(spread[1, 1]), alpha=alpha), unfit, bend)


def _fitted(doses: Array, means: Array, weights: Array, power: int) -> tuple[Array, Array, float]:
    """Coefficients (the constant first), their covariance, and the weighted sum of squared residuals."""
    scale = float(np.abs(doses).max())
    design = np.vander(doses / scale, power + 1, increasing=True)
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    coefficients = covariance @ (design.T @ (weights * means))
    misfit = float(weights @ (means - design @ coefficients) ** 2)
    back = scale ** -np.arange(power + 1.0)
    return coefficients * back, covariance * np.outer(back, back), misfit
