"""Statistics of experiments against published figures, other libraries, and simulations with a known truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.coverage import _period, outcomes
from coupon_ledger.analysis import lift, matching
from coupon_ledger.analysis.draw import draw
from coupon_ledger.analysis.lift import Estimate, Group, Moments
from coupon_ledger.analysis.power import Design
from coupon_ledger.cli.sources.experiment_world import (
    CONTROL,
    OUTSIDE,
    ExperimentWorld,
    People,
    Treatment,
    drawn,
    shares,
    true_return,
    truth,
)
from coupon_ledger.ledger.errors import TooFew

# ── Published figures ────────────────────────────────────────────────────────────────────────────────────────


def told(of: Estimate) -> tuple[float, ...]:
    return tuple(round(x, 5) for x in (of.value, of.low, of.high, of.p))


SALES = (Moments.of_sums(3407, 1396.87, 52377.9767), Moments.of_sums(3461, 2422.7, 134698.29))


@pytest.mark.long
def test_difference_of_means() -> None:
    """GrowthBook's published test figures (METRICS section 2)."""
    assert told(lift.difference(*SALES)) == (0.29, 0.04538, 0.53462, 0.02016)
    assert told(lift.relative(*SALES)) == (0.70732, -0.03526, 1.44989, 0.06191)


def test_proportions() -> None:
    found = lift.relative(Moments.of_share(28, 14), Moments.of_share(30, 16))
    assert told(found)[1:] == (-0.47767, 0.61101, 0.80707)


def test_sequential() -> None:
    plain = lift.relative(Moments.of_share(3000, 1396), Moments.of_share(3461, 2422))
    assert told(lift.always_valid(plain, 6461, planned=5000))[:3] == (0.50386, 0.40098, 0.60675)


@pytest.mark.parametrize(("sizes", "p"), [((4600, 5400), 1.24e-15), ((505, 495), 0.7518)])
def test_sample_ratio(sizes: tuple[int, int], p: float) -> None:
    counts = dict(zip(("control", "a"), sizes, strict=True))
    assert lift.sample_ratio(counts, {"control": 1, "a": 1}) == pytest.approx(p, rel=1e-2)


