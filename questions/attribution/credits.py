"""Credits of each channel, campaign or kind of touch. All models are computed in one pass over the paths.

A *value* is what gets credit: a channel, a campaign, or a kind of touch. `analysis.attribution` refers to values by
number; such a number is called a *state*.

Invariants: for each model and currency, the credits sum to the orders and sales in that currency. Orders without any
touch are credited to the value `NOBODY`. Amounts in different currencies are never added up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.analysis import attribution as credit
from coupon_ledger.analysis.attribution import Float64, Int64, Mask, Paths
from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.past.slices import ahead
from coupon_ledger.questions.attribution.models import OVER_ALL, Model

BY: Final = {"channel": "channel", "campaign": "campaign_id", "kind": "kind"}
NOBODY: Final = "(none)"
"""The value to which orders without any touch are credited."""
UNKNOWN_COUPON: Final = "(unknown coupon)"
"""The value to which the redeemed model credits orders that name coupons, if none of these is known to be used on
them."""
OTHERS: Final = "(other campaigns)"
_UNKNOWN: Final = {"channel": "(unknown)", "campaign": "(no campaign)", "kind": "(unknown)"}
_MEASURES: Final = ("orders", "sales_minor", "margin_minor", "without_cost")
"""The measures credited. `margin_minor`: sales less cost of goods, of orders with a known cost; `without_cost`: the
number of other orders."""
_DAY_MICROS: Final = 86_400_000_000
_NEVER: Final = np.iinfo(np.int64).max
_NO_AGES: Final = np.zeros(0)
_AT_ONCE: Final = 40_000
_MOST_STATES: Final = 2_000
_ROOM: Final = 32
SCHEMA: Final = {
    "model": pl.String,
    "value": pl.String,
    "currency": pl.String,
    **dict.fromkeys(_MEASURES, pl.Float64),
    "removal_effect": pl.Float64,
    "error": pl.Float64,
}


@dataclass(frozen=True)
class Selection:
    """Which orders are credited, and to what. `by`: a key of `BY`, which says what the values are. `campaign`: if set,
    all other campaigns count as one value. `alone`: whether the credits of the other campaigns may be left out.
    `since`, `until`: the period in which the orders were paid."""

    by: str = "channel"
    campaign: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    alone: bool = False

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise WrongQuestion(f"credits by {self.by}: there is no such part; there are {', '.join(BY)}")

    @property
    def window(self) -> dict[str, Any]:
        return {"since": self.since, "until": self.until}

    def values(self, sources: pl.DataFrame) -> pl.Series:
        """The value to which the touches of each source are credited. `sources`: one row per source, with `kind`,
        `channel`, `campaign_id`."""
        value = pl.col(BY[self.by]).fill_null(_UNKNOWN[self.by])
        if self.campaign is not None:
            mine = (pl.col("campaign_id") == self.campaign) | pl.col("campaign_id").is_in([NOBODY, UNKNOWN_COUPON])
            value = pl.when(mine.fill_null(False)).then(value).otherwise(pl.lit(OTHERS))
        return sources.select(value.alias("value")).to_series()


def credits(reading: Reading, models: Iterable[Model], selection: Selection) -> pl.DataFrame:
    """One row per model, value and currency that has any credit, with the columns of `SCHEMA`. `removal_effect` is null
    except for markov. `error` is the standard error of `orders` if shapley sampled combinations, else null. The caller
    must provide the table `goods` (goods.sql)."""
    frames = []
    models = list(models)
    looking = [m for m in models if m.kind != "redeemed"]
    if looking:
        frames.append(_looked_back(reading, looking, selection))
    for model in models:
        if model.kind == "redeemed":
            frames.append(_redeemed(reading, model, selection))
    order = pl.Enum([m.name for m in models])
    rows = pl.concat(frames).with_columns(pl.col("model").cast(order))
    rows = rows.sort("model", "currency", "orders", "value", descending=[False, False, True, False])
    return rows.cast({"model": pl.String})


def _redeemed(reading: Reading, model: Model, selection: Selection) -> pl.DataFrame:
    among = selection.campaign if selection.alone else None
    rows = reading.frame(sql(__package__, "redeemed"), {"campaign": among, **selection.window})
    rows = rows.with_columns(value=selection.values(rows), model=pl.lit(model.name))
    sums = rows.group_by("model", "value", "currency").agg(pl.col(_MEASURES).sum())
    nothing = pl.lit(None, dtype=pl.Float64)
    return sums.with_columns(removal_effect=nothing, error=nothing).select(*SCHEMA).cast(SCHEMA)  # type: ignore[arg-type]


def _looked_back(reading: Reading, models: list[Model], selection: Selection) -> pl.DataFrame:
    sources = reading.frame("SELECT * FROM touch_sources ORDER BY source")
    of_source = selection.values(sources)
    values = of_source.unique().sort()
    if values.len() > _MOST_STATES and any(m.kind in OVER_ALL for m in models):
        raise WrongQuestion(
            f"credits by {selection.by}: {values.len():,} of them are too many for {', '.join(OVER_ALL)}; choose other"
            " models, --by channel, or one --campaign"
        )
    states = of_source.cast(pl.Enum(values)).to_physical().to_numpy().astype(np.int64)
    state_of = _StateOf(sources["source"].to_numpy(), states, values.len())
    currencies = reading.frame(sql(__package__, "totals"), selection.window)["currency"]
    runs = [_Run(model, values.len(), currencies.len()) for model in models]
    over_all = any(run.over_all for run in runs)
    look_backs = sorted({model.look_back_days for model in models})

    def seen(frame: pl.DataFrame) -> dict[float, _Some]:
        batch = _Batch(frame, state_of, currencies)
        return {days: batch.within(days, with_nothing=over_all) for days in look_backs}

    pieces = reading.batches(sql(__package__, "paths"), selection.window, rows=_AT_ONCE)
    for some in ahead(seen, (piece for piece in pieces if piece.height)):
        for run in runs:
            run.add(some[run.model.look_back_days])
    return pl.concat(run.rows(values, currencies) for run in runs)


@dataclass(frozen=True, slots=True)
class _Some:
    """A batch of paths, limited to one look-back window.

    `paths`: all paths that led to an order. `mixed`: those of them whose touches have several states. `currency`,
    `measures`: the currency (its number) and the measures of each mixed path. `sums`: the measures of all other paths,
    summed by state and currency. The touches of such a path all have the same state, or it has no touch; under every
    model, that state (or `NOBODY`) gets all credit. `nothing`: the touches that led to no order.
    """

    paths: Paths
    mixed: Paths
    currency: Int64
    measures: Float64
    sums: Float64
    nothing: list[Paths]


class _Batch:
    """A batch of rows from paths.sql, as arrays."""

    def __init__(self, frame: pl.DataFrame, state_of: _StateOf, currencies: pl.Series) -> None:
        self._offsets, source = _flat(frame["sources"])
        _, self._touched = _flat(frame["touched_at"].cast(pl.List(pl.Int64)))
        self._states = state_of(source)
        self._number, self._currencies = state_of.number, currencies.len()
        self._ordered = frame["ordered"].to_numpy()
        self._ended = frame["ended_at"].cast(pl.Int64).to_numpy()
        before = frame["previous_at"].cast(pl.Int64).fill_null(np.iinfo(np.int64).min)
        self._before = before.to_numpy()
        mine = frame.filter(frame["ordered"])
        self._currency = mine["currency"].cast(pl.Enum(currencies)).to_physical().to_numpy().astype(np.int64)
        margin = (pl.col("sales_minor") - pl.col("cost_of_goods_minor")).fill_null(0)
        measures = (pl.col("ordered"), pl.col("sales_minor"), margin, pl.col("cost_of_goods_minor").is_null())
        self._measures = np.column_stack([mine.select(m.cast(pl.Float64).alias("m"))["m"].to_numpy() for m in measures])

    def within(self, look_back_days: float, *, with_nothing: bool) -> _Some:
        """The batch, limited to touches within the look-back window. `with_nothing`: whether the touches that led to no
        order are collected, too."""
        lengths = np.diff(self._offsets)
        opened = np.where(self._ordered, self._ended - int(look_back_days * _DAY_MICROS), _NEVER)
        kept = self._touched >= np.repeat(opened, lengths)
        seen = self._chosen(kept, self._ordered)
        only = self._only(seen)
        mixed = only < 0
        sums = self._summed(only[~mixed], self._currency[~mixed], self._measures[~mixed])
        of_mixed = np.zeros(len(lengths), dtype=np.bool_)
        of_mixed[self._ordered] = mixed
        of_mixed_kept = kept & np.repeat(of_mixed, lengths)
        among = self._chosen(of_mixed_kept, of_mixed)
        age = np.repeat(self._ended[of_mixed], among.lengths) - self._touched[of_mixed_kept]
        aged = Paths(among.offsets, among.states, age / 1e6)
        nothing = self._nothing(kept, lengths) if with_nothing else []
        return _Some(seen, aged, self._currency[mixed], self._measures[mixed], sums, nothing)

    def _nothing(self, kept: Mask, lengths: Int64) -> list[Paths]:
        """The touches that led to no order: the touches of paths without an order, and those that are too old for their
        path's order but later than the person's previous order. `kept`: whether each touch is within the look-back
        window. `lengths`: the number of touches of each path."""
        lost = ~kept
        lost &= self._touched > np.repeat(self._before, lengths)
        return [self._chosen(lost, np.ones(len(lengths), dtype=np.bool_))]

    def _chosen(self, touches: Mask, paths: Mask) -> Paths:
        """The paths selected by the mask `paths`, with the touches selected by the mask `touches`. The result has no
        ages, since only the few mixed paths need them."""
        counted = np.r_[0, np.cumsum(touches)][self._offsets]
        return Paths(np.r_[0, np.cumsum(np.diff(counted)[paths])], self._states[touches], _NO_AGES)

    def _only(self, paths: Paths) -> Int64:
        """For each path, the state that all its touches have. If the touches have several states, -1. If there is no
        touch, the state of `NOBODY`."""
        there = paths.lengths > 0
        starts = paths.offsets[:-1][there]
        only = np.full(len(there), self._number)
        if len(starts):
            least, most = np.minimum.reduceat(paths.states, starts), np.maximum.reduceat(paths.states, starts)
            only[there] = np.where(least == most, least, -1)
        return only

    def _summed(self, states: Int64, currency: Int64, measures: Float64) -> Float64:
        place, size = states * self._currencies + currency, (self._number + 1) * self._currencies
        sums = np.zeros((size, len(_MEASURES)))
        for number in range(len(_MEASURES)):
            sums[:, number] = np.bincount(place, measures[:, number], size)
        return sums.reshape(self._number + 1, self._currencies, len(_MEASURES))


def _flat(lists: pl.Series) -> tuple[Int64, Int64]:
    """Returns where each list starts in the concatenated values, and these values. The starts begin with 0; a last
    number is the end."""
    array: Any = lists.rechunk().to_arrow()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], array.values[int(offsets[0]) : int(offsets[-1])].to_numpy(zero_copy_only=False)


class _StateOf:
    """Finds the states of sources of touches. A source is identified by a hash. A table indexed by the low bits of the
    hashes gives nearly all states, at a tenth of the cost of a binary search. Hashes with the same low bits are found
    by binary search."""

    def __init__(self, sources: Int64, states: Int64, number: int) -> None:
        """`sources`: the hashes, in ascending order. `states`: the state of each source. `number`: the number of
        states."""
        self.number = number
        self._sources, self._states = sources, states
        self._low = (1 << (_ROOM * max(len(sources), 1)).bit_length()) - 1
        place = sources & self._low
        self._table = np.full(self._low + 1, -1, dtype=np.int64)
        self._table[place] = states
        places, times = np.unique(place, return_counts=True)
        self._table[places[times > 1]] = -1

    def __call__(self, sources: Int64) -> Int64:
        states: Int64 = self._table[sources & self._low]
        shared = np.flatnonzero(states < 0)
        states[shared] = self._states[np.searchsorted(self._sources, sources[shared])]
        return states


class _Run:
    """Adds up the measures that one model credits, by state and currency, batch by batch. The last state stands for
    `NOBODY`."""

    def __init__(self, model: Model, states: int, currencies: int) -> None:
        self.model = model
        self._states, self._currencies = states, currencies
        self._sums: Float64 = np.zeros((states + 1, currencies, len(_MEASURES)))
        self._touched: Float64 = np.zeros((currencies, len(_MEASURES)))
        self._journeys = credit.Journeys(states) if model.kind == "markov" else None
        by_rate = model.kind == "shapley" and model.worth == "rate"
        if by_rate and states > credit.MOST_PLAYERS:
            raise WrongQuestion(
                f"model {model.name}: {states:,} values are too many for the worth 'rate', which takes"
                f" {credit.MOST_PLAYERS}; credit channels, or use the worth 'orders'"
            )
        self._coalitions = credit.Coalitions(states) if by_rate else None

    @property
    def over_all(self) -> bool:
        return self._journeys is not None or self._coalitions is not None

    def add(self, some: _Some) -> None:
        if self.over_all:
            self._add_over_all(some)
        else:
            self._sums += some.sums
            self._add_weights(some)

    def _add_over_all(self, some: _Some) -> None:
        self._sums[-1] += some.sums[-1]
        self._touched += some.sums[:-1].sum(axis=0)
        for number in range(len(_MEASURES)):
            self._touched[:, number] += np.bincount(some.currency, some.measures[:, number], self._currencies)
        for summed in (self._journeys, self._coalitions):
            if summed is not None:
                summed.add(some.paths, np.ones(len(some.paths.lengths), dtype=np.bool_))
                for paths in some.nothing:
                    summed.add(paths, np.zeros(len(paths.lengths), dtype=np.bool_))

    def _add_weights(self, some: _Some) -> None:
        weights = weights_of(self.model, some.mixed)
        owners, states = some.mixed.owners, some.mixed.states
        if self.model.kind in ("first", "last"):
            credited = np.flatnonzero(weights)
            weights, owners, states = weights[credited], owners[credited], states[credited]
        place = states * self._currencies + some.currency[owners]
        size = self._states * self._currencies
        for number in range(len(_MEASURES)):
            measure = some.measures[:, number]
            if measure.any():
                summed = np.bincount(place, weights * measure[owners], size)
                self._sums[:-1, :, number] += summed.reshape(self._states, self._currencies)

    def rows(self, values: pl.Series, currencies: pl.Series) -> pl.DataFrame:
        states = self._states
        effects, errors = np.full(states + 1, np.nan), np.full(states + 1, np.nan)
        if self._journeys is not None:
            _, effects[:-1] = self._journeys.removal_effects()
            self._share(effects[:-1])
        if self._coalitions is not None:
            parts, deviations = self._coalitions.value(self.model.draws)
            self._share(parts)
            if deviations.any():
                errors[:-1] = deviations
        places = [(s, c) for s in range(states + 1) for c in range(self._currencies) if self._sums[s, c].any()]
        names = [*values, NOBODY]
        rows = [
            [self.model.name, names[s], currencies[c], *self._sums[s, c].tolist(), effects[s], errors[s]]
            for s, c in places
        ]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(
            pl.col("removal_effect", "error").fill_nan(None)
        )

    def _share(self, parts: Float64) -> None:
        """Divide the measures of the orders with touches among the states, in proportion to `parts` (a number per
        state). The proportions are the same in every currency."""
        if parts.sum():
            self._sums[:-1] = (parts / parts.sum())[:, None, None] * self._touched[None]


def weights_of(model: Model, paths: Paths) -> npt.NDArray[np.float64]:
    """For each touch of `paths`, the part of the order that the model credits to it. Only for models that credit single
    orders, and for shapley with worth `orders`."""
    match model.kind:
        case "last":
            return credit.last(paths)
        case "first":
            return credit.first(paths)
        case "linear":
            return credit.linear(paths)
        case "time_decay":
            return credit.time_decay(paths, model.half_life_days * 86_400)
        case "position":
            return credit.position(paths, model.first_share, model.last_share)
        case "shapley":
            return credit.shared_by_distinct(paths)
        case _:
            raise AssertionError(f"{model.kind} credits no single orders")
