"""Makes the SQL that computes the metrics of one source.

Invariant: user input is passed only as bound parameters. The SQL text comes from metrics.toml or is computed from a
time zone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from coupon_ledger.questions.metrics.definitions import IN_TIME, Metric, Source
from coupon_ledger.questions.metrics.money import UNKNOWN
from coupon_ledger.questions.metrics.periods import Buckets, Zone

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Slice:
    """Which rows of a source to read, and how to group them. `since`, `until`: the period; None means no bound. `span`:
    a range that contains the instants of all these rows. `goods_rates`: the cost of goods by category, as returned by
    `money.goods_rates`."""

    by: tuple[str, ...]
    where: Mapping[str, Sequence[str]]
    since: datetime | None
    until: datetime | None
    span: tuple[datetime, datetime]
    zone: Zone
    buckets: Buckets | None
    goods_rates: Mapping[str, list[Any]] | None

    def fits(self, sums: Source) -> bool:
        """Whether the source `sums` of hourly sums can replace the single rows for this slice. It must have all
        dimensions of the slice, buckets must not be minutes, and the bounds of the period and the UTC offsets of the
        zone must be whole hours."""
        offsets = (offset for _, offset in self.zone.changes(*self.span))
        return (
            {*self.by, *self.where} <= {*sums.dimensions, *IN_TIME}
            and (self.buckets is None or self.buckets.grain != "minute")
            and not any(at.minute or at.second or at.microsecond for at in (self.since, self.until) if at)
            and not any(offset % _HOUR for offset in offsets)
        )


@dataclass(frozen=True)
class Statement:
    sql: str
    parameters: dict[str, Any]


def aggregates(source: Source, metrics: Sequence[Metric], slice_: Slice, *, money: bool) -> Statement:
    """The query for the values of these metrics, which must be computed from `source`: one row per slice and bucket
    that has rows. `money`: whether to group by currency, too."""
    keys = _keys(source, slice_, money=money)
    values = {m.name: _value(m) for m in metrics}
    written = {name: _written_out(source, sql) for name, sql in values.items()}
    relation, parameters = _relation(source, metrics, slice_, [*keys.values(), *written.values()])
    if source.once:
        relation, keys, written = _once(source, relation, keys, values)
    columns = [f"{sql} AS {name}" for name, sql in (keys | written).items()]
    grouped = "\nGROUP BY ALL" if keys else ""
    listed = ",\n       ".join(columns)
    sql = f"SELECT {listed}\n{relation}{grouped}"
    return Statement(sql, {name: value for name, value in parameters.items() if f"${name}" in sql})


def _once(
    source: Source, relation: str, keys: Mapping[str, str], values: Mapping[str, str]
) -> tuple[str, dict[str, str], dict[str, str]]:
    """For a source in which several rows can belong to one object (identified by the column `source.once`): wrap
    `relation` in a subquery that contains each object once per slice. Returns the new relation, and the SQL of the keys
    and values in terms of it."""
    text, alias = " ".join(values.values()), source.alias
    own = {str(source.once), *(f"{alias}.{column}" for column in re.findall(rf"\b{alias}\.(\w+)", text))}
    computed = {name: sql for name, sql in source.columns.items() if re.search(rf"\b{name}\b", text)}
    columns = sorted(own) + [f"{sql} AS {name}" for name, sql in (dict(keys) | computed).items()]
    query = f"SELECT DISTINCT {', '.join(columns)}\n{relation}"
    return f"FROM (\n{_indented(query)}\n) {alias}", {name: f"{alias}.{name}" for name in keys}, dict(values)


def rows(source: Source, metric: Metric, slice_: Slice, limit: int | None) -> Statement:
    """The query for the first `limit` rows, by time, from which a metric is computed. If `limit` is None, the query for
    the number of these rows."""
    relation, parameters = _relation(source, [metric], slice_, [])
    if limit is None:
        counted = f"DISTINCT {source.once}" if source.once else "*"
        return Statement(f"SELECT count({counted})\n{relation}", parameters)
    order = f"ORDER BY {source.at}, {source.shown[0]}" if source.at else f"ORDER BY {source.shown[0]}"
    distinct = "DISTINCT " if source.once else ""
    return Statement(f"SELECT {distinct}{', '.join(source.shown)}\n{relation}\n{order} LIMIT {limit:d}", parameters)


def _value(metric: Metric) -> str:
    sql = metric.sql
    if metric.empty == 0 and "CASE" not in metric.aggregate:
        sql = f"coalesce({sql}, 0)"
    return f"({sql})::{metric.whole_type if metric.whole else 'DOUBLE'}"


def _written_out(source: Source, sql: str) -> str:
    if not source.columns:
        return sql
    return re.sub(rf"\b({'|'.join(source.columns)})\b", lambda named: f"({source.columns[named[0]]})", sql)


def _keys(source: Source, slice_: Slice, *, money: bool) -> dict[str, str]:
    keys = {}
    if slice_.buckets is not None and source.at:
        keys["bucket"] = slice_.buckets.key_sql(source.at, *slice_.span)
    keys |= {name: _dimension(source, name, slice_) for name in slice_.by}
    return keys | ({"currency": _currency(source)} if money else {})


def _dimension(source: Source, name: str, slice_: Slice) -> str:
    if name not in IN_TIME:
        return _currency(source) if name == "currency" else source.dimensions[name]
    assert source.at is not None
    local = slice_.zone.local_sql(source.at, *slice_.span)
    return IN_TIME[name].replace("moment", local)


def _currency(source: Source) -> str:
    return f"coalesce({source.currency}, '{UNKNOWN}')"


def _relation(
    source: Source, metrics: Sequence[Metric], slice_: Slice, expressions: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """The FROM and WHERE clauses for the rows of the slice, and their query parameters. `expressions`: the SQL that
    will be selected, which determines the joins that are needed."""
    parameters: dict[str, Any] = {}
    conditions = [source.where] if source.where != "true" else []
    if source.at:
        conditions += [f"{source.at} >= $since"] if slice_.since else []
        conditions += [f"{source.at} < $until"] if slice_.until else []
        conditions += [] if slice_.since or slice_.until else [f"{source.at} IS NOT NULL"]
        parameters |= {name: at for name in ("since", "until") if (at := getattr(slice_, name))}
    for name, values in slice_.where.items():
        wanted = {f"{name}_{n}": value for n, value in enumerate(values)}
        parameters |= wanted
        dimension = _dimension(source, name, slice_)
        unknown = f" OR {dimension} IS NULL" if "" in values else ""
        dimension += "::VARCHAR" if name in IN_TIME else ""
        conditions.append(f"({dimension} IN ({', '.join(f'${n}' for n in wanted)}){unknown})")
    alternatives = list(dict.fromkeys(_written_out(source, m.rows) for m in metrics))
    if "true" not in alternatives:
        conditions.append(alternatives[0] if len(alternatives) == 1 else f"({' OR '.join(alternatives)})")
    joins = source.joined(*expressions, *conditions)
    lines = [f"FROM {source.from_}", *(source.joins[name] for name in joins)]
    if conditions:
        lines.append("WHERE " + "\n  AND ".join(conditions))
    relation = "\n".join(lines)
    if "$goods_rates" in relation + " ".join(expressions):
        parameters["goods_rates"] = slice_.goods_rates
    return relation, parameters


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
