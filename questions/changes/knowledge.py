"""Why a number differs between two states of knowledge of the same period.

The records that only one of the states has are applied to the earlier state in groups, one cause after another
(`causes.CAUSES`). What a cause contributes is the change of the number when its group is applied. The last group leads
to the later state, so the contributions add up exactly, whatever the metric.

A part that is by object (`measures`) is measured only for the objects that a group may have changed, before and after.
The other parts are measured as a whole in every state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final

import polars as pl

from coupon_ledger.ledger.progress import Progress
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER
from coupon_ledger.projections.connection import Reading, live_schema, sql
from coupon_ledger.projections.live.apply import PROJECTED
from coupon_ledger.projections.past import Cut, deliveries_of
from coupon_ledger.projections.past.stages import Stages
from coupon_ledger.questions.changes.causes import CAUSES, CLOCK, GOODS_RATES, Spans, stage_of, stage_sql, within
from coupon_ledger.questions.changes.measured import Measured
from coupon_ledger.questions.changes.measures import Place, Values, by_object, measure, of, topics_of
from coupon_ledger.questions.metrics.definitions import METRICS, MINUTES
from coupon_ledger.questions.metrics.statements import Slice

_MICROSECOND: Final = timedelta(microseconds=1)
_MINUTE_US: Final = 60_000_000
_NONE: Final = Fraction(0)


@dataclass(frozen=True)
class Sides:
    """The two states: cuts of the log. `replayed`: records that the earlier state lacks although they are in its cut,
    since they were dead letters then."""

    before: Cut
    after: Cut
    replayed: Spans

    def in_before(self, topic: str) -> str:
        condition = self.before.condition(topic)
        return f"({condition} AND NOT {within(topic, self.replayed)})" if self.replayed else f"({condition})"

    def in_after(self, topic: str) -> str:
        return f"({self.after.condition(topic)})"


@dataclass
class Differences:
    """What was measured. `before`, `after`: the parts in the two states, by currency. `sums`, `objects`: by how much
    each cause changes the parts, by currency and slice, and for each object. `records`: the records behind each object,
    as records.sql returns them. `counts`: the number of records of each cause, also of those that change nothing."""

    before: Values = field(default_factory=dict)
    after: Values = field(default_factory=dict)
    sums: dict[str, Values] = field(default_factory=dict)
    objects: dict[str, Values] = field(default_factory=dict)
    records: pl.DataFrame = field(default_factory=pl.DataFrame)
    counts: dict[str, int] = field(default_factory=dict)


def differences(reading: Reading, measured: Measured, sides: Sides, progress: Progress) -> Differences:
    """Measure both states, and what every cause changes."""
    return _Applying(reading, measured, sides).run(progress)


class _Applying:
    """Applies one cause after another, and measures what each changes."""

    def __init__(self, reading: Reading, measured: Measured, sides: Sides) -> None:
        self._reading = reading
        self._measured = measured
        self._sides = sides
        self._live = live_schema(reading)
        self._found = Differences()
        slices = [measured.slice, *([measured.split] if measured.by else [])]
        self._reads = {
            name: set[str]().union(*(topics_of([name], slice_, money=measured.money) for slice_ in slices))
            for name in measured.parts
        }
        self._whole_parts = [name for name in measured.parts if not by_object(METRICS[name])]

    def run(self, progress: Progress) -> Differences:
        topics = set[str]().union(*self._reads.values())
        clocks = (self._clock(self._sides.in_before), self._clock(self._sides.in_after))
        horizon = self._horizon()
        stages = Stages(
            self._reading,
            self._sides.in_before,
            self._sides.in_after,
            lambda topic: stage_sql(topic, self._sides.replayed, horizon),
            [topic for topic in INPUT_TOPICS if topic in topics],
        )
        present = stages.of_topics()
        self._set_clock(stages, clocks[0])
        stages.show(0)
        earlier = self._measured.earlier
        self._found.before = self._now(earlier, clocks[0])
        for done, (stage, changed) in enumerate(present.items(), 1):
            self._note_changed(stages, stage)
            self._step(CAUSES[stage - 1], lambda stage=stage: stages.show(stage), earlier, earlier, changed)  # type: ignore[misc]
            progress(done, len(present))
        self._move_clock(stages, clocks)
        if self._measured.goods_rates_before != self._measured.slice.goods_rates:
            self._step(GOODS_RATES, lambda: None, earlier, self._measured, None)
        self._found.after = self._now(self._measured, clocks[1])
        self._find_records(stages)
        stages.close()
        return self._found

    # --- the states

    def _clock(self, inside: Callable[[str], str]) -> datetime | None:
        """The data's clock of a state; None if the number does not depend on it."""
        return self._latest("least(occurred_at, recorded_at)", inside) if self._measured.needs_clock else None

    def _latest(self, moment: str, inside: Callable[[str], str]) -> datetime | None:
        each = " UNION ALL ".join(
            f"SELECT max({moment}) AS moment FROM {deliveries_of(topic, self._live)} WHERE {inside(topic)}"
            for topic in INPUT_TOPICS
        )
        latest: datetime | None = self._reading.rows(f"SELECT max(moment) FROM ({each})")[0][0]
        return latest

    def _horizon(self) -> datetime | None:
        """The instant up to which events must have happened to be late: where the first of the two cuts ends."""
        cuts = ((self._sides.before, self._sides.in_before), (self._sides.after, self._sides.in_after))
        ends = [cut.known_at or cut.at or self._latest("recorded_at", inside) for cut, inside in cuts]
        return min((end for end in ends if end is not None), default=None)

    def _set_clock(self, stages: Stages, clock: datetime | None) -> None:
        if self._measured.needs_clock:
            value = "NULL::TIMESTAMP" if clock is None else f"TIMESTAMP '{clock}'"
            stages.view("ledger", f"SELECT * REPLACE ({value} AS data_clock) FROM {self._live}.ledger")

    def _move_clock(self, stages: Stages, clocks: tuple[datetime | None, datetime | None]) -> None:
        if not self._measured.needs_clock or clocks[0] == clocks[1]:
            return
        earlier = self._measured.earlier
        if self._measured.metric.view == "now":
            self._step(CLOCK, lambda: self._set_clock(stages, clocks[1]), earlier, earlier, None)
        if self._measured.in_minutes:
            old, new = (self._minutes(clock)[MINUTES] or _NONE for clock in clocks)
            self._found.sums[CLOCK] = {Place(): {MINUTES: new - old}}

    def _now(self, measured: Measured, clock: datetime | None) -> Values:
        """All parts as a whole, in the state that is shown."""
        values = measure(self._reading, measured.parts, measured.slice, money=measured.money)
        return {place: of(parts, measured.parts) | self._minutes(clock) for place, parts in values.items()}

    def _minutes(self, clock: datetime | None) -> dict[str, Fraction | None]:
        """The minutes of the period up to the data's clock, if the formula names them."""
        if not self._measured.in_minutes:
            return {}
        since, until = self._measured.slice.since, self._measured.slice.until
        if clock is None or since is None:
            return {MINUTES: None}
        passed = (min(until or datetime.max, clock) - since) // _MICROSECOND
        return {MINUTES: Fraction(max(0, passed), _MINUTE_US)}

    # --- one cause

    def _note_changed(self, stages: Stages, stage: int) -> None:
        """Note which coupons and orders the stage may change, for `measure`."""
        for table, column, topic in (("changed_coupons", "key_hash", COUPON), ("changed_orders", "order_id", ORDER)):
            journal = PROJECTED[topic].journal
            delivered = f"{journal}_delivered WHERE stage = {stage}" if topic in stages.topics else f"{journal} LIMIT 0"
            stages.make(table, f"SELECT DISTINCT {column} FROM {delivered}")
        named = "coupon_events_delivered" if COUPON in stages.topics else "coupon_events"
        stages.make(
            "affected_orders",
            "SELECT order_id FROM changed_orders UNION"
            f" SELECT order_id FROM {named} WHERE order_id IS NOT NULL AND key_hash IN (FROM changed_coupons)",
        )

    def _step(
        self, cause: str, move: Callable[[], None], old: Measured, new: Measured, changed: set[str] | None
    ) -> None:
        """Measure before and after `move`. `changed`: the topics whose rows it may change; None: it may change all."""
        narrow = changed is not None and USER not in changed
        names = [name for name in self._measured.parts if changed is None or changed & self._reads[name]]
        before = self._measure(names, old, narrow)
        move()
        after = self._measure(names, new, narrow)
        for kind, of_cause in (("sums", self._found.sums), ("objects", self._found.objects)):
            if moved := _moved(before[kind], after[kind]):
                of_cause[cause] = moved

    def _measure(self, names: Iterable[str], measured: Measured, narrow: bool) -> dict[str, Values]:
        names = list(names)
        objects = self._of_objects(names, measured.split, narrow)
        return {"objects": objects, "sums": _merged(_summed(objects), self._as_a_whole(names, measured.split))}

    def _of_objects(self, names: list[str], slice_: Slice, narrow: bool) -> Values:
        return measure(self._reading, names, slice_, money=self._measured.money, objects=True, changed=narrow)

    def _as_a_whole(self, names: list[str], slice_: Slice) -> Values:
        wanted = [name for name in self._whole_parts if name in names]
        return measure(self._reading, wanted, slice_, money=self._measured.money) if wanted else {}

    # --- the records

    def _find_records(self, stages: Stages) -> None:
        """Find the records behind every object that changed, and count those of every cause."""
        records = " UNION ALL BY NAME ".join(_records_of(topic) for topic in stages.topics)
        stages.make("changed_records", records)
        counts = self._reading.rows("SELECT stage, count(*) FROM changed_records GROUP BY stage")
        self._found.counts = {CAUSES[stage - 1]: count for stage, count in counts}
        schema = {"stage": pl.Int64, "kind": pl.String, "id": pl.String}
        objects = pl.DataFrame(self._changed_objects(), schema=schema, orient="row").unique()
        with self._reading.given(changed_objects=objects):
            self._found.records = self._reading.frame(sql(__package__, "records"))

    def _changed_objects(self) -> list[tuple[int, str, str]]:
        """The stage, kind and id of each object that changed; of all objects if the metric has none."""
        if self._whole_parts:
            return self._reading.rows("SELECT DISTINCT stage, kind, object FROM changed_records")
        return [
            (stage_of(cause), *place.object)
            for cause, values in self._found.objects.items()
            for place in values
            if place.object is not None
        ]


