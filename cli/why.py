"""`why`: why a number changed, between two states of knowledge or between two periods."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any, Final

import click

from coupon_ledger.cli.asking import answered, rows_of
from coupon_ledger.cli.metrics import filters
from coupon_ledger.cli.options import (
    LOG,
    MICROSECOND,
    goods_rate_option,
    instant_option,
    output_option,
    position_option,
    settings_options,
    timeout_option,
    zone_option,
)
from coupon_ledger.cli.output import print_rows
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.questions.changes.parameters import ChangeExplained
from coupon_ledger.questions.parameters import about
from coupon_ledger.reports.labels import say, text_of
from coupon_ledger.reports.text import Row

# The same as in questions.changes.periods, which is not imported here: `--help` would become slower.
_COMPARISONS: Final = ("day", "week", "month", "year")
_HIDDEN: Final = ("exact",)


@click.command()
@click.argument("metric")
@click.option(
    "--where",
    multiple=True,
    metavar="DIMENSION=VALUE",
    help="Only this value (repeatable; several of one dimension: any of them). Empty value: the dimension is unknown.",
)
@click.option("--by", metavar="DIMENSION", help=about(ChangeExplained, "by"))
@instant_option("--since", about(ChangeExplained, "since"))
@instant_option("--until", about(ChangeExplained, "until"))
@zone_option("Time zone of days, weeks and months.", exposed=True)
@instant_option("--known-at-before", about(ChangeExplained, "known_at_before"), cut=True)
@instant_option("--known-at-after", about(ChangeExplained, "known_at_after"), cut=True)
@instant_option("--at-before", about(ChangeExplained, "at_before"), cut=True)
@instant_option("--at-after", about(ChangeExplained, "at_after"), cut=True)
@position_option("--position-before", "positions_before", about(ChangeExplained, "positions_before"))
@position_option("--position-after", "positions_after", about(ChangeExplained, "positions_after"))
@click.option("--compare", type=click.Choice(_COMPARISONS), help=about(ChangeExplained, "compare"))
@instant_option("--before-since", about(ChangeExplained, "before_since"))
@instant_option("--before-until", about(ChangeExplained, "before_until"))
@goods_rate_option
@click.option(
    "--replays",
    is_flag=True,
    help="Read from the log which dead letters were replayed after --known-at-before; the earlier state lacks them.",
)
@click.option("--explain", metavar="CAUSE", help=about(ChangeExplained, "explain"))
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Rows with --explain.")
@timeout_option
@settings_options(*LOG, "database")
@output_option
def why(metric: str, where: tuple[str, ...], replays: bool, settings: Settings, output: str, **options: Any) -> None:
    """Show why METRIC changed: between two states of knowledge of a period, or between two periods.

    The first rows are the number before, after, and the change. The rows below are the causes; they add up to the
    change exactly. Between two states (--known-at-before, --at-before, --position-before), a cause is a group of
    records that only one of the states has: late_… had happened by the earlier state but was recorded after it, new_…
    happened since. Between two periods (--compare, or --before-since and --before-until), the causes are volume, mix
    and the rates of the funnel. docs/why.md explains the arithmetic.

    --explain CAUSE lists the coupons, orders or campaigns behind a cause, with their events. Between two periods, write
    the metric of a row instead of a cause.

    \b
    coupon-ledger why gmv_minor --since 2026-11-11 --until 2026-11-12 --known-at-before 2026-11-12
    coupon-ledger why gmv_minor --since 2026-11-11 --until 2026-11-12 --known-at-before 2026-11-12 \\
      --explain late_refunds
    coupon-ledger why use_rate --by channel --since 2026-11-09 --until 2026-11-16 --compare week
    coupon-ledger why discount_cost_minor --where campaign=8 --since 2026-11-11 --until 2026-11-12 --compare year
    """
    parameters = {"metric": metric, "where": filters(where) if where else None, **options}
    if replays:
        parameters["replayed"] = _replayed(settings, options["known_at_before"], options["known_at_after"])
    with answered(settings, output, "change-explained", **parameters) as answer:
        rows = list(rows_of(answer))
    if output != "table":
        print_rows(rows, output)
        return
    if parameters["explain"] is not None:
        print_rows([_shown(row, "found") for row in rows], output)
        if rows and rows[0]["found"] > len(rows):
            click.echo(say(_MORE, n=rows[0]["found"], shown=len(rows)), err=True)
        return
    for sentence in _headlines(rows, metric, _since(options)):
        click.echo(text_of(sentence) + "\n")
    print_rows([_shown(row, *_empty(rows)) for row in rows], output)
    if codes := [row["cause"] for row in rows if row["events"]]:
        click.echo(say(_BEHIND, codes=list(dict.fromkeys(codes))), err=True)


_MORE: Final = "{n:count} in all, of these {shown:count} are shown; --limit shows more"
_BEHIND: Final = "what is behind a cause: --explain with {codes}"


def _headlines(rows: list[Row], metric: str, since: Note) -> Iterator[Note]:
    from coupon_ledger.questions.metrics.definitions import METRICS
    from coupon_ledger.reports.why import headline

    for _, mine in groupby(rows, lambda row: row.get("currency")):
        yield headline(list(mine), metric, METRICS[metric].unit, since)


def _since(options: dict[str, Any]) -> Note:
    if options["known_at_before"] is not None:
        return note("since what was known at {at:instant}", at=_end(options["known_at_before"]))
    if options["at_before"] is not None:
        return note("since what had happened by {at:instant}", at=_end(options["at_before"]))
    if options["positions_before"] is not None:
        return note("since the earlier log positions")
    return note("against the earlier period")


def _end(cut: datetime) -> datetime:
    """The end of a cut as people write it: a day's cut is the last microsecond before it."""
    return cut + MICROSECOND if cut.microsecond == 999_999 else cut


def _empty(rows: list[Row]) -> list[str]:
    """The columns without any value; between two periods, no line has events."""
    return [name for name in ("events", "metric", "share") if all(row.get(name) is None for row in rows)]


def _shown(row: Row, *hidden: str) -> Row:
    return {name: value for name, value in row.items() if name not in (*_HIDDEN, *hidden)}


def _replayed(settings: Settings, since: datetime | None, until: datetime | None) -> list[str]:
    """The dead letters that were replayed after `since` and up to `until` (None: until now), as the question takes
    them."""
    from coupon_ledger.consumers.replay import REPLAYED
    from coupon_ledger.ledger import operations
    from coupon_ledger.ledger.opening import open_log

    if since is None:
        raise click.UsageError("--replays: since when is not said; give --known-at-before")
    log = open_log(settings.log)
    try:
        done = [one for one in operations.read(log) if one.operation.action == REPLAYED]
    finally:
        log.close()
    spans: list[Any] = []
    for one in done:
        if since < one.recorded_at and (until is None or one.recorded_at <= until):
            spans += (one.operation.details or {}).get("positions") or []  # type: ignore[arg-type]
    return [f"{topic}:{partition}:{first}-{last}" for topic, partition, first, last in spans]
