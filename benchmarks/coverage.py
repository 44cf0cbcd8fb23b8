"""Do the 95% intervals of what a coupon caused hold the truth in 95 of 100 experiments?

    python -m benchmarks.coverage [--runs 200] [--seed 20261111]

Seeded worlds with a known truth (cli/sources/experiment_world.py): people with habits, heavy-tailed baskets, a true
lift per segment, refunds, a holdout. Every run asks every estimator of `experiment show` and `experiment compare`. An
interval of the right width holds the truth in 182 to 198 of 200 runs (a binomial's 99%, doubled). Intervals that hold
at every look at once must hold the truth in at least 182 runs, whichever day one looks; those for several treatments at
once, all of their truths. The winsorised estimate is judged by the truth of the capped outcome, which is another
quantity.

Lines of JSON: per world and estimator, `covered` of `runs`, `expected` (the bounds), the true value and the mean
estimate; per world without arms, how often the placebo refused; and simple ROI beside the incremental one and the
truth.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np

from coupon_ledger.analysis import lift, matching
from coupon_ledger.analysis.lift import Array, Estimate, Group, Moments
from coupon_ledger.cli.sources.experiment_world import (
    OUTSIDE,
    Choice,
    ExperimentWorld,
    Orders,
    People,
    Treatment,
    drawn,
    shares,
    true_return,
    truth,
)

SEED: Final = 20261111
_BOUNDS: Final = (182 / 200, 198 / 200)
_LARGE: Final = 500_000

PEEKING: Final = "margin, plain at every look"
"""Effect of looking every day at an interval that is made for one look: it promises nothing."""

AT_ONCE: Final = "all treatments at once"
"""Simultaneous intervals: a run counts if every one of them holds its truth."""

_TOGETHER: Final = ("margin", "margin, CUPED", "net sales", "incremental ROI")

NO_EFFECT: Final = Treatment("coupon", 0, (0.0, 0.0, 0.0))
GIVEN_AWAY: Final = Treatment("coupon", 1_000, (0.0, 0.0, 0.0))
FACES: Final = (
    Treatment("face-5", 500, (0.3, 0.15, 0.05)),
    Treatment("face-10", 1_000, (0.6, 0.3, 0.1)),
    Treatment("face-20", 2_000, (0.8, 0.4, 0.1)),
)
WITH_ARMS: Final = {
    "an effect": ExperimentWorld(),
    "no effect": ExperimentWorld(treatments=(NO_EFFECT,)),
    "bought anyway": ExperimentWorld(treatments=(GIVEN_AWAY,)),
    "small holdout, heavy tail": ExperimentWorld(people=10_000, control_share=0.2, basket_sigma=1.2),
    "three face values": ExperimentWorld(people=8_000, control_share=0.4, treatments=FACES),
}


@dataclass
class Tally:
    """One estimator in one world, over all runs."""

    truths: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    covered: int = 0

    def add(self, true: float, estimate: Estimate) -> None:
        self.hold(true, estimate.value, estimate.low <= true <= estimate.high)

    def hold(self, true: float, value: float, held: bool) -> None:
        self.truths.append(true)
        self.values.append(value)
        self.covered += int(held)

    def line(self, world: str, name: str) -> dict[str, Any]:
        runs = len(self.values)
        least, most = math.ceil(_BOUNDS[0] * runs), math.floor(_BOUNDS[1] * runs)
        if "sequential" in name or AT_ONCE in name:
            most = runs
        promises = name.partition(": ")[2] != PEEKING and name != PEEKING
        return {
            "world": world,
            "estimator": name,
            "runs": runs,
            "covered": self.covered,
            "expected": [least, most] if promises else None,
            "ok": least <= self.covered <= most if promises else None,
            "truth": _short(np.mean(self.truths)),
            "mean_estimate": _short(np.mean(self.values)),
        }


def _short(value: Any) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    for line in (*with_arms(options.runs, options.seed), *without_arms(options.runs, options.seed)):
        print(json.dumps(line), flush=True)


# --- with arms


@dataclass(frozen=True)
class Outcomes:
    """Arrays over people for the window; `margin_before` is for as many days before it."""

    margin: Array
    margin_before: Array
    net: Array
    orders: Array
    discount: Array


def _margins(world: ExperimentWorld, orders: Orders) -> Array:
    """Margin of each order. A refund returns its share of the goods."""
    margin: Array = orders.net - np.round(orders.gross * world.cost_share) * (1 - orders.refunded)
    return margin


def outcomes(world: ExperimentWorld, orders: Orders) -> Outcomes:
    margin, stays = _margins(world, orders), orders.refunded < 1
    window = orders.day >= 0
    before = (orders.day < 0) & (orders.day >= -world.window_days)

    def each(value: Array, among: Array) -> Array:
        return np.bincount(orders.person[among], value[among], world.people)

    return Outcomes(
        margin=each(margin, window),
        margin_before=each(margin, before),
        net=each(orders.net, window),
        orders=each(stays.astype(float), window),
        discount=each(orders.discount * stays, window),
    )


def with_arms(runs: int, seed: int) -> Iterator[dict[str, Any]]:
    for name, world in WITH_ARMS.items():
        tallies: dict[str, Tally] = {}
        simple: dict[str, list[float]] = {t.name: [] for t in world.treatments}
        capped = _capped_truth(replace(world, seed=seed, people=_LARGE))
        for run in range(runs):
            made = replace(world, seed=seed + run)
            people, orders = drawn(made)
            if len(world.treatments) > 1:
                tallies.setdefault("slope of the response curve", Tally()).add(*_slope(made, people, orders))
            together: dict[str, list[tuple[float, Estimate]]] = {}
            for arm, treatment in enumerate(world.treatments, start=1):
                label = f"{treatment.name}: " if len(world.treatments) > 1 else ""
                for estimator, true, estimate in _estimates(made, people, orders, arm, capped[arm]):
                    tallies.setdefault(label + estimator, Tally()).add(true, estimate)
                    together.setdefault(estimator, []).append((true, estimate))
                for estimator, true, held, value in _looks(made, people, orders, arm):
                    tallies.setdefault(label + estimator, Tally()).hold(true, value, held)
                simple[treatment.name].append(_simple_return(made, people, orders, arm))
            for estimator in _TOGETHER if len(world.treatments) > 1 else ():
                tally = tallies.setdefault(f"{estimator}, {AT_ONCE}", Tally())
                tally.hold(*_all_at_once(together[estimator]))
        yield from (tally.line(name, estimator) for estimator, tally in tallies.items())
        for treatment in world.treatments:
            true = true_return(world, treatment.name)
            simple_roi = float(np.mean(simple[treatment.name]))
            if treatment.face_value_minor:
                both = {"simple_roi": _short(simple_roi), "true_incremental_roi": _short(true)}
                yield {"world": name, "treatment": treatment.name, **both, "ok": bool(simple_roi > true)}


def _all_at_once(estimates: list[tuple[float, Estimate]]) -> tuple[float, float, bool]:
    """The mean truth, the mean estimate, and whether each interval holds its own truth."""
    wide = [(true, lift.simultaneous(one, len(estimates))) for true, one in estimates]
    held = all(one.low <= true <= one.high for true, one in wide)
    return float(np.mean([true for true, _ in wide])), float(np.mean([one.value for _, one in wide])), held


def _gain(world: ExperimentWorld, arm: int) -> float:
    arms = list(truth(world).values())
    return arms[arm].margin_minor - arms[0].margin_minor


def _estimates(
    world: ExperimentWorld, people: People, orders: Orders, arm: int, capped: float
) -> Iterator[tuple[str, float, Estimate]]:
    """Name, truth, estimate."""
    measured, arms = outcomes(world, orders), list(truth(world).values())
    c, t = people.arm == 0, people.arm == arm
    control, treated = arms[0], arms[arm]
    gain = treated.margin_minor - control.margin_minor

    def moments(values: Array) -> tuple[Moments, Moments]:
        return Moments.of(values[c]), Moments.of(values[t])

    yield "margin", gain, lift.difference(*moments(measured.margin))
    yield "margin, relative", gain / control.margin_minor, lift.relative(*moments(measured.margin))
    adjusted = lift.cuped(*(Group(measured.margin[g], measured.margin_before[g]) for g in (c, t)))
    yield "margin, CUPED", gain, adjusted.difference
    yield "margin, CUPED, relative", gain / control.margin_minor, adjusted.relative
    yield "margin, winsorised", capped, lift.winsorised(measured.margin[c], measured.margin[t]).difference
    yield "net sales", treated.net_minor - control.net_minor, lift.difference(*moments(measured.net))
    yield "orders", treated.orders - control.orders, lift.difference(*moments(measured.orders))
    buyers = [Moments.of_share(int(g.sum()), int((measured.orders[g] > 0).sum())) for g in (c, t)]
    yield "buyers (proportion)", treated.buyer - control.buyer, lift.difference(*buyers)
    yield "buyers, relative", treated.buyer / control.buyer - 1, lift.relative(*buyers)
    name = world.treatments[arm - 1].name
    booked = world.booked_minor / len(world.treatments)
    return_ = lift.return_on_cost(measured.margin[c], measured.margin[t], measured.discount[t], booked)
    true = true_return(_of_size(world, name, int(t.sum())), name)
    yield "incremental ROI", true, return_
    with_past = [Group(measured.margin[g], measured.margin_before[g]) for g in (c, t)]
    return_cuped = lift.cuped_return_on_cost(with_past[0], with_past[1], measured.discount[t], booked)
    yield "incremental ROI, CUPED", true, return_cuped


def _slope(world: ExperimentWorld, people: People, orders: Orders) -> tuple[float, Estimate]:
    """The slope of the line through the arms: truth and estimate. The arms' true means lie on a curve; the true slope
    is that of the line fitted to them with the same weights."""
    margin, arms = outcomes(world, orders).margin, list(truth(world).values())
    doses = [0.0, *(float(t.face_value_minor) for t in world.treatments)]
    moments = [Moments.of(margin[people.arm == arm]) for arm in range(len(doses))]
    straight = [replace(m, mean=a.margin_minor) for m, a in zip(moments, arms, strict=True)]
    line = [lift.response(list(zip(doses, of, strict=True))).slope for of in (straight, moments)]
    return line[0].value, line[1]


def _of_size(world: ExperimentWorld, treatment: str, size: int) -> ExperimentWorld:
    """The world in which `size` people are expected in the treatment: the booked cost is borne by the people drawn."""
    return replace(world, people=size / shares(world)[treatment])  # type: ignore[arg-type]


def _looks(
    world: ExperimentWorld, people: People, orders: Orders, arm: int
) -> Iterator[tuple[str, float, bool, float]]:
    """Name, truth at the last look, whether each look's interval held its truth, and estimate at the last look."""
    c, t = people.arm == 0, people.arm == arm
    n = int(c.sum() + t.sum())
    value = _margins(world, orders)
    held = {"margin, sequential at every look": True, PEEKING: True}
    margin = np.zeros(world.people)
    true, plain = math.nan, None
    for day in range(world.valid_days):
        today = (orders.day >= day) & (orders.day < day + 1)
        margin += np.bincount(orders.person[today], value[today], world.people)
        # Until expiry, the truth on a day is that of a world that is valid until that day and has no time after it.
        true = _gain(replace(world, valid_days=day + 1, after_days=0, pulled_share=0), arm)
        plain = lift.difference(Moments.of(margin[c]), Moments.of(margin[t]))
        valid = lift.always_valid(plain, n * (day + 1) / world.window_days, planned=n)
        for name, estimate in zip(held, (valid, plain), strict=True):
            held[name] &= estimate.low <= true <= estimate.high
    assert plain is not None
    for name, all_held in held.items():
        yield name, true, all_held, plain.value


