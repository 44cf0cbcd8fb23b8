"""Estimates the effect of a treatment against a control group, with confidence intervals.

Every effect is *treated minus control* per assigned person, whatever the people did after they were assigned (intent to
treat). Arrays have one value per person, in the unit of the outcome. Intervals are two-sided, at level 1 - alpha.

Always true: the functions raise `TooFew` if a group has fewer than two people, or if neither group has any variance. A
value that cannot be computed is NaN.
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
    """The size of a group, and the mean and the variance of its people's values. The variance is that of single values,
    not that of the mean."""

    n: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Array) -> Self:
        _enough(len(values))
        return cls(len(values), float(np.mean(values)), float(np.var(values, ddof=1)))

    @classmethod
    def of_sums(cls, n: int, total: float, squares: float) -> Self:
        """The moments of `n` values. `total`: the sum of the values; `squares`: the sum of their squares."""
        _enough(n)
        return cls(n, total / n, max(squares - total**2 / n, 0.0) / (n - 1))

    @classmethod
    def of_share(cls, n: int, successes: int) -> Self:
        """The moments of an outcome that is 1 for `successes` of `n` people and 0 for the others. The variance is p (1
        - p), as in tests of two proportions."""
        _enough(n)
        share = successes / n
        return cls(n, share, share * (1 - share))

    @property
    def error2(self) -> float:
        """The standard error of the mean, squared."""
        return self.variance / self.n


def _enough(n: int) -> None:
    if n < 2:
        raise TooFew(f"group of {n}: has too few people to tell a spread; two are needed at least")


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated value with its confidence interval (`low`, `high`). `p`: the p value of the hypothesis that the true
    value is zero. `error`: the standard error of the value. `degrees`: the degrees of freedom of Student's t."""

    value: float
    low: float
    high: float
    p: float
    error: float
    degrees: float = math.inf

    def times(self, factor: float) -> Estimate:
        """The estimate multiplied by a positive `factor`, such as a number of people."""
        return Estimate(
            self.value * factor, self.low * factor, self.high * factor, self.p, self.error * factor, self.degrees
        )


UNKNOWN: Final = Estimate(math.nan, math.nan, math.nan, math.nan, math.nan)


def estimate(value: float, error: float, degrees: float = math.inf, alpha: float = ALPHA) -> Estimate:
    """An estimate whose interval and p value are from Student's t distribution, or from the normal distribution if
    `degrees` is infinite. `error`: the standard error of `value`. If `error` is not positive, the interval is the value
    itself, and `p` is NaN."""
    from scipy import stats

    if not error > 0:
        return Estimate(value, value, value, math.nan, error, degrees)
    half = float(stats.t.ppf(1 - alpha / 2, degrees)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, degrees))
    return Estimate(value, value - half, value + half, p, error, degrees)


def _welch_degrees(control: Moments, treated: Moments) -> float:
    """The degrees of freedom of Welch's t test: Welch, B. L. (1947), The generalization of "Student's" problem;
    Satterthwaite (1946). Raises `TooFew` if neither group has any variance."""
    a, b = control.error2, treated.error2
    if a + b == 0:
        raise TooFew("two groups: nobody in them differs from anybody; there is no spread to judge by")
    return (a + b) ** 2 / (a**2 / (control.n - 1) + b**2 / (treated.n - 1))


def difference(control: Moments, treated: Moments, *, alpha: float = ALPHA) -> Estimate:
    """The mean of the treated minus the mean of the control, by Welch's t test (Welch 1947), which allows for unequal
    variances."""
    error = math.sqrt(control.error2 + treated.error2)
    return estimate(treated.mean - control.mean, error, _welch_degrees(control, treated), alpha)


def relative(control: Moments, treated: Moments, *, alpha: float = ALPHA) -> Estimate:
    """The difference of the means, divided by the absolute value of the control's mean. NaN if that mean is zero.

    Its variance is that of a ratio of means by the delta method, var(T)/C² + var(C) T²/C⁴ (Deng, Knoblich and Lu 2018,
    Applying the Delta Method in Metric Analytics, section 2).
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
    """The people of one arm. `outcome`: the outcome of each person in the window; `before`: that of each person before
    the window."""

    outcome: Array
    before: Array


@dataclass(frozen=True, slots=True)
class Adjusted:
    """The absolute and the relative effect, estimated from adjusted outcomes. `kept`: the variance of the absolute
    effect after the adjustment, as a share of the variance before it."""

    difference: Estimate
    relative: Estimate
    kept: float


def cuped(control: Group, treated: Group, *, alpha: float = ALPHA) -> Adjusted:
    """The absolute and the relative effect, where each person's outcome is adjusted for what the person did before the
    window.

    Deng, Xu, Kohavi and Walker (2013), Improving the Sensitivity of Online Controlled Experiments by Utilizing
    Pre-Experiment Data. The adjusted outcome is outcome - theta · before, with theta = cov / var, here of the
    deviations from the mean of the person's arm. The relative effect is divided by the control's unadjusted mean. This
    mean correlates with the adjusted one, so the delta method includes their covariance.
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
    """The slope of a regression of the outcome in the window on the outcome before the window. It is computed from the
    deviations from the means of the arms, of all arms together. 0 if the outcome before does not vary."""
    within = [(g.outcome - g.outcome.mean(), g.before - g.before.mean()) for g in arms]
    spread = sum(float(x @ x) for _, x in within)
    return sum(float(y @ x) for y, x in within) / spread if spread > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Capped:
    """The absolute and the relative effect, estimated from outcomes that are capped at `low` and `high`. This is
    another quantity than the effect on the outcomes themselves."""

    difference: Estimate
    relative: Estimate
    low: float
    high: float


