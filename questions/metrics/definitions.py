"""The metrics, and the sources from which they are computed, loaded from `metrics.toml`.

Invariants: a formula names only metrics (and `minutes`). A join is listed after the joins that it needs. A money metric
is a sum, or a formula over sums, so it can be split by currency and converted.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from typing import Any, Final

from coupon_ledger.ledger.labels import Label, codes, in_words

IN_TIME: Final = {"weekday": "moment // 86400000000 % 7 + 1", "hour_of_day": "moment // 3600000000 % 24"}
"""Dimensions that every source with instants has. `moment`: local time in the zone, as made by `Zone.local_sql`."""
MINUTES: Final = "minutes"
"""The only name in a formula that is not a metric: the minutes of the bucket that have passed."""

_NAME: Final = re.compile(r"\b[a-z][a-z0-9_]*\b")


@dataclass(frozen=True, eq=False)
class Source:
    """A relation whose rows are aggregated to metrics. The fields are those of a source in metrics.toml, where `from_`
    is named `from`."""

    name: str
    grain: str
    view: str
    from_: str
    shown: tuple[str, ...]
    dimensions: Mapping[str, str]
    at: str | None = None
    where: str = "true"
    currency: str | None = None
    joins: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    once: str | None = None
    counts: str = ""

    @cached_property
    def alias(self) -> str:
        """The alias of the source's own table in its SQL."""
        return self.shown[0].partition(".")[0]

    def joined(self, *expressions: str) -> list[str]:
        """The names of the joins that these SQL expressions need, in the order of metrics.toml."""
        needed: set[str] = set()
        todo = list(expressions)
        while todo:
            expression = todo.pop()
            for name, join in self.joins.items():
                if name not in needed and re.search(rf"\b{name}\.", expression):
                    needed.add(name)
                    todo.append(join)
        return [name for name in self.joins if name in needed]


@dataclass(frozen=True)
class Metric:
    """A metric. It is computed either from a source, with `rows` and `aggregate`, or from other metrics, with
    `formula`. `base` is the formula expanded until it names only metrics that are computed from sources."""

    name: str
    english: str
    chinese: str
    unit: str
    meaning: str
    caveat: str
    grain: str
    view: str
    dimensions: tuple[str, ...]
    money: bool
    source: str | None = None
    rows: str = "true"
    aggregate: str = ""
    formula: str = ""
    base: str = ""
    parts: tuple[str, ...] = ()
    """The metrics over sources that it is computed from. A metric over a source is its own part."""
    synonyms: tuple[str, ...] = ()
    """Other words for the metric in questions in plain words."""

    @property
    def label(self) -> Label:
        return Label(self.english, self.chinese)

    @property
    def additive(self) -> bool:
        """Whether the metric's values for two disjoint slices can be added up."""
        return self.source is not None and "DISTINCT" not in self.aggregate and "quantile" not in self.aggregate

    def summed(self, counts: str) -> Metric | None:
        """The same metric, computed from a source of hourly sums. `counts`: the column of that source with the number
        of rows. None if the metric cannot be computed from sums."""
        return replace(self, aggregate=f"sum({counts})") if self.aggregate == "count(*)" else None

    @property
    def whole(self) -> bool:
        """Whether the metric's values are whole numbers."""
        return self.source is not None and "quantile" not in self.aggregate and "/" not in self.aggregate

    @property
    def whole_type(self) -> str:
        """The SQL type of the metric's values if they are whole numbers: HUGEINT for money, since sums may exceed 64
        bits, else BIGINT."""
        return "HUGEINT" if self.unit == "minor" else "BIGINT"

    @property
    def empty(self) -> int | None:
        """The metric's value if there are no rows. Usually 0. None (unknown) for quantiles, and for metrics of the
        current state: without a stock, the stock left is unknown, not 0."""
        unknown = "quantile" in self.aggregate or self.view == "now"
        return None if unknown else 0

    @property
    def sql(self) -> str:
        if self.formula:
            return self.formula
        return self.aggregate if self.rows == "true" else f"{self.aggregate} FILTER (WHERE {self.rows})"


def _sources(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[Source]:
    for name, entry in entries.items():
        shown = tuple(entry["shown"])
        yield Source(
            name=name, from_=entry["from"], **{n: v for n, v in entry.items() if n != "from"} | {"shown": shown}
        )


def _entries(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and definition of every metric in `data`. Each [[each]] entry is expanded to one metric per value."""
    labels = codes()
    for each in data["each"]:
        for value in each["values"]:
            written = {
                n: v.replace("{}", value).replace("{label}", labels[value].zh if value in labels else value)
                if isinstance(v, str)
                else v
                for n, v in each.items()
                if n != "values"
            }
            yield written.pop("name"), written
    yield from data["metrics"].items()


def _base(name: str, entry: Mapping[str, Any]) -> Metric:
    source = SOURCES[entry["source"]]
    own = [d for d in source.dimensions if d != "reason"] + entry.get("by", [])
    return Metric(
        name=name,
        **{
            n: v
            for n, v in entry.items()
            if n in ("chinese", "unit", "meaning", "caveat", "source", "rows", "aggregate")
        },
        english=entry.get("english", in_words(name)),
        grain=source.grain,
        view=source.view,
        dimensions=tuple(own + (list(IN_TIME) if source.at else [])),
        synonyms=tuple(entry.get("synonyms", ())),
        money=entry["unit"] == "minor",
        parts=(name,),
    )


def _formula(name: str, entry: Mapping[str, Any], of: Mapping[str, Metric]) -> Metric:
    named = [n for n in dict.fromkeys(_NAME.findall(entry["formula"])) if n in of]
    parts = [of[n] for n in named]
    common = [d for d in parts[0].dimensions if all(d in p.dimensions for p in parts)]
    allowed = entry.get("dimensions", [d for d in common if d not in entry.get("not_by", ())])
    written = _NAME.sub(lambda m: f"({of[m[0]].base})" if m[0] in of and of[m[0]].formula else m[0], entry["formula"])
    views = dict.fromkeys(p.view for p in parts)
    return Metric(
        name=name,
        **{n: v for n, v in entry.items() if n in ("chinese", "unit", "meaning", "caveat", "formula")},
        english=entry.get("english", in_words(name)),
        grain="; ".join(dict.fromkeys(of[part].grain for p in parts for part in p.parts)),
        view=" and ".join(views),
        dimensions=tuple(allowed),
        synonyms=tuple(entry.get("synonyms", ())),
        money=any(p.money for p in parts),
        base=written,
        parts=tuple(dict.fromkeys(part for p in parts for part in p.parts)),
    )


def _metrics(data: Mapping[str, Any]) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    entries = dict(_entries(data))
    for name, entry in entries.items():
        if "source" in entry:
            metrics[name] = _base(name, entry)
    left = {name: entry for name, entry in entries.items() if "formula" in entry}
    while left:
        ready = [n for n, g in left.items() if not set(_NAME.findall(g["formula"])) & left.keys()]
        for name in ready:
            metrics[name] = _formula(name, left.pop(name), metrics)
    return {name: metrics[name] for name in entries}


_DATA: Final = tomllib.loads(files(__package__).joinpath("metrics.toml").read_text(encoding="utf-8"))
SOURCES: Final = {source.name: source for source in _sources(_DATA["sources"])}
SUMS: Final = {source.name: source for source in _sources(_DATA["sums"])}
"""Sources of hourly sums, by the name of the source that each can replace."""
METRICS: Final = _metrics(_DATA)
DIMENSIONS: Final = tuple(dict.fromkeys(d for metric in METRICS.values() for d in metric.dimensions))