def _simple_return(world: ExperimentWorld, people: People, orders: Orders, arm: int) -> float:
    """Simple ROI as dashboards show it: the margin of the orders with a coupon, less booked cost, over all cost."""
    stays = orders.refunded < 1
    mine = (people.arm[orders.person] == arm) & orders.with_coupon & stays
    booked = world.booked_minor / len(world.treatments)
    return float((_margins(world, orders)[mine].sum() - booked) / (orders.discount[mine].sum() + booked))


def _capped_truth(world: ExperimentWorld) -> list[float]:
    """The true difference of the capped outcome, by arm: from very many people, all of them placed in each arm in turn,
    with the caps of both arms in their shares."""
    margins = []
    for arm in range(len(world.treatments) + 1):
        _, orders = drawn(world, partial(_all_in, arm))
        margins.append(outcomes(world, orders).margin)
    parts = list(shares(world).values())
    effects = []
    for arm, margin in enumerate(margins):
        sizes = (round(world.people * part) for part in (parts[0], parts[arm]))
        mixed = np.concatenate([group[:size] for group, size in zip((margins[0], margin), sizes, strict=True)])
        caps = np.quantile(mixed, [lift.CAPPED, 1 - lift.CAPPED])
        effects.append(float(np.clip(margin, *caps).mean() - np.clip(margins[0], *caps).mean()))
    return effects


