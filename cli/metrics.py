"""`metrics`: list the operating metrics, show the definition of one, and query values for any slice and period."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.asking import answered, rows_of
from coupon_ledger.cli.options import (
    csv_rows,
    goods_rate_option,
    instant_option,
    output_option,
    past_options,
    settings_options,
    zone_option,
)
from coupon_ledger.cli.output import print_frames, print_row, print_rows
from coupon_ledger.cli.tables import warn
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.questions.metrics.parameters import Metrics
from coupon_ledger.questions.parameters import about
from coupon_ledger.reports.labels import label, say, text_of
from coupon_ledger.reports.parts import ADDS_NOTHING, one_currency
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.questions.metrics.definitions import Metric

# The same as in questions.metrics.periods, which is not imported here: `--help` would become slower.
_GRAINS: Final = ("minute", "hour", "day", "week", "month")
_COMPARISONS: Final = ("previous", "last-year", "target")
_EXPLAINED: Final = 20
_MARGINS: Final = ("coupon_margin_minor", "coupon_goods_cost_minor")
_WITHOUT_COST: Final = "coupon_orders_without_goods_cost"


@click.group()
def metrics() -> None:
    """List, explain and query the operating metrics: issued, claimed, used, rates, stock, sales, cost.

    docs/metrics.md describes each metric.

    \b
    coupon-ledger metrics list
    coupon-ledger metrics query claimed_events use_rate --by campaign --grain day --since 2026-11-01
    """


@metrics.command("list")
@click.option("--dimension", help="Only metrics with this dimension, for example store.")
@output_option
def list_metrics(dimension: str | None, output: str) -> None:
    """List the metrics: name, Chinese name, unit, view.

    The view says what a value counts. event: what happened in the period. cohort: what has happened until now to the
    coupons that started in the period. now: the current state, which belongs to no period.

    \b
    coupon-ledger metrics list
    coupon-ledger metrics list --dimension store
    """
    from coupon_ledger.questions.metrics.definitions import METRICS

    dimensions = sorted({name for metric in METRICS.values() for name in metric.dimensions})
    if dimension is not None and dimension not in dimensions:
        raise click.UsageError(
            f"--dimension {dimension}: there is none of that name; there are {', '.join(dimensions)}"
        )
    rows = [_row_of(m) for m in METRICS.values() if dimension is None or dimension in m.dimensions]
    shown = "name chinese unit view".split() if output == "table" else None
    print_rows(map(_in_words, rows) if output == "table" else rows, output, shown)


@metrics.command("show")
@click.argument("name")
@output_option
def show_metric(name: str, output: str) -> None:
    """Show what the metric NAME means: its definition, SQL, dimensions and caveat.

    \b
    coupon-ledger metrics show use_rate
    coupon-ledger metrics show simple_roi --output json
    """
    from coupon_ledger.questions.metrics.metrics import metric_named

    row = _row_of(metric_named(name))
    print_row(_in_words(row) if output == "table" else row, output)


def _in_words(row: Row) -> Row:
    """A metric's definition for people: meaning, caveat and grain in the reader's language. Names of metrics and
    dimensions stay as options take them; for a Chinese reader, the Chinese label comes before each."""
    said = dict(row)
    for name in ("meaning", "caveat"):
        said[name] = row[name] and text_of(Note(row[name], {}))
    said["grain"] = _grain(row["grain"])
    if view().chinese:
        for name in ("made_of", "dimensions"):
            said[name] = [f"{label(one)}({one})" for one in row[name]]
    return said


def _grain(grain: str) -> str:
    return ("；" if view().chinese else "; ").join(text_of(Note(one, {})) for one in grain.split("; "))


def _row_of(metric: Metric) -> Row:
    return {
        "name": metric.name,
        "chinese": metric.chinese,
        "unit": metric.unit,
        "view": metric.view,
        "grain": metric.grain,
        "meaning": metric.meaning,
        "caveat": metric.caveat,
        "sql": metric.sql,
        "source": metric.source,
        "made_of": list(metric.parts),
        "dimensions": list(metric.dimensions),
    }


@metrics.command("query")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--by", multiple=True, metavar="DIMENSION", help="A row per value of it (repeatable, or with commas).")
@click.option("--grain", type=click.Choice(_GRAINS), help=about(Metrics, "grain"))
@click.option(
    "--where",
    multiple=True,
    metavar="DIMENSION=VALUE",
    help="Only this value (repeatable; several of one dimension: any of them). Empty value: the dimension is unknown.",
)
@instant_option("--since", about(Metrics, "since"))
@instant_option("--until", about(Metrics, "until"))
@zone_option("Time zone of days, weeks and months.", exposed=True)
@click.option("--compare", type=click.Choice(_COMPARISONS), help=about(Metrics, "compare"))
@click.option(
    "--rates",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Convert amounts by this CSV of currency, rate, to. By default each currency has rows of its own.",
)
@goods_rate_option
@click.option("--explain", is_flag=True, help="Show the SQL, and the events, coupons or orders behind the numbers.")
@click.option("--limit", type=click.IntRange(min=1), default=_EXPLAINED, show_default=True, help="Rows with --explain.")
@past_options
@settings_options("database")
@output_option
def query(
    names: tuple[str, ...],
    by: tuple[str, ...],
    where: tuple[str, ...],
    rates: Path | None,
    explain: bool,
    limit: int,
    settings: Settings,
    output: str,
    **options: Any,
) -> None:
    """Show the values of metrics, per value of dimensions (--by) and per period (--grain).

    Dimensions: campaign, coupon_type, channel, segment, store, region, reason, weekday (1 is Monday), hour_of_day;
    `metrics show` lists those of one metric. A day, such as 2026-11-11 in --since, begins at midnight in the time zone
    of --zone. Amounts in different currencies are in separate rows, in machine formats in minor units. A rate with a
    denominator of 0 is shown as – (in machine formats: null). A row is marked open if late events may still change it.

    \b
    coupon-ledger metrics query claimed_events used_events use_rate --grain day --since 2026-11-01
    coupon-ledger metrics query coupon_gmv_minor simple_roi --by campaign --goods-rate 75 --since 2026-11-01
    coupon-ledger metrics query coupon_gmv_minor --by campaign --compare previous --since 2026-11-01
    coupon-ledger metrics query used_events --by weekday,hour_of_day --where campaign=8 --zone Europe/Berlin
    coupon-ledger metrics query cohort_use_rate --grain week --known-at 2026-11-12
    coupon-ledger metrics query coupon_gmv_minor --where store=s-1 --explain
    """
    parameters = {
        "names": [name for names_ in names for name in names_.split(",")],
        "by": [name for names_ in by if names_ for name in names_.split(",")],
        "where": filters(where) if where else None,
        **options,
    }
    if explain:
        if rates or parameters.pop("compare"):
            raise click.UsageError("--explain shows amounts as they were told; leave out --rates and --compare")
        explained(settings, output, parameters | {"limit": limit})
        return
    parameters["rates"] = _rates(rates) if rates else None
    with answered(settings, output, "metrics", **parameters) as answer:
        if output != "table":
            print_frames(answer.frames, output)
            _warn(settings, parameters)
            return
        rows = list(rows_of(answer))
        print_rows(_for_people(rows), output)
        if still := sum(row["open"] for row in rows) if parameters["grain"] else 0:
            click.echo(say("open: {n:count} row{n:s}; late events may still change them", n=still), err=True)
    _warn(settings, parameters)


def _warn(settings: Settings, parameters: dict[str, Any]) -> None:
    _warn_of_costs(settings, parameters)
    _warn_of_linked_ids(settings, parameters)


def _warn_of_linked_ids(settings: Settings, parameters: dict[str, Any]) -> None:
    """Warn if a requested metric counts users and some user ids belong to the same person. `parameters`: those of the
    question `metrics`."""
    from coupon_ledger.questions.metrics.definitions import METRICS

    if not any(METRICS[part].unit == "users" for name in parameters["names"] for part in METRICS[name].parts):
        return
    past = {name: parameters[name] for name in ("at", "known_at", "positions")}
    with answered(settings, "quiet", "linked", **past) as answer:
        linked = answer.row()
    if linked["ids"]:
        warn(
            "{ids:count} ids are linked to {users:count} users: users are counted per id, so a person with several ids"
            " counts once for each",
            **linked,
        )


def _warn_of_costs(settings: Settings, parameters: dict[str, Any]) -> None:
    """Warn if a requested metric is computed from margins or costs of goods and leaves out orders whose cost of goods
    is unknown. `parameters`: those of the question `metrics`."""
    from coupon_ledger.questions.metrics.definitions import METRICS

    if not any(part in _MARGINS for name in parameters["names"] for part in METRICS[name].parts):
        return
    of_all = parameters | {"names": [_WITHOUT_COST], "by": None, "grain": None, "compare": None, "rates": None}
    with answered(settings, "quiet", "metrics", **of_all) as answer:
        orders = answer.row()[_WITHOUT_COST]
    if orders:
        warn("{n:count} coupon order{n:s} {n:have} no known cost of goods: {adds_nothing}", n=orders,
             adds_nothing=note(ADDS_NOTHING))  # fmt: skip


def explained(settings: Settings, output: str, parameters: dict[str, Any]) -> None:
    """Print how metrics are computed: the SQL, and the events, coupons or orders that the SQL counts. `parameters`:
    those of the question `metric-explained`."""
    with answered(settings, output, "metric-explained", **parameters) as answer:
        parts = (
            {**r, "parameters": json.loads(r["parameters"]), "rows": json.loads(r["rows"])} for r in rows_of(answer)
        )
        if output != "table":
            print_rows(parts, output)
            return
        for part in parts:
            click.echo(f"{part['metric']} = {part['formula']}\n\n{part['part']}: {_grain(part['grain'])}\n")
            click.echo(part["sql"])
            click.echo("\n" + say("with {parameters}", parameters=json.dumps(part["parameters"], ensure_ascii=False)))
            click.echo(say("{n:count} row{n:s} behind it", n=part["found"]))
            print_rows(part["rows"], output) if part["rows"] else None
            click.echo()


def _for_people(rows: list[Row]) -> Iterator[Row]:
    """The answer's rows as the table shows them: without the columns `starts_at` and `data_clock`, and with `open` in
    words. `open` is left out if rows have no period."""
    hidden = {"starts_at", "data_clock"} | (set() if any("bucket" in row for row in rows[:1]) else {"open"})
    for row in one_currency(rows):
        yield {
            name: (say("open") if value else None) if name == "open" else value
            for name, value in row.items()
            if name not in hidden
        }


def filters(where: Iterable[str]) -> dict[str, list[str]]:
    filters: dict[str, list[str]] = {}
    for one in where:
        dimension, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"--where {one!r} has no value; write DIMENSION=VALUE, such as campaign=8")
        filters.setdefault(dimension, []).append(value)
    return filters


def _rates(file: Path) -> list[Row]:
    return [
        {name: row[name] for name in ("currency", "rate", "to")} for row in csv_rows(file, ("currency", "rate", "to"))
    ]
