"""Effects without random assignment: compares targeted people with others who behaved alike before the campaign.

Without random assignment, the evidence is weaker than the intervals suggest. It is valid only if, given what is known
about people before the campaign, being targeted is independent of what they would have done without it. This cannot be
proven, but a placebo can refute it: the same comparison for a time before the campaign, where the true effect is zero.
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
    """The effect per targeted person. `supported`: the share of the targeted people who were compared; `targeted`,
    `others`: the number of people compared."""

    effect: Estimate
    supported: float
    targeted: int
    others: int


def matched(outcome: Array, targeted: Array, spent: Array, also: Array, alpha: float = ALPHA) -> Compared:
    """The average effect on the targeted, by exact matching on classes of what people `spent` before.

    `targeted`: booleans; `also`: columns with further facts about the time before. Classes: nothing spent, and ten
    quantile groups of those who spent (coarsened exact matching: Iacus, King and Porro 2012, Causal Inference without
    Balance Checking). Within the classes, a linear function of `spent` and `also` is fitted to the others' outcomes;
    the effect is the targeted's outcome minus its prediction (Kline 2011, Oaxaca-Blinder as a Reweighting Estimator:
    consistent if either the line or the weights that it implies are right). Variance: of the targeted's residuals, plus
    that of the line with HC3 errors (MacKinnon and White 1985). Raises `TooFew`.
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
    """The class of each person: 0 if nothing was spent, else 1 to 10 by the quantiles of those who spent."""
    some = spent > 0
    if not some.any():
        return np.zeros(len(spent), dtype=np.int64)
    edges = np.unique(np.quantile(spent[some], np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.where(some, 1 + np.searchsorted(edges, spent, side="right"), 0)


def _design(classes: Array, known: Array) -> Array:
    """One indicator column per class, and the columns of `known` that vary, standardised."""
    present = np.unique(classes)
    columns = (classes[:, None] == present).astype(float)
    spread = known.std(axis=0)
    useful = known[:, spread > 0]
    return np.hstack([columns, (useful - useful.mean(axis=0)) / spread[spread > 0]])


def _line(design: Array, outcome: Array) -> tuple[Array, Array]:
    """Least-squares coefficients and their HC3 covariance. Redundant columns do no harm (pseudo-inverse)."""
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ (design.T @ outcome)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    residuals = (outcome - design @ coefficients) / np.clip(1 - leverage, 1e-6, None)
    meat = (design * residuals[:, None] ** 2).T @ design
    return coefficients, inverse @ meat @ inverse


def historical(outcome: Array, before: Array, targeted: Array, alpha: float = ALPHA) -> Compared:
    """Difference in differences: how much more the targeted changed than the others, from the period before to the
    window. Welch's t over the change of each person (Card and Krueger 1994; Bertrand, Duflo and Mullainathan 2004: one
    change per person, so that serial correlation does not understate the error). Raises `TooFew`."""
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
    """A comparison and its placebo. `placebo`: the same comparison for a time without an effect; `refused`: why the
    comparison is rejected, or None."""

    compared: Compared
    placebo: Compared
    refused: Note | None


@dataclass(frozen=True, slots=True)
class Period:
    """What everyone did in one period: arrays with one value per person, in the same order for all periods. `outcome`:
    the value compared; `spent`, `orders`: used for matching."""

    outcome: Array
    spent: Array
    orders: Array


def judged(
    method: str, window: Period, recent: Period, earlier: Period, targeted: Array, *, alpha: float = ALPHA
) -> Judged:
    """The comparison by `matched` or `historical`, with its placebo. `recent`: the period before the window, `earlier`:
    the one before that; all three have the same length.

    Matched: if people who are alike in `recent` are comparable, they do not differ in `earlier` either, which was not
    matched on (the pseudo-outcome test of Imbens and Rubin 2015, Causal Inference, chapter 21). Historical: if both
    sides would have changed alike, they also did so from `earlier` to `recent`. Raises `TooFew`.
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