def _all_in(arm: int, people: People, _paid: Array, _random: np.random.Generator) -> Array:
    return np.full(len(people.rate), arm)


# --- without arms


def _by_past_sales(_people: People, paid: Array, random: np.random.Generator) -> Array:
    """Recent buyers of much are likelier to be targeted: everything that decides is on record."""
    recent = np.log1p(paid / 5_000)
    return np.where(random.random(len(paid)) < 1 / (1 + np.exp(1.5 - recent)), 1, OUTSIDE)


def _by_habit(people: People, _paid: Array, random: np.random.Generator) -> Array:
    """People who buy often by habit are likelier to be targeted; the habit itself is not on record."""
    return np.where(random.random(len(people.rate)) < 1 / (1 + np.exp(1.5 - 15 * people.rate)), 1, OUTSIDE)


WITHOUT_ARMS: Final[dict[str, tuple[ExperimentWorld, Choice]]] = {
    "targeted by past sales": (ExperimentWorld(people=8_000), _by_past_sales),
    "targeted by past sales, no effect": (ExperimentWorld(people=8_000, treatments=(NO_EFFECT,)), _by_past_sales),
    "targeted by habit": (ExperimentWorld(people=8_000), _by_habit),
    "targeted by habit, no effect": (ExperimentWorld(people=8_000, treatments=(NO_EFFECT,)), _by_habit),
}


