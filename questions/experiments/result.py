"""Results of an experiment: effects with intervals, the return on cost, and a conclusion in words. All functions are
pure.

Amounts are in minor units of one currency; amounts per person have fractions. A value that cannot be computed is NaN in
`analysis.lift`, and null in the rows made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from coupon_ledger.analysis import lift
from coupon_ledger.analysis.lift import UNKNOWN, Array, Estimate, Group, Moments
from coupon_ledger.analysis.power import Design
from coupon_ledger.ledger.errors import TooFew
from coupon_ledger.ledger.labels import Label, experiment_metrics, fields
from coupon_ledger.ledger.words import Note
from coupon_ledger.questions.metrics import definitions

Row = dict[str, Any]

METRICS: Final = ("margin_minor", "net_minor", "orders", "buyers")
"""The metrics compared. The first that is known is the main metric."""
_MONEY: Final = ("margin_minor", "net_minor")


def name_of_metric(metric: str) -> Label:
    """The label of one of `METRICS`."""
    column = experiment_metrics()[metric]
    metrics = definitions.METRICS
    return metrics[column].label if column in metrics else fields()[column].label


_FIGURES: Final = {"effect": "value", "low": "low", "high": "high", "p": "p"}


@dataclass(frozen=True)
class Arm:
    """One arm. `people`: one row per person. `window`, `before`: their sales in the experiment's window and in the
    comparison time before it (from `Sales.of`), one row per person in the same order."""

    name: str
    people: pl.DataFrame
    window: pl.DataFrame
    before: pl.DataFrame

    @property
    def size(self) -> int:
        return self.people.height

    @property
    def face_value_minor(self) -> int | None:
        """The most frequent face value among the coupons of the arm's people; None if no coupon has one."""
        values = self.people["face_value_minor"].drop_nulls().mode().sort()
        return int(values[0]) if len(values) else None

    def group(self, metric: str) -> Group:
        return Group(_values(self.window, metric), _values(self.before, metric))


def _values(rows: pl.DataFrame, metric: str) -> Array:
    if metric == "buyers":
        return (rows["orders"] > 0).cast(pl.Float64).to_numpy()
    return rows[metric].cast(pl.Float64).to_numpy()


# --- effects


def effects(control: Arm, treatments: Sequence[Arm], metrics: Sequence[str], elapsed: float = 1.0) -> list[Row]:
    """The effects of the treatments: one row per treatment, metric and method. `metrics`: the first is the main metric.
    `elapsed`: the part of the window that is over.

    `p_corrected` is p corrected for several tests. For the main metric, Holm's method is used over the treatments; for
    all other metrics together, that of Benjamini and Hochberg. `simultaneous_…`: if there are several treatments, wider
    intervals of the main metric that are valid for all treatments at once.
    """
    main = metrics[0]
    tests = {metric: len(treatments) if metric == main else 1 for metric in metrics}
    rows = [row for arm in treatments for m in metrics for row in _methods(control, arm, m, elapsed, tests[m])]
    for method in dict.fromkeys(row["method"] for row in rows):
        _correct([r for r in rows if r["method"] == method and r["metric"] == main], "holm")
        _correct([r for r in rows if r["method"] == method and r["metric"] != main], "benjamini_hochberg")
    return rows


def _correct(rows: Sequence[Row], correction: str) -> None:
    """Add `p_corrected` to the rows: their p, corrected as one family of tests. `correction`: the name of a function of
    `lift`."""
    ps = [math.nan if row["p"] is None else row["p"] for row in rows]
    for row, p in zip(rows, getattr(lift, correction)(ps), strict=True):
        row |= {"p_corrected": _number(p), "correction": correction}


