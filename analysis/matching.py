"""Estimates effects without random assignment: compares targeted people with others who behaved alike before the
campaign.

Without random assignment, the evidence is weaker than the intervals suggest. It is valid only on one assumption: among
people who were alike before the campaign, those who were targeted would have done the same without the campaign as the
others. This cannot be proven, but it can be refuted by a placebo: the same comparison for a time before the campaign,
where the true effect is zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from coupon_ledger.analysis.lift import ALPHA, Estimate, Moments, difference, estimate
from coupon_ledger.ledger.errors import TooFew
from coupon_ledger.ledger.words import Note, note

Array = npt.NDArray[Any]

FEWEST: Final = 50
"""Fewest people that each side needs."""
SUPPORTED: Final = 0.8
"""The share of the targeted people who must have similar people among the others."""
REFUTED: Final = 0.1
"""A placebo with a smaller p rejects the comparison. Rejecting a good comparison costs less than believing a bad
one."""
_BINS: Final = 10
_FEWEST_ALIKE: Final = 5


@dataclass(frozen=True, slots=True)
class Compared:
    """The result of a comparison. `effect`: the effect per targeted person. `supported`: the share of the targeted
    people who could be compared. `targeted`, `others`: how many people were compared on each side."""

    effect: Estimate
    supported: float
    targeted: int
    others: int


def matched(outcome: Array, targeted: Array, spent: Array, also: Array, alpha: float = ALPHA) -> Compared:
    """The average effect on the targeted people. Each is compared with the others of the same class, where the classes
    are formed by what people spent before.

    `targeted`: for each person, whether it was targeted. `spent`: what each person spent before. `also`: more columns
    with facts about the time before.

    There is one class for people who spent nothing, and ten classes for the quantiles of those who spent (coarsened
    exact matching: Iacus, King and Porro 2012, Causal Inference without Balance Checking). A linear function of the
    class, `spent` and `also` is fitted to the outcomes of the others. The effect is the mean of the targeted people's
    outcomes minus what this function predicts for them (Kline 2011, Oaxaca-Blinder as a Reweighting Estimator:
    consistent if the function is right, or the weights that it implies are). The variance is that of the targeted
    people's residuals plus that of the function, with HC3 errors (MacKinnon and White 1985). Raises `TooFew`.
    """
    classes = _classes(spent)
    others_in = np.bincount(classes[~targeted], minlength=_BINS + 1)
    kept = others_in[classes] >= _FEWEST_ALIKE
    t, c = targeted & kept, ~targeted & kept
    if min(t.sum(), c.sum()) < FEWEST:
        raise TooFew(
            note(
                "comparison of {targeted:count} targeted people with {others:count} others: too few are alike;"
                " {needed:count} are needed on either side",
                targeted=int(targeted.sum()),
                others=int((~targeted).sum()),
                needed=FEWEST,
            )
        )
    design = _design(classes, np.column_stack([spent, also]))
    coefficients, covariance = _line(design[c], outcome[c])
    rest = Moments.of(outcome[t] - design[t] @ coefficients)
    middle = design[t].mean(axis=0)
    error = math.sqrt(rest.error2 + float(middle @ covariance @ middle))
    effect = estimate(rest.mean, error, min(rest.n, int(c.sum())) - 1, alpha)
    return Compared(effect, float(t.sum() / targeted.sum()), rest.n, int(c.sum()))


def _classes(spent: Array) -> Array:
    """The class of each person: 0 for people who spent nothing, 1 to 10 for the others, by the quantiles of what they
    spent."""
    some = spent > 0
    if not some.any():
        return np.zeros(len(spent), dtype=np.int64)
    edges = np.unique(np.quantile(spent[some], np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.where(some, 1 + np.searchsorted(edges, spent, side="right"), 0)


def _design(classes: Array, known: Array) -> Array:
    """The columns of the regression: an indicator of each class, and those columns of `known` that vary,
    standardised."""
    present = np.unique(classes)
    columns = (classes[:, None] == present).astype(float)
    spread = known.std(axis=0)
    useful = known[:, spread > 0]
    return np.hstack([columns, (useful - useful.mean(axis=0)) / spread[spread > 0]])


def _line(design: Array, outcome: Array) -> tuple[Array, Array]:
    """Fit a linear function of the columns of `design` by least squares. Returns its coefficients and their HC3
    covariance. Redundant columns do no harm, since the pseudo-inverse is used."""
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ (design.T @ outcome)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    residuals = (outcome - design @ coefficients) / np.clip(1 - leverage, 1e-6, None)
    meat = (design * residuals[:, None] ** 2).T @ design
    return coefficients, inverse @ meat @ inverse


def historical(outcome: Array, before: Array, targeted: Array, alpha: float = ALPHA) -> Compared:
    """The effect by difference in differences: how much the outcome of the targeted people changed from the period
    before to the window, minus how much that of the others changed.

    `outcome`, `before`: each person's outcome in the window, and in the period before. `targeted`: for each person,
    whether it was targeted. The changes of the persons are compared by Welch's t test (Card and Krueger 1994). There is
    one change per person, so that serial correlation does not make the error look smaller than it is (Bertrand, Duflo
    and Mullainathan 2004). Raises `TooFew`.
    """
    change = outcome - before
    if min(targeted.sum(), (~targeted).sum()) < FEWEST:
        raise TooFew(
            note(
                "comparison of {targeted:count} targeted people with {others:count} others: too few; {needed:count} are"
                " needed on either side",
                targeted=int(targeted.sum()),
                others=int((~targeted).sum()),
                needed=FEWEST,
            )
        )
    effect = difference(Moments.of(change[~targeted]), Moments.of(change[targeted]), alpha=alpha)
    return Compared(effect, 1.0, int(targeted.sum()), int((~targeted).sum()))


@dataclass(frozen=True, slots=True)
class Judged:
    """A comparison and its placebo. `placebo`: the same comparison for a time before the campaign, where there was no
    effect. `refused`: why the comparison must not be trusted; None if nothing speaks against it."""

    compared: Compared
    placebo: Compared
    refused: Note | None


@dataclass(frozen=True, slots=True)
class Period:
    """What everyone did in one period: arrays with one value per person, in the same order for all periods. `outcome`:
    the outcome whose effect is estimated. `spent`, `orders`: used to find people who are alike."""

    outcome: Array
    spent: Array
    orders: Array


def judged(
    method: str, window: Period, recent: Period, earlier: Period, targeted: Array, *, alpha: float = ALPHA
) -> Judged:
    """Compare by `method` (`matched` or `historical`), and judge the comparison by a placebo. `recent`: the period
    before the window; `earlier`: the period before `recent`. All three periods have the same length.

    The placebo of `matched`: people are matched by what they did in `recent`, and their outcomes in `earlier` are
    compared. If matched people are comparable, these do not differ either (the pseudo-outcome test of Imbens and Rubin
    2015, Causal Inference, chapter 21). The placebo of `historical`: the change from `earlier` to `recent`. If both
    sides would have changed alike without the campaign, they did so then. Raises `TooFew`.
    """
    if method == "matched":
        known = np.column_stack([recent.orders, recent.outcome])
        comparison = matched(window.outcome, targeted, recent.spent, known, alpha)
        placebo = matched(earlier.outcome, targeted, recent.spent, known, alpha)
    else:
        comparison = historical(window.outcome, recent.outcome, targeted, alpha)
        placebo = historical(recent.outcome, earlier.outcome, targeted, alpha)
    return Judged(comparison, placebo, _refusal(comparison, placebo))


def _refusal(comparison: Compared, placebo: Compared) -> Note | None:
    if comparison.supported < SUPPORTED:
        return note(
            "only {supported:percent} of the targeted have anybody like them among the others; {needed:percent} are"
            " needed",
            supported=comparison.supported,
            needed=SUPPORTED,
        )
    if math.isnan(placebo.effect.p) and placebo.effect.value:
        return note(
            "the placebo failed: before the campaign, where there was no effect, all of one side differed alike"
        )
    if placebo.effect.p < REFUTED:
        return note(
            "the placebo failed: the same comparison finds an effect before the campaign, where there was none (p"
            " {p:p});"
            " the two sides differ in more than the campaign",
            p=placebo.effect.p,
        )
    return None