def without_arms(runs: int, seed: int) -> Iterator[dict[str, Any]]:
    for name, (world, choose) in WITHOUT_ARMS.items():
        tallies = {method: Tally() for method in ("matched", "historical")}
        refused = dict.fromkeys(tallies, 0)
        naive = Tally()
        for run in range(runs):
            made = replace(world, seed=seed + run)
            people, orders = drawn(made, choose)
            targeted = people.arm == 1
            true = float(_effects(made, people)[targeted].mean())
            window, recent, earlier = (_period(made, orders, back) for back in range(3))
            for method, tally in tallies.items():
                judged = matching.judged(method, window, recent, earlier, targeted)
                tally.add(true, judged.compared.effect)
                refused[method] += judged.refused is not None
            sides = [Moments.of(window.outcome[side]) for side in (~targeted, targeted)]
            naive.add(true, lift.difference(*sides))
        for method, tally in tallies.items():
            # A method promises something only if its assumption holds; otherwise its placebo must refuse.
            holds = (method == "matched") == ("past sales" in name)
            line = tally.line(name, method) | {"refused": refused[method], "assumption_holds": holds}
            yield line if holds else line | {"expected": None, "ok": refused[method] > runs / 2}
        yield naive.line(name, "targeted less others, as they are") | {"expected": None, "ok": None}


def _period(world: ExperimentWorld, orders: Orders, back: int) -> matching.Period:
    """The window, or the period of as many days `back` windows before it."""
    days = world.window_days
    among = (orders.day >= -back * days) & (orders.day < (1 - back) * days)
    values = (_margins(world, orders), orders.net, (orders.refunded < 1).astype(float))
    return matching.Period(*(np.bincount(orders.person[among], v[among], world.people) for v in values))


def _effects(world: ExperimentWorld, people: People) -> Array:
    """The expected change of each person's margin by the coupon, given rate and level (as in `truth`)."""
    [treatment] = world.treatments
    lifts = np.array(treatment.lifts)[people.segment]
    paid = 1 - world.refund_share - world.half_refund_share / 2
    basket = world.basket_minor + people.level * world.basket_median_minor * np.exp(world.basket_sigma**2 / 2)
    more = people.rate * lifts * world.valid_days * (1 - world.pulled_share)
    buys = 1 - np.exp(-people.rate * (1 + lifts) * world.valid_days)
    used = world.use_share * treatment.face_value_minor * buys
    effects: Array = paid * (more * basket * (1 - world.cost_share) - used)
    return effects


if __name__ == "__main__":
    main()
