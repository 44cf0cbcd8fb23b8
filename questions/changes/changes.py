"""The question why a number changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Final

import polars as pl

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.progress import Progress
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.questions import looking_back
from coupon_ledger.questions.asking import positions_of
from coupon_ledger.questions.changes import answers, behind, periods
from coupon_ledger.questions.changes.causes import CAUSES, REST, SEVERAL, spans_of
from coupon_ledger.questions.changes.contributions import Line, contribute, unexplained
from coupon_ledger.questions.changes.formula import Formula
from coupon_ledger.questions.changes.knowledge import Differences, Sides, differences
from coupon_ledger.questions.changes.measured import Measured
from coupon_ledger.questions.changes.measures import Place, of
from coupon_ledger.questions.changes.parameters import ChangeExplained
from coupon_ledger.questions.metrics.evaluation import Evaluation
from coupon_ledger.questions.metrics.metrics import checked
from coupon_ledger.questions.metrics.money import goods_rates
from coupon_ledger.questions.metrics.parameters import MetricSlice
from coupon_ledger.questions.parameters import Parameters

_BEFORE: Final = ("known_at_before", "at_before", "positions_before")
_PERIODS: Final = ("compare", "before_since", "before_until")


def change_explained(reading: Reading, parameters: ChangeExplained, progress: Progress) -> pl.DataFrame:
    """Why a metric changed: one row per line and currency. The lines are `before`, `after`, `change`, and then one for
    each cause. In the column of the metric, the causes add up to `change` exactly.

    With `known_at_before`, `at_before` or `positions_before`, the two numbers are those of one period in two states of
    knowledge. The causes are groups of records that only one of the states has, applied one after another. With
    `compare` or `before_since`, the two numbers are those of two periods in one state, and the causes are volume, mix
    and rates.

    `exact`: the value of the metric's column as a fraction. `share`: the contribution over the change. `events`: the
    number of records behind a cause. If the metric is a formula, there is a column for each of its parts.

    With `explain`, one row for each coupon, order or campaign behind a cause, the largest contributions first; `found`
    is how many there are. Between two periods, `explain` is the metric of a line, and the rows are what counts for it
    in one of the periods.

    Raises `NotThere`, `WrongQuestion`.
    """
    measured = _measured(reading, parameters)
    two_periods = any(getattr(parameters, name) is not None for name in _PERIODS)
    if two_periods == any(getattr(parameters, name) is not None for name in _BEFORE):
        raise WrongQuestion(
            "change: between what is not said; give an earlier state (--known-at-before, --at-before or"
            " --position-before) or an earlier period (--compare, or --before-since and --before-until), not both"
        )
    if two_periods:
        return _of_periods(reading, measured, parameters)
    return _of_states(reading, measured, parameters, progress)


def _measured(reading: Reading, parameters: ChangeExplained) -> Measured:
    """The validated question. Raises `NotThere`, `WrongQuestion`."""
    names = ("where", "since", "until", "zone", "goods_rates")
    slice_ = MetricSlice(
        names=(parameters.metric,),
        by=(parameters.by,) if parameters.by else (),
        **{name: getattr(parameters, name) for name in names},
    )
    question = checked(slice_)
    metric = question.metrics[0]
    if parameters.by and "_p" in metric.name and metric.unit == "seconds":
        raise WrongQuestion(f"metric {metric.name}: a quantile is no sum over slices; leave out --by")
    rates = parameters.goods_rates_before
    return Measured(
        metric,
        replace(Evaluation(reading, question).slice(parameters.since, parameters.until), by=()),
        parameters.by or None,
        goods_rates(parameters.goods_rates if rates is None else rates),
    )


# ── Two states of knowledge ──────────────────────────────────────────────────────────────────────────────────


def _of_states(reading: Reading, measured: Measured, parameters: ChangeExplained, progress: Progress) -> pl.DataFrame:
    p = parameters
    before = Cut(p.at_before, p.known_at_before, positions_of(reading, p.positions_before))
    after = Cut(p.at_after, p.known_at_after, positions_of(reading, p.positions_after))
    _check_cause(p.explain, CAUSES)
    found = differences(reading, measured, Sides(before, after, spans_of(p.replayed)), progress)
    formula = Formula.of_metric(measured.metric)
    lines_of = _lines(measured, formula, found)
    if p.explain is not None:
        return behind.frame(measured, formula, found, p.explain, p.limit)
    rows = [
        row
        for currency, lines in lines_of.items()
        for row in answers.rows_of_lines(measured, formula, currency, *_sides(found, measured, currency), lines)
    ]
    return answers.frame(measured, rows, steps=False)


def _sides(
    found: Differences, measured: Measured, currency: str | None
) -> tuple[dict[str, Fraction | None], dict[str, Fraction | None]]:
    place = Place(currency)
    none = of({}, measured.parts)
    return dict(found.before.get(place, none)), dict(found.after.get(place, none))


def _lines(measured: Measured, formula: Formula, found: Differences) -> dict[str | None, list[Line]]:
    """The causes by currency, with their contributions."""
    lines: dict[str | None, list[Line]] = {place.currency: [] for place in (*found.before, *found.after)}
    for cause in CAUSES:
        for place, parts in sorted(found.sums.get(cause, {}).items(), key=lambda item: str(item[0].slice)):
            moved = {name: value for name, value in parts.items() if value is not None}
            events = behind.events_of(found, cause, place)
            lines.setdefault(place.currency, []).append(Line(cause, place.slice, moved, events=events))
    for currency, mine in (lines or {None: []}).items():
        sides = _sides(found, measured, currency)
        if rest := unexplained(*sides, mine):
            mine.append(Line(SEVERAL if measured.by else REST, parts=rest))
        contribute(formula, *sides, mine)
    return lines or {None: []}


def _check_cause(cause: str | None, known: Iterable[str]) -> None:
    if cause is not None and cause not in known:
        raise WrongQuestion(f"cause {cause}: there is none of that name; there are {', '.join(known)}")


# ── Two periods ──────────────────────────────────────────────────────────────────────────────────────────────


def _of_periods(reading: Reading, measured: Measured, parameters: ChangeExplained) -> pl.DataFrame:
    p = parameters
    cut = Cut(p.at_after, p.known_at_after, positions_of(reading, p.positions_after))
    if not cut:
        return periods.frame(reading, measured, p)
    past = Past(reading, cut)
    try:
        looking_back.metrics(past, Parameters())
        return periods.frame(reading, measured, p)
    finally:
        past.leave()
