"""Questions about metrics: their values, and how a value is computed."""

from __future__ import annotations

import json

import polars as pl

from coupon_ledger.ledger.errors import NotThere, WrongQuestion
from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.metrics import statements
from coupon_ledger.questions.metrics.definitions import DIMENSIONS, METRICS, SOURCES, Metric
from coupon_ledger.questions.metrics.evaluation import Evaluation, MetricQuestion
from coupon_ledger.questions.metrics.money import Rates
from coupon_ledger.questions.metrics.money import goods_rates as goods
from coupon_ledger.questions.metrics.parameters import MetricExplained, Metrics, MetricSlice
from coupon_ledger.questions.metrics.periods import COMPARISONS, GRAINS, Buckets, Zone


def metrics(reading: Reading, parameters: Metrics) -> pl.DataFrame:
    """Values of metrics: one row per slice (combination of values of the dimensions in `by`), time bucket (of length
    `grain`) and currency.

    Metrics that are money have one row per `currency` (XXX for amounts without one). For other metrics, `currency` is
    null. `open`: whether late facts may still change the row. A bucket is open until the data's clock is later than its
    end by the grace. With `compare`, each metric has two more columns: `_before` (value in the earlier period) and
    `_change` (relative change), or `_target` and `_reached` (value / target).

    Raises `NotThere`, `WrongQuestion`.
    """
    rates = Rates.of(parameters.rates) if parameters.rates is not None else None
    return Evaluation(reading, checked(parameters, parameters.compare or None, rates)).frame()


def metric_explained(reading: Reading, parameters: MetricExplained) -> pl.DataFrame:
    """How metrics are computed: one row per metric and part. A part is a metric that is read from a source, such as a
    sum or a count; the formula of a metric combines parts.

    `formula` is the metric's formula. `sql` and `parameters` are the query that computes the part. `found` is the
    number of rows from which the part is computed. `rows` contains the first `limit` of them by time, as JSON.

    Raises `NotThere`, `WrongQuestion`.
    """
    question = checked(parameters)
    evaluation = Evaluation(reading, question)
    rows = [
        _explained(reading, evaluation, question, metric, METRICS[name], parameters.limit)
        for metric in question.metrics
        for name in metric.parts
    ]
    return pl.DataFrame(rows, schema_overrides={"found": pl.Int64})


def _explained(
    reading: Reading, evaluation: Evaluation, question: MetricQuestion, metric: Metric, part: Metric, limit: int
) -> dict[str, object]:
    source = SOURCES[str(part.source)]
    slice_ = evaluation.slice(question.since, question.until)
    whole = statements.aggregates(source, [part], slice_, money=metric.money)
    count, shown = (statements.rows(source, part, slice_, most) for most in (None, limit))
    rows = reading.frame(shown.sql, shown.parameters).to_dicts()
    return {
        "metric": metric.name,
        "formula": metric.sql,
        "part": part.name,
        "grain": part.grain,
        "sql": whole.sql,
        "parameters": json.dumps(plain(whole.parameters), ensure_ascii=False),
        "found": reading.frame(count.sql, count.parameters).item(),
        "rows": json.dumps(plain(rows), ensure_ascii=False),
    }


def checked(parameters: MetricSlice, compare: str | None = None, rates: Rates | None = None) -> MetricQuestion:
    """The question that the parameters describe, validated. Raises `NotThere`, `WrongQuestion`."""
    grain, since, until = parameters.grain or None, parameters.since, parameters.until
    if not parameters.names:
        raise WrongQuestion("metrics: none is named; see `coupon-ledger metrics list`")
    metrics = tuple(dict.fromkeys(metric_named(name) for name in parameters.names))
    if grain and grain not in GRAINS:
        raise WrongQuestion(f"grain {grain}: there is none of that name; there are {', '.join(GRAINS)}")
    question = MetricQuestion(
        metrics=metrics,
        by=tuple(dict.fromkeys(parameters.by)),
        where=parameters.where or {},
        since=since,
        until=until,
        zone=Zone(parameters.zone),
        buckets=Buckets(grain, Zone(parameters.zone)) if grain else None,
        compare=compare,
        rates=rates,
        goods_rates=goods(parameters.goods_rates),
    )
    for metric in question.metrics:
        _check(metric, question)
    if since and until and since >= until:
        raise WrongQuestion("metrics: the period ends before it begins; exchange --since and --until")
    if compare and compare not in COMPARISONS:
        raise WrongQuestion(f"comparison {compare}: there is none of that name; there are {', '.join(COMPARISONS)}")
    if compare == "target":
        _check_target(question)
    return question


def metric_named(name: str) -> Metric:
    """The metric with this name. Raises `NotThere`."""
    if name not in METRICS:
        raise NotThere(f"metric {name}: there is none of that name; see `coupon-ledger metrics list`")
    return METRICS[name]


def _check(metric: Metric, question: MetricQuestion) -> None:
    """Raises `WrongQuestion` if the question has dimensions or options that the metric does not allow."""
    allowed = (*metric.dimensions, *(["currency"] if metric.money else []))
    for name in dict.fromkeys((*question.by, *question.where)):
        if name not in (*DIMENSIONS, "currency"):
            raise WrongQuestion(f"dimension {name}: there is none of that name; there are {', '.join(DIMENSIONS)}")
        if name not in allowed:
            raise WrongQuestion(
                f"metric {metric.name}: has no {name}; ask it by {', '.join(allowed)}, or leave the metric out"
            )
    if "currency" in question.by:
        raise WrongQuestion("dimension currency: amounts are by currency without asking; leave it out")
    if metric.view == "now" and (question.buckets or question.since or question.until or question.shifts):
        raise WrongQuestion(
            f"metric {metric.name}: is what stands now, in no period; leave out --grain, --since, --until and"
            " --compare, or ask how it stood with --at"
        )
    if "minutes" in metric.formula and not question.buckets and not question.since:
        raise WrongQuestion(f"metric {metric.name}: of how long a time is not said; give --grain or --since")


def _check_target(question: MetricQuestion) -> None:
    other = sorted({*question.by, *question.where} - {"campaign", "currency"})
    if other or question.buckets:
        extra = ", ".join(other) or "--grain"
        raise WrongQuestion(f"comparison with targets: they are set for a campaign as a whole; leave out {extra}")
    if "campaign" not in (*question.by, *question.where):
        raise WrongQuestion(
            "comparison with targets: they are set for campaigns; ask --by campaign or --where campaign=…"
        )