def _methods(control: Arm, treated: Arm, metric: str, elapsed: float, tests: int) -> Iterator[Row]:
    c, t = control.group(metric), treated.group(metric)
    if metric == "buyers":
        moments = [Moments.of_share(len(g.outcome), int(g.outcome.sum())) for g in (c, t)]
    else:
        moments = [Moments.of(g.outcome) for g in (c, t)]
    means = {
        "arm": treated.name,
        "metric": metric,
        "label": name_of_metric(metric).zh,
        "control_mean": moments[0].mean,
        "treated_mean": moments[1].mean,
    }

    def row(
        method: str, absolute: Estimate, relative: Estimate, note: str | None = None, together: Estimate | None = None
    ) -> Row:
        total = absolute.times(treated.size)
        wide = together or lift.simultaneous(absolute, tests)
        return {
            **means,
            "method": method,
            **{name: _number(getattr(absolute, of)) for name, of in _FIGURES.items()},
            **{f"relative_{n}": _number(getattr(relative, of)) for n, of in _FIGURES.items() if n != "p"},
            **{f"total_{n}": _number(getattr(total, of)) for n, of in _FIGURES.items() if n != "p"},
            **_together(wide, tests),
            **{f"total_{name}": value for name, value in _together(wide.times(treated.size), tests).items()},
            "note": note,
        }

    if not any(m.variance for m in moments):
        same = moments[1].mean - moments[0].mean
        yield row("plain", lift.estimate(same, 0.0), lift.estimate(math.nan, 0.0), "nobody differs: no interval")
        return
    plain, relative = lift.difference(*moments), lift.relative(*moments)
    yield row("plain", plain, relative)
    if metric != "buyers":
        yield from _adjusted(row, c, t)
    if metric in _MONEY:
        yield from _capped(row, c.outcome, t.outcome)
    # All looks have the same people; what grows is the part of the window that has passed.
    planned = control.size + treated.size
    always = [lift.always_valid(one, planned * elapsed, planned) for one in (plain, relative)]
    together = lift.always_valid(plain, planned * elapsed, planned, tests=tests)
    yield row("sequential", always[0], always[1], "holds however often one looks", together)


def _together(wide: Estimate, tests: int) -> Row:
    """The ends of the simultaneous interval (`wide`) by column name. They are null if there is a single test, since the
    interval then equals the plain one. `tests`: the number of treatments."""
    ends = {"simultaneous_low": _number(wide.low), "simultaneous_high": _number(wide.high)}
    return ends if tests > 1 else dict.fromkeys(ends)


def _adjusted(row: Any, control: Group, treated: Group) -> Iterator[Row]:
    try:
        adjusted = lift.cuped(control, treated)
    except TooFew:  # the time before determines the outcome exactly
        return
    kept = f"{1 - adjusted.kept:.0%} of the variance taken out by what people did before"
    yield row("cuped", adjusted.difference, adjusted.relative, kept)


def _capped(row: Any, control: Array, treated: Array) -> Iterator[Row]:
    try:
        capped = lift.winsorised(control, treated)
    except TooFew:  # after capping, the outcome has no variance
        return
    note = f"of the capped outcome: between {capped.low:,.0f} and {capped.high:,.0f} a person; another quantity"
    yield row("winsorised", capped.difference, capped.relative, note)


def by_part(control: Arm, treatments: Sequence[Arm], part: Mapping[str, str], metric: str) -> list[Row]:
    """The plain effect within each part of the people: one row per treatment and part, with p corrected over all rows.
    `part`: the name of the part by person, such as the person's value of a profile attribute."""
    rows = []
    names = sorted(set(part.values()))
    for arm in treatments:
        for name in names:
            sides = [_of_part(side, part, name, metric) for side in (control, arm)]
            if min(map(len, sides)) < 2 or not any(np.ptp(side) for side in sides):
                continue
            absolute = lift.difference(*map(Moments.of, sides))
            relative = lift.relative(*map(Moments.of, sides))
            sizes = {"control": len(sides[0]), "treated": len(sides[1])}
            figures = {name: _number(getattr(absolute, of)) for name, of in _FIGURES.items()}
            rows.append({"arm": arm.name, "part": name, **sizes, **figures, "relative_effect": _number(relative.value)})
    _correct(rows, "benjamini_hochberg")
    return rows


def _of_part(arm: Arm, part: Mapping[str, str], name: str, metric: str) -> Array:
    mine = np.array([part.get(person) == name for person in arm.people["person"]], dtype=bool)
    values: Array = arm.group(metric).outcome[mine]
    return values


# --- arms and money


def arm_row(arm: Arm, counts: Mapping[str, int], shares: Mapping[str, float]) -> Row:
    """The row of an arm: numbers of people and orders, and amounts summed over all people of the arm. `counts`,
    `shares`: by arm, as in `facts.Arms`."""
    window = arm.window
    return {
        "arm": arm.name,
        "assigned": counts[arm.name],
        "people": arm.size,
        "planned_share": shares.get(arm.name),
        "share": counts[arm.name] / sum(counts.values()),
        "got_coupon": arm.people.filter(pl.col("coupons") > 0).height,
        "face_value_minor": arm.face_value_minor,
        "buyers": window.filter(pl.col("orders") > 0).height,
        "orders": int(window["orders"].sum()),
        "coupon_orders": int(window["coupon_orders"].sum()),
        "net_minor": float(window["net_minor"].sum()),
        "margin_minor": _number(_sum(window["margin_minor"])),
        "discount_minor": float(window["discount_minor"].sum()),
    }


def _sum(values: pl.Series) -> float:
    return math.nan if values.null_count() else float(values.sum())


