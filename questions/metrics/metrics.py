"""Questions about metrics: their values, and the rows behind a value."""

from __future__ import annotations

import json

import polars as pl

from coupon_ledger.ledger.errors import NotThere, WrongQuestion
from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.metrics import statements
from coupon_ledger.questions.metrics.definitions import DIMENSIONS, METRICS, SOURCES, Metric
from coupon_ledger.questions.metrics.evaluation import Asked, Evaluation
from coupon_ledger.questions.metrics.money import Rates
from coupon_ledger.questions.metrics.money import goods_rates as goods
from coupon_ledger.questions.metrics.parameters import MetricExplained, Metrics, MetricSlice
from coupon_ledger.questions.metrics.periods import COMPARISONS, GRAINS, Buckets, Zone


def metrics(reading: Reading, parameters: Metrics) -> pl.DataFrame:
    """Values of metrics by slice and bucket.

    Each currency has rows of its own (`currency`, XXX for amounts without one); metrics that are not money have none.
    `open`: late facts may still arrive, until the data's clock has passed the bucket's end by the grace of the rules.

    Raises `NotThere`, `WrongQuestion`.
    """
    rates = Rates.of(parameters.rates) if parameters.rates is not None else None
    return Evaluation(reading, _checked(parameters, parameters.compare or None, rates)).frame()


def metric_explained(reading: Reading, parameters: MetricExplained) -> pl.DataFrame:
    """How metrics are computed. Grain: one part of one metric: the metric's `formula`, the part's `sql` and
    `parameters`, the number of rows behind it (`found`), and the first `limit` of them by time (`rows`).

    Raises `NotThere`, `WrongQuestion`.
    """
    asked = _checked(parameters)
    evaluation = Evaluation(reading, asked)
    rows = [
        _explained(reading, evaluation, asked, metric, METRICS[name], parameters.limit)
        for metric in asked.metrics
        for name in metric.parts
    ]
    return pl.DataFrame(rows, schema_overrides={"found": pl.Int64})


def _explained(
    reading: Reading, evaluation: Evaluation, asked: Asked, metric: Metric, part: Metric, limit: int
) -> dict[str, object]:
    source = SOURCES[str(part.source)]
    slice_ = evaluation.slice(asked.since, asked.until)
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


def _checked(parameters: MetricSlice, compare: str | None = None, rates: Rates | None = None) -> Asked:
    """The question, checked against what the metrics allow. Raises `NotThere`, `WrongQuestion`."""
    grain, since, until = parameters.grain or None, parameters.since, parameters.until
    if grain and grain not in GRAINS:
        raise WrongQuestion(f"grain {grain}: there is none of that name; there are {', '.join(GRAINS)}")
    if not parameters.names:
        raise WrongQuestion("metrics: none is named; see `coupon-ledger metrics list`")
    asked = Asked(
        metrics=tuple(dict.fromkeys(metric_named(name) for name in parameters.names)),
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
    for metric in asked.metrics:
        _check(metric, asked)
    if since and until and since >= until:
        raise WrongQuestion("metrics: the period ends before it begins; exchange --since and --until")
    if compare and compare not in COMPARISONS:
        raise WrongQuestion(f"comparison {compare}: there is none of that name; there are {', '.join(COMPARISONS)}")
    if compare == "target":
        _check_target(asked)
    return asked


def metric_named(name: str) -> Metric:
    """Raises `NotThere`."""
    if name not in METRICS:
        raise NotThere(f"metric {name}: there is none of that name; see `coupon-ledger metrics list`")
    return METRICS[name]


def _check(metric: Metric, asked: Asked) -> None:
    """Raises `WrongQuestion` if the metric cannot be asked with these options."""
    allowed = (*metric.dimensions, *(["currency"] if metric.money else []))
    for name in dict.fromkeys((*asked.by, *asked.where)):
        if name not in (*DIMENSIONS, "currency"):
            raise WrongQuestion(f"dimension {name}: there is none of that name; there are {', '.join(DIMENSIONS)}")
        if name not in allowed:
            raise WrongQuestion(
                f"metric {metric.name}: has no {name}; ask it by {', '.join(allowed)}, or leave the metric out"
            )
    if "currency" in asked.by:
        raise WrongQuestion("dimension currency: amounts are by currency without asking; leave it out")
    if metric.view == "now" and (asked.buckets or asked.since or asked.until or asked.shifts):
        raise WrongQuestion(
            f"metric {metric.name}: is what stands now, in no period; leave out --grain, --since, --until and"
            " --compare, or ask how it stood with --at"
        )
    if "minutes" in metric.formula and not asked.buckets and not asked.since:
        raise WrongQuestion(f"metric {metric.name}: of how long a time is not said; give --grain or --since")


def _check_target(asked: Asked) -> None:
    other = sorted({*asked.by, *asked.where} - {"campaign", "currency"})
    if other or asked.buckets:
        extra = ", ".join(other) or "--grain"
        raise WrongQuestion(f"comparison with targets: they are set for a campaign as a whole; leave out {extra}")
    if "campaign" not in (*asked.by, *asked.where):
        raise WrongQuestion(
            "comparison with targets: they are set for campaigns; ask --by campaign or --where campaign=…"
        )