def winsorised(control: Array, treated: Array, *, share: float = CAPPED, alpha: float = ALPHA) -> Capped:
    """The effects on outcomes that are capped at two quantiles, `share` and 1 - `share`, of both groups together.

    Tukey (1962), The Future of Data Analysis, section 14. Both groups have the same caps, so that they are treated
    alike.
    """
    low, high = (float(q) for q in np.quantile(np.concatenate([control, treated]), [share, 1 - share]))
    groups = [Moments.of(np.clip(values, low, high)) for values in (control, treated)]
    return Capped(difference(*groups, alpha=alpha), relative(*groups, alpha=alpha), low, high)


# --- Looking more than once


def always_valid(effect: Estimate, n: float, planned: float, alpha: float = ALPHA, tests: int = 1) -> Estimate:
    """The estimate with an interval that stays valid however often one looks at the results: the intervals of all looks
    together contain the true value with probability 1 - alpha.

    `n`: how many people both groups have so far. `planned`: the `n` at which the interval is tightest. It must be the
    same at every look, otherwise the intervals are not valid together. `tests`: as in `simultaneous`; more tests make
    the interval wider, but do not change how `planned` tunes it. The `p` of the result is the smallest alpha at which
    the interval, tuned in the same way and for one test, excludes zero.

    This is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), Time-uniform
    central limit theory, with equations 9 (the boundary) and 161 (the tuning) of arXiv 2103.06476v7.
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
    """The p values, corrected for several tests: if those below alpha count as findings, the probability that any
    finding is false is at most alpha.

    Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure. A NaN stays NaN, and does not count as a test.
    """
    corrected = [math.nan] * len(ps)
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def simultaneous(effect: Estimate, tests: int, alpha: float = ALPHA) -> Estimate:
    """The estimate with a wider interval: if there are `tests` such intervals, all of them together contain their true
    values with probability 1 - alpha.

    Dunn (1961), Multiple Comparisons Among Means: by Bonferroni's bound, each interval is at level 1 - alpha / tests.
    If the interval excludes zero, `holm` over the same tests finds an effect, too. The converse is not true: `holm` may
    find an effect although the interval contains zero, since it does not bound the size of the effect.
    """
    return estimate(effect.value, effect.error, effect.degrees, alpha / tests)


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """The p values, corrected for several tests: if those below alpha count as findings, the expected share of false
    ones among the findings is at most alpha.

    Benjamini and Hochberg (1995), Controlling the False Discovery Rate. A NaN stays NaN, and does not count as a test.
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
    """The p value of the hypothesis that people were assigned to the arms with the planned shares: Pearson's χ² test
    (Fabijan et al. 2019, Diagnosing Sample Ratio Mismatch in Online Controlled Experiments). `counts`: the number of
    people by arm. `shares`: the planned shares by arm, which need not sum to one. NaN if there is only one arm, or
    nobody was assigned."""
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
    """The return of the whole treated group: (incremental margin - booked) / (discount + booked). NaN if nothing was
    spent.

    `control`, `treated`: the margin of each person, after the discount. `discount`: the discount of each treated
    person. `booked`: all other cost of the treated group. It is known exactly, so it adds no variance. Margin and
    discount of a person correlate, so the interval is that of a ratio of two means by the delta method with their
    covariance (Deng, Knoblich and Lu 2018), with Welch's degrees of freedom.
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
    """The same return as `return_on_cost`, but with less noise: the margin of each person is adjusted for what the
    person did before the window, as in `cuped`."""
    theta = _theta((control, treated))
    rest_c, rest_t = (g.outcome - theta * g.before for g in (control, treated))
    return return_on_cost(rest_c, rest_t, discount, booked, alpha)


@dataclass(frozen=True, slots=True)
class Response:
    """How the outcome per person depends on the face value. `slope`: the slope of a line, per unit of face value.
    `unfit`: the p value of the hypothesis that the line fits. `bend`: the coefficient of the squared term of a
    parabola, NaN if there are fewer than three different face values."""

    slope: Estimate
    unfit: float
    bend: Estimate


def response(arms: Sequence[tuple[float, Moments]], alpha: float = ALPHA) -> Response:
    """Fit a line and a parabola to the means of the arms, by weighted least squares. `arms`: the dose (the face value;
    0 for the control) and the moments of each arm.

    The weight of an arm is 1 / (standard error of its mean)², which is treated as known (Draper and Smith 1998, Applied
    Regression Analysis, chapter 9). Whether the line fits is tested by comparing its weighted squared residuals with
    χ². Raises `TooFew`.
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
    """Fit a polynomial of degree `power`. Returns its coefficients (the constant first), their covariance, and the
    weighted sum of the squared residuals."""
    scale = float(np.abs(doses).max())
    design = np.vander(doses / scale, power + 1, increasing=True)
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    coefficients = covariance @ (design.T @ (weights * means))
    misfit = float(weights @ (means - design @ coefficients) ** 2)
    back = scale ** -np.arange(power + 1.0)
    return coefficients * back, covariance * np.outer(back, back), misfit