def returns(control: Arm, treatments: Sequence[Arm], booked: int) -> list[Row]:
    """The return on cost: one row per treatment. `roi` is incremental. `simple_roi`, which is not, is given for
    comparison. `booked`: the booked cost, which is divided among the treatments in proportion to their numbers of
    people."""
    whole = sum(arm.size for arm in treatments)
    rows = [_return(control, arm, booked * arm.size / whole, len(treatments)) for arm in treatments]
    _correct(rows, "holm")
    return rows


def _return(control: Arm, arm: Arm, booked: float, tests: int) -> Row:
    c, t = control.group("margin_minor"), arm.group("margin_minor")
    discount = arm.window["discount_minor"].cast(pl.Float64).to_numpy()
    cost = float(discount.sum()) + booked
    sides = Moments.of(c.outcome), Moments.of(t.outcome)
    same = not any(side.variance for side in sides)
    gain = replace(UNKNOWN, value=sides[1].mean - sides[0].mean) if same else lift.difference(*sides)
    gain = gain.times(arm.size)
    known = booked >= 0 and not same
    plain = lift.return_on_cost(c.outcome, t.outcome, discount, booked) if known else UNKNOWN
    cuped = _cuped_return(c, t, discount, booked) if known else UNKNOWN
    claimed = float(arm.window["coupon_margin_minor"].sum())
    return {
        "arm": arm.name,
        "incremental_margin_minor": gain.value,
        "low_minor": _number(gain.low),
        "high_minor": _number(gain.high),
        "discount_minor": float(discount.sum()),
        "booked_minor": booked,
        "cost_minor": cost,
        "roi": _number(plain.value),
        "roi_low": _number(plain.low),
        "roi_high": _number(plain.high),
        **{f"roi_{name}": value for name, value in _together(lift.simultaneous(plain, tests), tests).items()},
        "p": _number(plain.p),
        "roi_cuped": _number(cuped.value),
        "roi_cuped_low": _number(cuped.low),
        "roi_cuped_high": _number(cuped.high),
        "simple_roi": (claimed - booked) / cost if cost > 0 else None,
        "coupon_margin_minor": claimed,
    }


def _cuped_return(control: Group, treated: Group, discount: Array, booked: float) -> Estimate:
    try:
        return lift.cuped_return_on_cost(control, treated, discount, booked)
    except TooFew:  # the time before determines the outcome exactly
        return UNKNOWN


def response(control: Arm, treatments: Sequence[Arm], metric: str) -> Row | None:
    """How the outcome per person depends on the face value of the coupons: a point per arm, and the fitted slope. None
    if the face value of a treatment is unknown, if there are fewer than two treatments, or if an arm has no
    variance."""
    doses = [(float(arm.face_value_minor), arm) for arm in treatments if arm.face_value_minor]
    if len(doses) < 2 or len(doses) < len(treatments):
        return None
    moments = [(dose, Moments.of(arm.group(metric).outcome)) for dose, arm in [(0.0, control), *doses]]
    if any(m.variance == 0 for _, m in moments):
        return None
    curve = lift.response(moments)
    points = [{"face_value_minor": dose, "mean": m.mean, "error": math.sqrt(m.error2)} for dose, m in moments]
    return {
        "metric": metric,
        "points": sorted(points, key=lambda point: point["face_value_minor"]),
        "slope": curve.slope.value,
        "slope_low": curve.slope.low,
        "slope_high": curve.slope.high,
        "slope_p": _number(curve.slope.p),
        "unfit_p": _number(curve.unfit),
        "bend": _number(curve.bend.value),
        "bend_p": _number(curve.bend.p),
    }


# --- checks


def balance(control: Arm, treatments: Sequence[Arm], metric: str) -> list[Row]:
    """Whether the arms already differed before the start: one row per treatment, with the p of its difference from the
    control, also corrected by Holm's method. Arms that were drawn at random should not differ."""
    rows: list[Row] = []
    for arm in treatments:
        sides = [side.group(metric).before for side in (control, arm)]
        varied = any(np.ptp(side) for side in sides)
        p = lift.difference(*map(Moments.of, sides)).p if varied else math.nan
        rows.append({"arm": arm.name, "p": _number(p)})
    _correct(rows, "holm")
    return rows


def smallest_lift(control: Arm, arm: Arm, metric: str, treatments: int) -> float | None:
    """The smallest effect per person that can be detected with a power of 80%, given the standard deviation in the
    control. If there are several treatments, alpha is divided by their number (`treatments`). None if the control has
    no variance."""
    values = control.group(metric).outcome
    design = Design(share=control.size / (control.size + arm.size), alpha=lift.ALPHA / treatments)
    smallest = design.smallest_lift(float(np.std(values, ddof=1)), control.size + arm.size)
    return smallest or None


# --- in words


