"""Customer analysis: RFM scores (recency, frequency, money) and segments, tiers, clusters, and drivers of an outcome.
Pure functions of frames with one row per customer."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.ledger.words import note

Floats = npt.NDArray[np.float64]

# Rows: recency score, 5 (most recent) first. Columns: mean of the frequency and money scores, 1 first. This is the grid
# that RFM tools have in common; the scores are from Hughes, "Strategic Database Marketing", 1994.
_GRID: Final = (
    "new potential potential champion champion",
    "new potential potential champion champion",
    "promising attention attention loyal loyal",
    "sleeping sleeping at_risk at_risk at_risk",
    "lost hibernating at_risk cant_lose cant_lose",
)
SEGMENTS: Final = tuple(
    "champion loyal potential new promising attention sleeping at_risk cant_lose hibernating lost".split()
)
"""All segments, the best first."""
FEWEST_PER_FEATURE: Final = 10
"""Fewest customers with the rarer outcome per feature that a regression needs (Peduzzi et al., Journal of Clinical
Epidemiology 49, 1996)."""
_ALIKE: Final = 1e-9
"""Values with a spread below this are equal up to rounding."""
_CERTAIN: Final = 20.0
"""With larger log odds per standard deviation, a feature determines the outcome."""
_SAMPLE: Final = 4_000
_SEED: Final = 20_261_111


class TooLittleData(ValueError):
    """Raised if there are too few data to answer the question. The message says why."""


def quintile(values: pl.Series, *, low_is_best: bool = False) -> pl.Series:
    """A score from 1 to 5 for each customer, by the share of customers with a worse value. Higher values are better,
    unless `low_is_best`. Customers with equal values have the same score. If their ranks span several scores, this is
    the lowest of them, or the highest if `low_is_best`."""
    if low_is_best:
        return -((-values).rank("max").cast(pl.Int64) * -5 // max(len(values), 1))
    return (values.rank("min").cast(pl.Int64) - 1) * 5 // max(len(values), 1) + 1


def scored(customers: pl.DataFrame) -> pl.DataFrame:
    """The customers with four more columns: the scores `recency`, `frequency` and `money` (1 to 5, 5 is best), and the
    name of the `segment`.

    `customers`: must have the columns `recency_days`, `orders` and `net_sales_minor`. Every customer must have an
    order.
    """
    scores = customers.with_columns(
        recency=quintile(customers["recency_days"], low_is_best=True),
        frequency=quintile(customers["orders"]),
        money=quintile(customers["net_sales_minor"]),
    )
    grid = pl.Series([name for row in _GRID for name in row.split()])
    both = (scores["frequency"] + scores["money"] + 1) // 2
    return scores.with_columns(segment=grid.gather((5 - scores["recency"]) * 5 + both - 1).alias("segment"))


def tiered(customers: pl.DataFrame, *, top: float = 0.2, active_days: int = 30, dependent: float = 0.6) -> pl.DataFrame:
    """The customers with three more columns of booleans. `high_value`: is in the `top` share by net sales. `active`:
    ordered in the last `active_days` days. `bargain_hunter`: has at least three orders, and used a coupon for at least
    the share `dependent` of them. More than one can be true for a customer."""
    least = customers["net_sales_minor"].quantile(1 - top, "higher") if customers.height else 0
    return customers.with_columns(
        high_value=(pl.col("net_sales_minor") >= least) & (pl.col("net_sales_minor") > 0),
        active=pl.col("recency_days") <= active_days,
        bargain_hunter=(pl.col("coupon_order_share") >= dependent) & (pl.col("orders") >= 3),
    )


@dataclass(frozen=True, slots=True)
class Clusters:
    """The result of `clusters`. `cluster`: the number of each customer's cluster. `choice`: one row per number of
    clusters that was tried (`k`), with the silhouette (Rousseeuw 1987) and the inertia, both on a sample; the `k` with
    the highest silhouette is `chosen`. `centres`: one row per cluster, with its number of customers and the mean of
    each feature."""

    cluster: npt.NDArray[np.int64]
    choice: pl.DataFrame
    centres: pl.DataFrame


def clusters(customers: pl.DataFrame, features: tuple[str, ...], most: int = 8) -> Clusters:
    """Group the customers by k-means on the columns `features`, each transformed to log(1 + value) and standardised.
    Tries 2 to `most` clusters, and chooses the best number. The result is the same for the same customers in the same
    order. Raises `TooLittleData`."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    values = np.log1p(np.maximum(customers.select(features).cast(pl.Float64).to_numpy(), 0.0))
    spread = values.std(axis=0)
    kept = spread > _ALIKE
    if customers.height < 10 * most or not kept.any():
        raise TooLittleData(note("{n:count} customers, or all alike: too few to tell groups apart", n=customers.height))
    points = (values[:, kept] - values[:, kept].mean(axis=0)) / spread[kept]
    sample = np.random.default_rng(_SEED).permutation(len(points))[:_SAMPLE]
    tried = []
    for k in range(2, most + 1):
        model = KMeans(k, n_init=4, random_state=_SEED).fit(points[sample])
        try:
            score = silhouette_score(points[sample], model.labels_)
        except ValueError as error:
            raise TooLittleData(note("customers are too much alike: there are fewer kinds than groups")) from error
        tried.append((k, float(score), float(model.inertia_), model))
    number, _, _, best = max(tried, key=lambda row: row[1])
    labels = best.predict(points).astype(np.int64)
    assigned = customers.select(features).with_columns(cluster=pl.Series(labels))
    centres = assigned.group_by("cluster").agg(pl.len().alias("customers"), pl.col(features).mean()).sort("cluster")
    choice = pl.DataFrame([row[:3] for row in tried], schema=["k", "silhouette", "inertia"], orient="row")
    return Clusters(labels, choice.with_columns(chosen=pl.col("k") == number), centres)