@pytest.mark.long
def test_looking_all_the_time_fools_the_sequential_interval_seldom() -> None:
    """Tuned anew at every look it would be left by one experiment of twelve without any effect; it promises twenty."""
    looks, runs = 5_000, 1_000
    known = np.arange(1, looks + 1) / looks
    bound = np.array([lift.always_valid(Estimate(0, 0, 0, 1, 1), part, 1).high for part in known])
    random = np.random.default_rng(7)
    left = 0
    for _ in range(runs):
        path = np.cumsum(random.normal(size=looks))
        left += bool((np.abs(path) > bound * np.sqrt(np.arange(1, looks + 1))).any())
    assert left < 0.04 * runs
    assert bound[0] > bound[looks // 2] > bound[-1]


def test_a_lift_from_a_negative_base_is_one() -> None:
    """Else a loss that was halved would be told as a decline."""
    found = lift.relative(Moments(100, -10.0, 4.0), Moments(100, -5.0, 4.0))
    assert found.value == 0.5 and found.low < 0.5 < found.high


# ── Against other libraries ──────────────────────────────────────────────────────────────────────────────────


# What they need is imported where it is used: it takes longer than all these tests.


def test_welch_is_scipys() -> None:
    from scipy import stats

    random = np.random.default_rng(1)
    a, b = random.exponential(2, 40), random.exponential(3, 70)
    theirs = stats.ttest_ind(b, a, equal_var=False)
    mine = lift.difference(Moments.of(a), Moments.of(b))
    interval = theirs.confidence_interval()
    assert (mine.p, mine.low, mine.high) == pytest.approx((theirs.pvalue, interval.low, interval.high))


@pytest.mark.parametrize(("name", "theirs"), [("holm", "holm"), ("benjamini_hochberg", "fdr_bh")])
@pytest.mark.slow
def test_corrections_are_statsmodels(name: str, theirs: str) -> None:
    from statsmodels.stats.multitest import multipletests

    random = np.random.default_rng(2)
    for n in (1, 2, 7):
        ps = list(random.uniform(0, 0.2, n))
        assert getattr(lift, name)(ps) == pytest.approx(multipletests(ps, method=theirs)[1])
    assert math.isnan(getattr(lift, name)([0.01, math.nan])[1])
    assert getattr(lift, name)([0.01, math.nan])[0] == 0.01


def test_a_simultaneous_interval_is_a_plain_one_of_a_higher_level() -> None:
    plain = lift.difference(*SALES)
    wide = lift.simultaneous(plain, 3)
    theirs = lift.difference(*SALES, alpha=lift.ALPHA / 3)
    assert (wide.low, wide.high, wide.p) == (theirs.low, theirs.high, plain.p)
    assert lift.simultaneous(plain, 1) == plain
    always = [lift.always_valid(plain, 100, 100, tests=n) for n in (1, 3)]
    assert always[1].low < always[0].low < always[0].high < always[1].high and always[0].p == always[1].p
    at_the_edge = lift.always_valid(replace(plain, value=always[1].high - plain.value), 100, 100)
    assert at_the_edge.p == pytest.approx(lift.ALPHA / 3), "interval and p are of one sequence"


@pytest.mark.slow
def test_simultaneous_intervals_hold_all_truths_at_once() -> None:
    """Else of four face values one is told wrongly in one experiment of seven. Of 600 runs 95% hold, but for two
    standard errors; the plain ones hold together in far fewer."""
    random, runs, tests = np.random.default_rng(3), 600, 4
    held = {1: 0, tests: 0}
    for _ in range(runs):
        control, *treated = (Moments.of(values) for values in random.normal(size=(tests + 1, 40)))
        plain = [lift.difference(control, arm) for arm in treated]
        for family in held:
            held[family] += all((wide := lift.simultaneous(one, family)).low <= 0 <= wide.high for one in plain)
    assert held[tests] > (0.95 - 2 * math.sqrt(0.05 * 0.95 / runs)) * runs > held[1]


@pytest.mark.slow
def test_sample_sizes_are_statsmodels() -> None:
    """To a thousandth: theirs are Student's, ours normal."""
    from statsmodels.stats.power import TTestIndPower

    for share in (0.5, 0.2):
        needed = Design(share).people_needed(sd=10, lift=0.5)
        theirs = TTestIndPower().solve_power(effect_size=0.05, alpha=0.05, power=0.8, ratio=(1 - share) / share)
        assert needed == pytest.approx(theirs / share, rel=1e-3)
        assert Design(share).smallest_lift(10, needed) == pytest.approx(0.5, rel=1e-3)
    assert Design().people_needed(10, 0.5, correlation=0.6) == pytest.approx(
        0.64 * Design().people_needed(10, 0.5), 1e-3
    )
    assert Design(treatments=3).smallest_lift(10, 1000) > Design().smallest_lift(10, 1000)


def test_a_line_through_doses_is_found() -> None:
    arms = [(dose, Moments(1000, 5 + 0.02 * dose, 4.0 + dose)) for dose in (0.0, 500.0, 1000.0, 2000.0)]
    found = lift.response(arms)
    assert found.slope.value == pytest.approx(0.02) and found.slope.low < 0.02 < found.slope.high
    assert found.unfit == pytest.approx(1) and found.bend.value == pytest.approx(0, abs=1e-9)
    bent = [(dose, replace(m, mean=5 + 1e-4 * dose * (2000 - dose))) for dose, m in arms]
    assert lift.response(bent).unfit < 1e-6 and lift.response(bent).bend.high < 0
    with pytest.raises(TooFew):
        lift.response(arms[:1])


# ── What cannot be told ──────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_told_is_not_told() -> None:
    same = Moments(10, 0.0, 0.0)
    with pytest.raises(TooFew):
        lift.difference(same, same)
    with pytest.raises(TooFew):
        Moments.of(np.array([1.0]))
    assert math.isnan(lift.relative(Moments(10, 0.0, 1.0), Moments(10, 1.0, 1.0)).value)
    nothing = np.zeros(10)
    assert math.isnan(lift.return_on_cost(np.arange(10.0), np.arange(10.0), nothing, 0.0).value)


def test_groups_and_shares_that_tell_nothing() -> None:
    """Else a division by zero, or a warning of numpy's, stands where a reason should."""
    with pytest.raises(TooFew):
        Moments.of_sums(1, 2.0, 4.0)
    for n in (0, 1):
        with pytest.raises(TooFew):
            Moments.of_share(n, n)
    assert Moments.of_sums(3, 0.3, 0.03).variance >= 0, "rounding must not make it negative"
    assert math.isnan(lift.sample_ratio({}, {"control": 1, "a": 1}))
    assert lift.sample_ratio({"control": 9, "a": 1}, {"control": 1, "a": 0}) == 0
    assert lift.sample_ratio({"control": 9}, {"control": 1, "a": 1}) < 0.01, "nobody came into an arm"
    with pytest.raises(TooFew, match="response curve"):
        lift.response([(0.0, Moments(5, 1.0, 0.0)), (500.0, Moments(5, 1.0, 1.0))])


def test_what_was_before_takes_noise_out_of_a_return() -> None:
    random = np.random.default_rng(4)
    habit = random.gamma(2, 500, 4_000)
    control, treated = (Group(part + random.normal(0, 50, 2_000), part) for part in (habit[:2_000], habit[2_000:]))
    discount = random.choice([0.0, 100.0], 2_000)
    plain = lift.return_on_cost(control.outcome, treated.outcome, discount, 1000.0)
    cuped = lift.cuped_return_on_cost(control, treated, discount, 1000.0)
    assert cuped.low < (0 * 2_000 - 1000) / (discount.sum() + 1000) < cuped.high
    assert cuped.error < plain.error / 5
    c, t = (Group(g.outcome, np.zeros(2_000)) for g in (control, treated))
    assert lift.cuped_return_on_cost(c, t, discount, 1000.0) == plain


def test_cuped_without_a_past_is_the_plain_estimate() -> None:
    random = np.random.default_rng(3)
    groups = [Group(random.normal(size=50), np.zeros(50)) for _ in range(2)]
    plain = lift.difference(*(Moments.of(g.outcome) for g in groups))
    assert lift.cuped(*groups).difference == plain and lift.cuped(*groups).kept == 1


def test_redemptions_are_not_what_was_caused() -> None:
    """Of 1,000 redemptions 700 would have been bought anyway: 300 orders are incremental."""
    control, treated = np.zeros(2000), np.zeros(2000)
    control[:700], treated[:1000] = 1, 1
    found = lift.difference(Moments.of(control), Moments.of(treated)).times(2000)
    assert found.value == pytest.approx(300)


# ── Drawing arms ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_draw_is_the_same_again_and_keeps_its_shares() -> None:
    ids = [f"u-{n}" for n in range(3000)]
    strata = ["vip" if n % 10 == 0 else "other" for n in range(3000)]
    parts = {"control": 0.2, "a": 0.4, "b": 0.4}
    arms = draw(ids, strata, parts, "k-1")
    again = draw(ids[::-1], strata[::-1], parts, "k-1")[::-1]
    assert arms == again
    for stratum, size in (("vip", 300), ("other", 2700)):
        mine = [arm for arm, s in zip(arms, strata, strict=True) if s == stratum]
        assert all(abs(mine.count(arm) - share * size) <= 1 for arm, share in parts.items())
    other = draw(ids, strata, parts, "k-2")
    both = sum(a == b == "control" for a, b in zip(arms, other, strict=True))
    assert both == pytest.approx(3000 * 0.04, abs=45), "another salt is an independent draw"


def test_everyone_has_the_arms_share_as_chance() -> None:
    """Strata of one person too: else small strata would have no control."""
    ids = [f"u-{n}" for n in range(4000)]
    arms = draw(ids, ids, {"control": 0.1, "a": 0.9}, "k")
    assert arms.count("control") == pytest.approx(400, abs=60)


# ── Against a known truth (200 runs each: benchmarks/coverage.py) ────────────────────────────────────────────


@pytest.mark.long
def test_the_worlds_truth_is_what_its_people_do() -> None:
    """Else the benchmark would judge estimators by a wrong ruler."""
    world = ExperimentWorld(seed=5, people=60_000, leak_share=0.05)
    people, orders = drawn(world)
    found = outcomes(world, orders)
    for arm, expected in enumerate(truth(world).values()):
        mine = people.arm == arm
        for values, true in (
            (found.margin, expected.margin_minor),
            (found.net, expected.net_minor),
            (found.orders, expected.orders),
            (found.discount, expected.discount_minor),
            ((found.orders > 0).astype(float), expected.buyer),
        ):
            error = values[mine].std() / math.sqrt(mine.sum())
            assert abs(values[mine].mean() - true) < 4 * error or true == values[mine].mean() == 0


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    """Else marketing would be sure of what is not so. 100 runs: 95 ± 3 standard errors."""
    runs, world = 100, ExperimentWorld(people=1_500)
    arms = truth(world)
    gain = arms["coupon"].margin_minor - arms[CONTROL].margin_minor
    held = dict.fromkeys(("plain", "relative", "cuped", "roi"), 0)
    for seed in range(runs):
        made = replace(world, seed=seed)
        people, orders = drawn(made)
        found = outcomes(made, orders)
        c, t = people.arm == 0, people.arm == 1
        sides = [Moments.of(found.margin[g]) for g in (c, t)]
        sized = replace(made, people=int(t.sum()) / shares(made)["coupon"])  # type: ignore[arg-type]
        estimates = {
            "plain": (lift.difference(*sides), gain),
            "relative": (lift.relative(*sides), gain / arms[CONTROL].margin_minor),
            "cuped": (lift.cuped(*(Group(found.margin[g], found.margin_before[g]) for g in (c, t))).difference, gain),
            "roi": (
                lift.return_on_cost(found.margin[c], found.margin[t], found.discount[t], made.booked_minor),
                true_return(sized, "coupon"),
            ),
        }
        for name, (estimate, true) in estimates.items():
            held[name] += estimate.low <= true <= estimate.high
    assert all(88 <= count <= 100 for count in held.values()), held


def test_a_placebo_refuses_what_is_not_comparable() -> None:
    """Those who buy often by habit were targeted, which is on no record: matching must not answer; the history may."""

    def by_habit(people: People, _paid: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return np.where(random.random(len(people.rate)) < 1 / (1 + np.exp(2 - 25 * people.rate)), 1, OUTSIDE)

    world = ExperimentWorld(seed=4, people=10_000, treatments=(Treatment("coupon", 0, (0.0, 0.0, 0.0)),))
    people, orders = drawn(world, by_habit)
    window, recent, earlier = (_period(world, orders, back) for back in range(3))
    targeted = people.arm == 1
    refused = matching.judged("matched", window, recent, earlier, targeted)
    assert refused.refused is not None and "placebo failed" in str(refused.refused)
    honest = matching.judged("historical", window, recent, earlier, targeted)
    assert honest.refused is None and honest.compared.effect.low < 0 < honest.compared.effect.high


def test_a_placebo_without_any_spread_is_not_passed() -> None:
    """Everybody targeted spent one yuan more, before the campaign too: there is no p, and no comparison either."""
    targeted = np.arange(200) < 100
    before, spent = targeted.astype(float), np.ones(200)
    period = matching.Period(before + np.arange(200) % 7, spent, spent)
    refused = matching.judged("matched", period, period, matching.Period(before, spent, spent), targeted).refused
    assert refused is not None and "placebo failed" in str(refused)


def test_too_few_alike_is_refused() -> None:
    period = matching.Period(*(np.arange(60.0) for _ in range(3)))
    with pytest.raises(TooFew):
        matching.judged("matched", period, period, period, np.arange(60) < 55)