def sentence(arm: str, effect: Row, cuped: Row | None, money: Row | None, currency: str | None) -> Note:
    """The conclusion for one treatment in words: the plain effect, the effect by CUPED, and the return (`money`). If
    there are several treatments, the corrected interval and p are given, and they decide the wording."""
    if effect["low"] is None or effect["p"] is None:
        return Note(_SAME, {"what": effect["metric"], "arm": arm})
    shown = _Interval.of(effect, "total_")
    values = {
        "arm": arm,
        "what": effect["metric"],
        "total": (abs(effect["total_effect"]), currency),
        "signed": (effect["total_effect"], currency),
        "more": Note("more" if effect["effect"] > 0 else "less", {}),
        "span": shown.span(currency),
        "cuped": _cuped_in_words(cuped, currency),
        "return_": _return_in_words(money, currency),
    }
    return Note(_SIZED if shown.sized else _UNSIZED if shown.significant else _OPEN, values)


_SAME: Final = "Incremental {what:label}, {arm:word}: all people bought the same; nothing can be said."
_SIZED: Final = (
    "Incremental {what:label}: {arm:word} brought {total:money} {more} than without it ({span}).{cuped}{return_}"
)
_UNSIZED: Final = (
    "Incremental {what:label}: {arm:word} brought {total:money} {more} than without it: that it did is sure, how"
    " much is"
    " not ({span}).{cuped}{return_}"
)
_OPEN: Final = (
    "Incremental {what:label}: {arm:word} cannot be told from no effect: {signed:money} ({span}).{cuped}{return_}"
)


@dataclass(frozen=True)
class _Interval:
    """The interval and p on which a conclusion is based. `several`: whether they are corrected for several treatments.
    `significant`: whether p is below alpha. `sized`: whether the result is significant and the interval excludes zero.
    A significant result can have an interval that includes zero (see `lift.simultaneous`)."""

    low: float
    high: float
    p: float | None
    several: bool

    @classmethod
    def of(cls, row: Row, prefix: str) -> _Interval:
        several = row[f"{prefix}simultaneous_low"] is not None
        low, high = (row[f"{prefix}{'simultaneous_' if several else ''}{end}"] for end in ("low", "high"))
        return cls(low, high, row["p_corrected"] if several else row["p"], several)

    @property
    def sized(self) -> bool:
        return self.significant and not self.low <= 0 <= self.high

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < lift.ALPHA

    def span(self, currency: str | None) -> Note:
        """The interval and p in words. The interval is an amount in `currency`."""
        ends = {"low": (self.low, currency), "high": (self.high, currency), "p": self.p}
        return Note(_SEVERAL if self.several else _ONE, ends)


_ONE: Final = "95% interval {low:money} to {high:money}, p {p:p}"
_SEVERAL: Final = (
    "95% simultaneous interval {low:money} to {high:money}, p {p:p}, both corrected for several treatments"
)
_CUPED: Final = (
    " With what people bought before taken out (CUPED): {total:money} ({low:money} to {high:money}, p {p:p})."
)
_CUPED_SEVERAL: Final = (
    " With what people bought before taken out (CUPED): {total:money} ({low:money} to {high:money}, p {p:p},"
    " corrected)."
)


def _cuped_in_words(row: Row | None, currency: str | None) -> Note | str:
    if row is None or row["p"] is None:
        return ""
    shown = _Interval.of(row, "total_")
    amounts = {"total": row["total_effect"], "low": shown.low, "high": shown.high}
    values = {name: (minor, currency) for name, minor in amounts.items()} | {"p": shown.p}
    return Note(_CUPED_SEVERAL if shown.several else _CUPED, values)


_RETURN: Final = (
    " Incremental ROI {roi:factor} on {cost:money} of cost (95% interval {low:factor} to {high:factor}): {earned};"
    " simple"
    " ROI, which takes every sale with a coupon for its own, would say {simple:factor}."
)
_EARNED: Final = {
    (True, True): "it earned more than it cost",
    (True, False): "it earned more than it cost, how much is not sure",
    (False, True): "it lost money",
    (False, False): "it lost money, how much is not sure",
}


def _return_in_words(money: Row | None, currency: str | None) -> Note:
    if money is None or money["roi"] is None:
        return Note(" Incremental ROI cannot be told.", {})
    shown = _Interval.of(money, "roi_")
    open_ = "whether it earned or lost money is open"
    earned = _EARNED[money["roi"] > 0, shown.sized] if shown.significant else open_
    return Note(
        _RETURN,
        {
            "roi": money["roi"],
            "cost": (money["cost_minor"], currency),
            "low": shown.low,
            "high": shown.high,
            "earned": Note(earned, {}),
            "simple": money["simple_roi"],
        },
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) or math.isinf(value) else float(value)
