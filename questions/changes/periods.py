"""Why a number differs between two periods, in one state of the tables.

- Without a dimension: a metric with a funnel (`causes.CHAINS`) is split into the volume at the start of the funnel and
  the rate of each step; any other formula into its parts; any other number is one volume.
- By a dimension: a sum into slices; a metric with a funnel into volume, and the mix and rate of each slice, over the
  number before it in the funnel; a quotient into the mix and rate of each slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final

import polars as pl

from coupon_ledger.analysis.decomposition import Quotient, chain, mix_and_rate
from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.questions.changes import answers, behind
from coupon_ledger.questions.changes.causes import CHAINS, SEVERAL
from coupon_ledger.questions.changes.contributions import Line, contribute, unexplained
from coupon_ledger.questions.changes.formula import Formula, Parts
from coupon_ledger.questions.changes.measured import Measured
from coupon_ledger.questions.changes.measures import Place, Values, measure, of
from coupon_ledger.questions.changes.parameters import ChangeExplained
from coupon_ledger.questions.metrics.definitions import METRICS, MINUTES, SOURCES
from coupon_ledger.questions.metrics.periods import Shift, Zone

COMPARISONS: Final[Mapping[str, Shift]] = {
    "day": Shift(length=timedelta(days=1)),
    "week": Shift(length=timedelta(weeks=1)),
    "month": Shift(months=1),
    "year": Shift(months=12),
}
VOLUME, RATE, MIX, PART, SLICE, NEW_SLICE, GONE_SLICE = (
    "volume",
    "rate",
    "mix",
    "part_of_formula",
    "same_slice",
    "new_slice",
    "gone_slice",
)
_NONE: Final = Fraction(0)


def frame(reading: Reading, measured: Measured, parameters: ChangeExplained) -> pl.DataFrame:
    """The answer, as `changes.change_explained` describes it. Raises `WrongQuestion`."""
    if measured.metric.view == "now":
        raise WrongQuestion(f"metric {measured.metric.name}: is what stands now, in no period; compare two states")
    periods = _periods(measured, parameters)
    if parameters.explain is not None:
        return _objects(reading, measured, periods, parameters.explain, parameters.limit)
    sides = _Sides(reading, measured, periods)
    rows = []
    for currency in sides.currencies:
        before, after = sides.whole(currency)
        lines = sides.lines(currency, before, after)
        rows += answers.rows_of_lines(measured, sides.formula, currency, before, after, lines)
    return answers.frame(measured, rows, steps=True)


def _objects(
    reading: Reading, measured: Measured, periods: tuple[tuple[datetime, datetime], ...], name: str, limit: int
) -> pl.DataFrame:
    """The objects that count in one of the periods for the metric `name`, each with its contribution to the change of
    this metric. Raises `WrongQuestion`."""
    known = dict.fromkeys((measured.metric.name, *measured.parts, *CHAINS.get(measured.metric.name, [])))
    if name not in known:
        raise WrongQuestion(f"explain {name}: this change is about no such metric; there are {', '.join(known)}")
    of_step = replace(measured, metric=METRICS[name], by=None)
    lines = behind.largest(_Sides(reading, of_step, periods).objects())
    shown = pl.DataFrame(
        [place.object for place, _ in lines[:limit]], schema={"kind": pl.String, "id": pl.String}, orient="row"
    )
    bounds = dict(zip(("before_since", "before_until", "since", "until"), (*periods[0], *periods[1]), strict=True))
    with reading.given(shown=shown.unique()):
        records = reading.frame(sql(__package__, "records_of_periods"), bounds)
    return behind.assembled(of_step, lines, records, limit)


def _periods(measured: Measured, parameters: ChangeExplained) -> tuple[tuple[datetime, datetime], ...]:
    """The earlier and the later period. Raises `WrongQuestion`."""
    since, until, zone = parameters.since, parameters.until, Zone(parameters.zone)
    if since is None or until is None:
        raise WrongQuestion("change: of which period is not said; give --since and --until")
    if parameters.compare is not None:
        if parameters.before_since is not None or parameters.before_until is not None:
            raise WrongQuestion("change: the earlier period is given twice; leave out --compare, or the period")
        if parameters.compare not in COMPARISONS:
            raise WrongQuestion(
                f"comparison {parameters.compare}: there is none of that name; there are {', '.join(COMPARISONS)}"
            )
        shift = COMPARISONS[parameters.compare]
        earlier = (shift.instant(since, zone), shift.instant(until, zone))
    elif parameters.before_since is None or parameters.before_until is None:
        raise WrongQuestion("change: the earlier period has no start or no end; give --before-since and --before-until")
    else:
        earlier = (parameters.before_since, parameters.before_until)
    if earlier[0] >= earlier[1]:
        raise WrongQuestion("change: the earlier period ends before it begins; exchange its bounds")
    return earlier, (since, until)


@dataclass(frozen=True)
class _Two:
    """What was measured in the earlier and in the later period."""

    before: Values
    after: Values


class _Sides:
    """The metric and the numbers before it in both periods."""

    def __init__(self, reading: Reading, measured: Measured, periods: tuple[tuple[datetime, datetime], ...]) -> None:
        self._reading = reading
        self._measured = measured
        self._periods = periods
        self.formula = Formula.of_metric(measured.metric)
        self._whole = self._measure(measured.parts, by=None, money=measured.money)
        places = {place.currency for values in (self._whole.before, self._whole.after) for place in values}
        self.currencies = sorted(places, key=str) or [None]
        if len(self.currencies) > 1:
            self.currencies = [currency for currency in self.currencies if currency is not None]

    def whole(self, currency: str | None) -> tuple[dict[str, Fraction | None], dict[str, Fraction | None]]:
        found = []
        for values, (since, until) in zip((self._whole.before, self._whole.after), self._periods, strict=True):
            parts = of(values.get(Place(currency), {}), self._measured.parts)
            found.append(parts | self._minutes(since, until))
        return found[0], found[1]

    def lines(self, currency: str | None, before: Parts, after: Parts) -> list[Line]:
        metric, steps = self._measured.metric, self._steps()
        if self._measured.by is None:
            lines = self._funnel(steps, currency) if steps else None
            return lines or self._parts(before, after)
        base = steps[-2] if steps else None
        if base is not None and self._measured.by in METRICS[base].dimensions:
            lines = self._over(base, metric.name, currency)
            if lines is not None:
                return lines
        split = self._sums if self.formula.per is None else self._quotients
        return split(currency, before, after)

    def objects(self) -> list[tuple[Place, Fraction | None]]:
        """Every object that counts differently in the two periods, with its contribution."""
        two = self._measure(self._measured.parts, by=None, money=self._measured.money, objects=True)
        found: list[tuple[Place, Fraction | None]] = []
        for currency in self.currencies:
            lines = {}
            for place in dict.fromkeys((*two.before, *two.after)):
                old, new = two.before.get(place, {}), two.after.get(place, {})
                parts = {n: (new.get(n) or _NONE) - (old.get(n) or _NONE) for n in self._measured.parts}
                if place.currency == currency and any(parts.values()):
                    lines[place] = Line(VOLUME, parts=parts)
            contribute(self.formula, *self.whole(currency), list(lines.values()))
            found += [(place, line.contribution) for place, line in lines.items()]
        return found

    # --- without a dimension

    def _steps(self) -> list[str]:
        """The metrics of the funnel that leads to this one. If there are amounts in several currencies, only those that
        have a currency."""
        steps = CHAINS.get(self._measured.metric.name, [])
        if len(self.currencies) > 1:
            steps = [name for name in steps if all(_has_currency(part) for part in METRICS[name].parts)]
        allowed = [name for name in steps if set(self._measured.slice.where) <= {*METRICS[name].dimensions, "currency"}]
        return allowed if len(allowed) > 1 else []

    def _funnel(self, steps: Sequence[str], currency: str | None) -> list[Line] | None:
        numbers = [self._numbers(name, currency, by=None) for name in steps]
        if any(None in (one.get(None) for one in pair) for pair in numbers):
            return None
        found = chain(*([one[side][None] or _NONE for one in numbers] for side in (0, 1)))
        if found is None:
            return None
        causes = [VOLUME, *[RATE] * (len(steps) - 1)]
        lines = zip(causes, steps, found, strict=True)
        return [Line(cause, metric=step, contribution=value) for cause, step, value in lines]

    def _parts(self, before: Parts, after: Parts) -> list[Line]:
        lines = []
        for name, old in before.items():
            new = after[name]
            if old is not None and new is not None and new != old:
                cause = VOLUME if name == self._measured.metric.name else PART
                lines.append(Line(cause, parts={name: new - old}, metric=name))
        contribute(self.formula, before, after, lines)
        return lines

    # --- by a dimension

    def _sums(self, currency: str | None, before: Parts, after: Parts) -> list[Line]:
        """Each slice contributes the difference of its own values."""
        two = self._measure(self._measured.parts, by=self._measured.by, money=self._measured.money)
        lines = []
        for slice_ in _slices(two, currency):
            place = Place(currency, slice_)
            old, new = (of(values.get(place, {}), self._measured.parts) for values in (two.before, two.after))
            parts = {n: (new[n] or _NONE) - (old[n] or _NONE) for n in old}
            cause = NEW_SLICE if place not in two.before else SLICE if place in two.after else GONE_SLICE
            lines.append(Line(cause, slice_, parts))
        if rest := unexplained(before, after, lines):
            lines.append(Line(SEVERAL, parts=rest))
        contribute(self.formula, before, after, lines)
        return [line for line in lines if line.contribution != 0]

    def _quotients(self, currency: str | None, before: Parts, after: Parts) -> list[Line]:
        """Each slice contributes its mix and its rate."""
        two = self._measure(self._measured.parts, by=self._measured.by, money=self._measured.money)
        sides = []
        for values, whole, (since, until) in zip((two.before, two.after), (before, after), self._periods, strict=True):
            minutes = self._minutes(since, until)
            sides.append(
                {
                    place.slice: self._quotient(of(parts, self._measured.parts) | minutes)
                    for place, parts in values.items()
                    if place.currency == currency
                }
            )
            sides[-1][SEVERAL] = self._rest(sides[-1].values(), whole)
        if self.formula.value(before) is None or self.formula.value(after) is None:
            return []
        return _mixed(mix_and_rate(*sides), Fraction(1), self._measured.metric.name)

    def _over(self, base: str, name: str, currency: str | None) -> list[Line] | None:
        """The metric as its `base` times a rate: volume is the change of the base at the mean rate; mix and rate of
        each slice count at the mean base. None if the base is 0 in one of the periods."""
        numbers = [self._numbers(one, currency, by=self._measured.by) for one in (name, base)]
        wholes = [self._numbers(one, currency, by=None) for one in (name, base)]
        sides, totals = [], []
        for side in (0, 1):
            total = Quotient(*(one[side].get(None) or _NONE for one in wholes))
            if not total.per:
                return None
            slices = {
                slice_: Quotient(*(one[side].get(slice_) or _NONE for one in numbers))
                for slice_ in dict.fromkeys(key for one in numbers for key in one[side])
            }
            slices[SEVERAL] = Quotient(
                total.of - sum((one.of for one in slices.values()), _NONE),
                total.per - sum((one.per for one in slices.values()), _NONE),
            )
            sides.append(slices)
            totals.append(total)
        rates = [total.of / total.per for total in totals]
        volume = (totals[1].per - totals[0].per) * sum(rates, _NONE) / 2
        mean = (totals[0].per + totals[1].per) / 2
        return [Line(VOLUME, metric=base, contribution=volume), *_mixed(mix_and_rate(*sides), mean, name)]

    def _quotient(self, parts: Parts) -> Quotient:
        return Quotient(self.formula.numerator(parts) or _NONE, self.formula.denominator(parts) or _NONE)

    def _rest(self, quotients: object, whole: Parts) -> Quotient:
        found = list(quotients)  # type: ignore[call-overload]
        total = self._quotient(whole)
        return Quotient(
            total.of - sum((one.of for one in found), _NONE), total.per - sum((one.per for one in found), _NONE)
        )

    # --- measuring

    def _measure(self, names: Sequence[str], *, by: str | None, money: bool, objects: bool = False) -> _Two:
        measured = self._measured
        found = []
        for place, (since, until) in enumerate(self._periods):
            rates = measured.slice.goods_rates if place else measured.goods_rates_before
            low, high = measured.slice.span
            slice_ = replace(
                measured.slice,
                by=(by,) if by else (),
                since=since,
                until=until,
                span=(min(low, since), max(high, until)),
                goods_rates=rates,
            )
            found.append(measure(self._reading, names, slice_, money=money, objects=objects))
        return _Two(*found)

    def _numbers(self, name: str, currency: str | None, *, by: str | None) -> list[dict[object, Fraction | None]]:
        """The values of a metric in both periods, by slice. A metric without a currency counts for any."""
        metric = METRICS[name]
        apart = all(_has_currency(part) for part in metric.parts) and currency is not None
        two = self._measure(metric.parts, by=by, money=apart)
        formula = Formula.of_metric(metric)
        found: list[dict[object, Fraction | None]] = []
        for values in (two.before, two.after):
            of_currency = [place for place in values if not apart or place.currency == currency]
            mine = {place.slice: of(values[place], metric.parts) for place in of_currency}
            if by is None and not mine:
                mine = {None: of({}, metric.parts)}
            found.append({slice_: formula.value(parts) for slice_, parts in mine.items()})
        return found

    def _minutes(self, since: datetime, until: datetime) -> dict[str, Fraction | None]:
        if not self._measured.in_minutes:
            return {}
        [(clock,)] = self._reading.rows("SELECT data_clock FROM ledger")
        passed = (min(until, clock) - since) // timedelta(microseconds=1) if clock else 0
        return {MINUTES: Fraction(max(0, passed), 60_000_000)}


def _mixed(effects: Mapping[object, object], scale: Fraction, name: str) -> list[Line]:
    lines = []
    for slice_, effect in sorted(effects.items(), key=lambda item: (item[0] == SEVERAL, str(item[0]))):
        for cause, value in zip((MIX, RATE), effect, strict=True):  # type: ignore[call-overload]
            if value:
                several = slice_ == SEVERAL
                line = Line(SEVERAL if several else cause, None if several else slice_)
                line.metric, line.contribution = name, value * scale
                lines.append(line)
    return lines


def _slices(two: _Two, currency: str | None) -> list[object]:
    found = [place.slice for values in (two.before, two.after) for place in values if place.currency == currency]
    return sorted(dict.fromkeys(found), key=str)


def _has_currency(part: str) -> bool:
    return SOURCES[str(METRICS[part].source)].currency is not None
