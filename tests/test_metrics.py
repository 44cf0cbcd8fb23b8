"""Every metric against a model that shares no code with it; zones, currencies, comparisons, late facts, the past."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from projections import queries
from projections.live.apply import apply
from projections.metrics.definitions import METRICS
from projections.store import Store
from tests import metric_model
from tests.folding import emptied, fold_in, scratch_store
from tests.metric_model import World, bucket_of, has, model, within, world

Row = dict[str, Any]
NEW_YORK = "America/New_York"
MODEL = model()
NOT_IN_THE_MODEL = {"claims_per_minute", "stock", "stock_left", "claims_per_minute_now", "minutes_to_sell_out"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("metrics")) as opened:
        yield opened


def fill(store: Store, told: World) -> None:
    for topic, deliveries in told.told.items():
        fold_in(store, apply, topic, [deliveries])


def ask(store: Store, *names: str, **given: Any) -> list[Row]:
    with closing(queries.Local(store)) as local:
        return [r for frame in local.ask("metrics", names=",".join(names), **given).frames for r in frame.to_dicts()]


def members(rows: metric_model.Rows, slice_: Row, zone: ZoneInfo, grain: str | None) -> metric_model.Rows:
    """What lies in the slice of this row of an answer."""
    currency = slice_["currency"]

    def mine(row: Row) -> bool:
        return (
            (currency is None or (row.get("currency") or "XXX") == currency)
            and (grain is None or bucket_of(row["at"], grain, zone) == slice_["bucket"])
            and all(has(row, d, v, zone) for d, v in slice_.items() if d not in ("currency", "bucket"))
        )

    return within(rows, mine)


def same(found: float | None, wanted: float | None) -> bool:
    """Rates and quantiles within what floating point leaves open, all else to the unit."""
    if found is None or wanted is None or isinstance(found, int):
        return found == wanted
    return math.isclose(found, wanted, rel_tol=1e-9)


def check(store: Store, told: World, names: list[str], by: list[str], grain: str | None) -> None:
    """All rows of the answer, and that none is missing."""
    zone, rows = ZoneInfo(NEW_YORK), within(told.rows(), lambda _: True)
    answer = ask(store, *names, by=",".join(by) or None, grain=grain, zone=NEW_YORK)
    keys = [*by, *(["bucket"] if grain else [])]
    for row in answer:
        money = row.get("currency") is not None
        slice_ = {key: row[key] for key in keys} | {"currency": row.get("currency")}
        inside = members(rows, slice_, zone, grain)
        for name in names:
            if METRICS[name].money == money:
                assert same(row[name], MODEL[name](inside)), (name, slice_)
            else:
                assert row[name] is None, name
    for name in names:
        kinds = {str(METRICS[part].source) for part in METRICS[name].parts}
        if METRICS[name].additive and not ({"campaign", "coupon_type"} & set(by) and "coupon_orders" in kinds):
            values = [row[name] for row in answer if METRICS[name].money == (row.get("currency") is not None)]
            whole = MODEL[name](within(rows, lambda _: True))
            assert None in values or sum(values) == whole, name


def names_with(dimension: str | None) -> list[str]:
    return [n for n in MODEL if dimension is None or dimension in METRICS[n].dimensions]


def test_every_metric_has_a_model() -> None:
    """A metric that nothing is held against could be wrong for years."""
    assert set(METRICS) - NOT_IN_THE_MODEL == set(MODEL)


DIMENSIONS = (
    None, "campaign", "coupon_type", "channel", "segment", "store", "region", "reason", "weekday", "hour_of_day"
)  # fmt: skip


def agrees(store: Store, seed: int, dimension: str | None, grain: str | None) -> None:
    told = world(seed)
    print(f"seed {seed}")
    with emptied(store):
        fill(store, told)
        check(store, told, names_with(dimension), [dimension] if dimension else [], grain)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_metrics_are_what_the_model_says_in_every_slice(store: Store, dimension: str | None) -> None:
    """Else two reports of the same sale would differ."""
    agrees(store, 1, dimension, None)


@pytest.mark.parametrize("grain", ["day", "week", "month"])
def test_metrics_are_what_the_model_says_in_every_bucket(store: Store, grain: str) -> None:
    """Clocks in New York are changed within these weeks."""
    agrees(store, 2, None, grain)
