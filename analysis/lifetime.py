"""How many purchases to expect from a customer, and their value: the models BG/NBD and Gamma-Gamma.

Fader, Hardie, Lee: "Counting Your Customers" the Easy Way: An Alternative to the Pareto/NBD Model, Marketing Science 24
(2005). Fader, Hardie: The Gamma-Gamma Model of Monetary Value (2013). The results are projections of a model: they are
shown in columns of their own, and are never added to actual earnings.

The functions take arrays with one value per customer. `x`: the number of repeat purchases (all but the first). `t_x`:
the time from the first purchase to the last. `t`: the time from the first purchase to the end of the observation, in
the unit of `t_x`. `z`: the mean spend of the repeat purchases.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEWEST: Final = 50
"""Fewest customers with a repeat purchase that a fit needs."""
FITTED: Final = 100_000
"""Maximum number of customers that a fit uses. If there are more, it uses an evenly spaced sample: a million would take
minutes and hardly improve the parameters."""
_MOST: Final = 600.0
"""Cap on log odds. Beyond it, the outcome is practically certain."""
_NEAR_ONE: Final = 1e-7
_FARTHEST: Final = 10.0
"""Bound on the logarithm of a parameter. Beyond it, the fit hardly changes. Times and amounts are scaled to about 1."""
_PENALTY: Final = 1e-8
"""Weight of a penalty that keeps parameters finite if the data do not determine them. It hardly changes other fits."""


class CannotFit(ValueError):
    """Raised if a model cannot be fitted to the data, for example because there are too few."""


@dataclass(frozen=True, slots=True)
class Purchases:
    """The fitted parameters of BG/NBD. Across customers, the purchase rate has the distribution Gamma(`r`, `alpha`),
    and the probability that a customer leaves after a purchase has the distribution Beta(`a`, `b`)."""

    r: float
    alpha: float
    a: float
    b: float

    def alive(self, x: Floats, t_x: Floats, t: Floats) -> Floats:
        """The probability that each customer is still active. It is 1 for customers without a repeat purchase."""
        return 1.0 / (1.0 + self._left(x, t_x, t))

    def expected(self, ahead: float, x: Floats, t_x: Floats, t: Floats) -> Floats:
        """How many purchases to expect from each customer in the next `ahead` units of time (equation 10 of the first
        source).

        The hypergeometric function in this equation is computed in a form that stays finite (see `_stays`).
        """
        r, b = self.r, self.b
        a = self.a if abs(self.a - 1) > _NEAR_ONE else 1 + _NEAR_ONE  # at a = 1 the formula is a limit
        part = ahead / (self.alpha + t + ahead)
        rest = _stays(r + x, b + x, a + b + x - 1, part)
        purchases: Floats = (a + b + x - 1) / (a - 1) * (1 - rest) / (1 + self._left(x, t_x, t))
        return purchases

    def _left(self, x: Floats, t_x: Floats, t: Floats) -> Floats:
        logs = (self.r + x) * np.log((self.alpha + t) / (self.alpha + t_x))
        odds = self.a / (self.b + (np.maximum(x, 1) - 1)) * np.exp(np.minimum(logs, _MOST))
        return np.where(x > 0, odds, 0.0)


def _stays(a: Floats, b: Floats, c: Floats, z: Floats) -> Floats:
    """The value of (1 - z)^a 2F1(a, b; c; z) for each element. All parameters must be positive, and 0 <= z < 1.

    The plain series overflows if a customer has some thousand purchases; an example is a guest account that many
    customers share. Another form, by Euler's transformation (Abramowitz and Stegun 15.3.3), is (1 - z)^(c - b) 2F1(c -
    a, c - b; c; z). It overflows if customers hardly ever leave. If both overflow, the series is summed in logarithms.
    """
    from scipy.special import hyp2f1

    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        result: Floats = np.asarray((1 - z) ** (c - b) * hyp2f1(c - a, c - b, c, z))
        again = ~np.isfinite(result)
        if again.any():
            a_, b_, c_, z_ = (values[again] for values in (a, b, c, z))
            result[again] = (1 - z_) ** a_ * hyp2f1(a_, b_, c_, z_)
    for i in np.flatnonzero(~np.isfinite(result)):
        result[i] = np.exp(_log_series(a[i], b[i], c[i], z[i]) + a[i] * np.log1p(-z[i]))
    return result


def _log_series(a: float, b: float, c: float, z: float) -> float:
    """The logarithm of the series 2F1(a, b; c; z), all of whose terms must be positive."""
    n = np.arange(_TERMS)
    logs = np.cumsum(np.log((a + n) / (c + n) * (b + n) / (n + 1) * z))
    most = max(0.0, float(logs.max()))
    return most + float(np.log(np.exp(-most) + np.exp(logs - most).sum()))


_TERMS: Final = 1_000_000
"""Number of terms of the series that are summed. Even with the largest parameters that a fit allows, later terms are
negligible."""


@dataclass(frozen=True, slots=True)
class Spend:
    """The fitted parameters of Gamma-Gamma. The spend per purchase has the distribution Gamma(`p`, ν), and ν has the
    distribution Gamma(`q`, `v`) across customers."""

    p: float
    q: float
    v: float

    def expected(self, x: Floats, z: Floats) -> Floats:
        """The mean spend per purchase to expect from each customer. For customers without a repeat purchase, this is
        the mean of the population."""
        known = np.where(x > 0, x * z, 0.0)
        mean: Floats = self.p * (self.v + known) / (self.p * x + self.q - 1)
        return mean


def fit_purchases(x: Floats, t_x: Floats, t: Floats) -> Purchases:
    """Fit BG/NBD by maximum likelihood (equation 6 of the first source). Raises `CannotFit`."""
    from scipy.special import betaln, gammaln

    if np.count_nonzero(x) < FEWEST:
        raise CannotFit(f"{np.count_nonzero(x)} customers came again; {FEWEST} are needed")
    if not t.max() > 0:
        raise CannotFit("everybody bought at one instant; time has to pass")
    x, t_x, t = _spread(x, t_x, t)
    scale = 10.0 / t.max()
    times, place = np.unique(x, return_inverse=True)
    again = np.flatnonzero(x > 0)
    x_again, place_again, last, end = x[again], place[again], t_x[again] * scale, t * scale
    # Most trial steps change a parameter other than alpha, so the logarithms that depend on alpha are cached.
    log_end, log_last = (lru_cache(2)(lambda alpha, at=at: np.log(alpha + at)) for at in (end, last))

    def surprise(logs: Floats) -> float:
        r, alpha, a, b = np.exp(logs)
        rate = gammaln(r + times) - gammaln(r) + r * np.log(alpha)
        staying = betaln(a, b + times) - betaln(a, b)
        leaving = np.log(a) - np.log(b + (np.maximum(times, 1) - 1))
        either = -(r + x) * log_end(alpha)
        left = leaving[place_again] - (r + x_again) * log_last(alpha)
        either[again] = np.logaddexp(either[again], left)
        return float(-((rate + staying)[place] + either).mean() + _PENALTY * (logs**2).sum())

    r, alpha, a, b = _least(surprise, np.zeros(4))
    return Purchases(r, alpha / scale, a, b)


def fit_spend(x: Floats, z: Floats) -> Spend:
    """Fit Gamma-Gamma by maximum likelihood. Uses only customers with repeat purchases whose mean spend is positive.
    Raises `CannotFit`."""
    from scipy.special import gammaln

    some = (x > 0) & (z > 0)
    x, z = x[some], z[some]
    if len(x) < FEWEST:
        raise CannotFit(f"{len(x)} customers paid again; {FEWEST} are needed")
    x, z = _spread(x, z)
    scale = 1.0 / z.mean()
    log_x, log_spent, of_all = np.log(x), np.log(z * scale), x * (z * scale)
    times, place = np.unique(x, return_inverse=True)
    log_all = lru_cache(2)(lambda v: np.log(of_all + v))

    def surprise(logs: Floats) -> float:
        p, q, v = np.exp(logs)
        likelihood = (gammaln(p * times + q) - gammaln(p * times) - gammaln(q) + q * np.log(v))[place]
        likelihood += (p * x - 1) * log_spent + p * x * log_x - (p * x + q) * log_all(v)
        return float(-likelihood.mean() + _PENALTY * (logs**2).sum())

    p, q, v = _least(surprise, np.zeros(3))
    if q <= 1:
        raise CannotFit("spend varies so much between customers that its mean is not known")
    return Spend(p, q, v / scale)


def _spread(*of_customers: Floats) -> list[Floats]:
    """The same arrays for at most `FITTED` customers, who are evenly spaced in the arrays."""
    step = -(-len(of_customers[0]) // FITTED)
    return [values[:: max(step, 1)] for values in of_customers]


def _least(surprise: object, start: Floats) -> list[float]:
    """The parameters, as numbers, for which `surprise` is smallest. `surprise`: a function of their logarithms;
    `start`: the logarithms at which to start. The search has bounds: if no customer ever left, the minimum is at
    infinity, and a search without bounds would take a minute. Raises `CannotFit`."""
    from scipy.optimize import minimize

    options = {"maxiter": 5_000, "ftol": 1e-12, "gtol": 1e-8}
    bounds = [(-_FARTHEST, _FARTHEST)] * len(start)
    result = minimize(surprise, start, method="L-BFGS-B", jac="3-point", bounds=bounds, options=options)
    if not result.success:
        raise CannotFit("no parameters fit what is known")
    return [float(value) for value in np.exp(result.x)]