def drivers(customers: pl.DataFrame, outcome: str, features: tuple[str, ...]) -> pl.DataFrame:
    """Logistic regression of a column of booleans (`outcome`) on all `features` together.

    Returns one row per feature that varies: the `odds_ratio` per standard deviation of the feature, its 95% interval
    (Wald; `low`, `high`), its `p`, and the rank correlation (Spearman; `correlation`) of the feature alone with the
    outcome. Shows association, not causation. Raises `TooLittleData`.
    """
    import statsmodels.api as sm
    from scipy.stats import spearmanr

    y = customers[outcome].cast(pl.Float64).to_numpy()
    values = customers.select(features).cast(pl.Float64).fill_null(0).to_numpy()
    spread = values.std(axis=0)
    kept = [name for name, s in zip(features, spread, strict=True) if s > _ALIKE]
    rarer = int(min(y.sum(), len(y) - y.sum()))
    if not kept or rarer < FEWEST_PER_FEATURE * len(kept):
        template = (
            "{n:count} customers of the rarer outcome for {features:count} features: {needed:count} each are needed"
        )
        raise TooLittleData(note(template, n=rarer, features=len(kept), needed=FEWEST_PER_FEATURE))
    points = ((values - values.mean(axis=0)) / np.maximum(spread, _ALIKE))[:, spread > _ALIKE]
    certain = TooLittleData(note("the features say the same, or the outcome follows from them; leave some out"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same conditions are checked below
            fitted = sm.Logit(y, sm.add_constant(points)).fit(disp=0, maxiter=100)
            low, high = fitted.conf_int()[1:].T
    except (np.linalg.LinAlgError, sm.tools.sm_exceptions.PerfectSeparationError) as error:
        raise certain from error
    if not fitted.mle_retvals["converged"] or np.abs(fitted.params[1:]).max() > _CERTAIN:
        raise certain
    rows: list[dict[str, Any]] = []
    for n, name in enumerate(kept):
        alone = spearmanr(points[:, n], y)
        rows.append(
            {
                "feature": name,
                "odds_ratio": float(np.exp(fitted.params[n + 1])),
                "low": float(np.exp(low[n])),
                "high": float(np.exp(high[n])),
                "p": float(fitted.pvalues[n + 1]),
                "correlation": float(alone.statistic),
            }
        )
    return pl.DataFrame(rows)