def _records_of(topic: str) -> str:
    on, key = PROJECTED[topic], KEY_FIELD[topic]
    order = "order_id" if topic in (COUPON, ORDER) else "NULL::VARCHAR AS order_id"
    coupon = "coupon_id" if topic == COUPON else "NULL::VARCHAR AS coupon_id"
    return (
        f"SELECT stage, '{topic}' AS topic, '{key}' AS kind, {key} AS object, {coupon}, {order}, event_id, type,"
        f" occurred_at, recorded_at, log_partition, log_offset FROM {on.journal}_delivered WHERE stage IS NOT NULL"
    )


def _moved(before: Values, after: Values) -> Values:
    """By how much the parts changed, where they did. A part without a value counts as 0."""
    moved: Values = {}
    for place in dict.fromkeys((*before, *after)):
        old, new = before.get(place, {}), after.get(place, {})
        parts = {name: (new.get(name) or _NONE) - (old.get(name) or _NONE) for name in dict.fromkeys((*old, *new))}
        if changed := {name: value for name, value in parts.items() if value}:
            moved[place] = dict(changed)
    return moved


def _summed(values: Values) -> Values:
    """The sums over all objects."""
    sums: Values = {}
    for place, parts in values.items():
        whole = sums.setdefault(place._replace(object=None), {})
        for name, value in parts.items():
            whole[name] = (whole.get(name) or _NONE) + (value or _NONE)
    return sums


def _merged(one: Values, other: Values) -> Values:
    return {place: {**one.get(place, {}), **other.get(place, {})} for place in dict.fromkeys((*one, *other))}
