"""`experiment`: plan how many people are needed, assign people to arms, and show what a campaign caused."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.appending import appending
from coupon_ledger.cli.asking import answered, rows_of
from coupon_ledger.cli.options import (
    LOG,
    goods_rate_option,
    instant_option,
    output_option,
    past_options,
    settings_options,
    zone_option,
)
from coupon_ledger.cli.output import cell, print_frames, print_row, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.ledger.amounts import decimals
from coupon_ledger.ledger.errors import NotAssigned, UnusableFile
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.questions.experiments.parameters import CONTROL, Experiment, Plan
from coupon_ledger.questions.parameters import about
from coupon_ledger.reports.columns import natural
from coupon_ledger.reports.experiment import COLUMNS, TITLES, columns_of, main_effects, without_notes
from coupon_ledger.reports.labels import figure, say, text_of
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    import polars as pl

    from coupon_ledger.questions.registry import Answer

SOURCE: Final = "experiment"
_BATCH: Final = 1_000


@click.group()
def experiment() -> None:
    """Measure what a campaign caused (增量效果): assign people to arms beforehand, and compare the arms afterwards.

    docs/experiments.md explains each number.

    \b
    coupon-ledger experiment plan --days 21 --lift 0.05
    coupon-ledger experiment assign double-11 --control 0.1 --dry-run
    coupon-ledger experiment arms double-11 --arm treatment --output csv
    coupon-ledger experiment show double-11
    """


# --- before the campaign


@experiment.command("assign")
@click.argument("campaign")
@click.option(
    "--users",
    "file",
    type=click.Path(allow_dash=True, path_type=Path),
    help="File of ids to assign, one per line, or - for standard input. [default: everyone in the ledger]",
)
@click.option(
    "--control", type=click.FloatRange(0, 1, True, True), default=0.1, show_default=True, help=about(Plan, "control")
)
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME=SHARE",
    help="A treatment and its share (repeatable). [default: `treatment`, with all but the control]",
)
@click.option(
    "--stratify", multiple=True, metavar="NAME", help="Keep the shares within each value of this profile attribute."
)
@click.option("--salt", help="Text that the hash includes: another salt is another draw. [default: the campaign]")
@zone_option()
@instant_option("--at", "When the people are assigned; it should be before the first coupon. By default: now.")
@click.option("--dry-run", is_flag=True, help="Show the arms' sizes; write nothing.")
@settings_options(*LOG, "database")
@output_option
def assign(
    campaign: str,
    file: Path | None,
    control: float,
    arms: tuple[str, ...],
    stratify: tuple[str, ...],
    salt: str | None,
    at: datetime | None,
    dry_run: bool,
    settings: Settings,
    output: str,
) -> None:
    """Assign people to the control or a treatment of CAMPAIGN by a salted hash, and append the assignments to the log.

    The same people, shares and salt give the same arms. A person with several linked ids counts once. People who are
    in an arm already stay in it. The command warns if the campaign has begun, since people assigned after the start do
    not count. It also records the share of each arm (`target_set`, metric share:ARM), to check the arms' sizes later.
    Run `consume` afterwards, and give coupons only to people in treatments (`experiment arms` lists them).

    \b
    coupon-ledger experiment assign double-11 --control 0.1 --dry-run
    coupon-ledger experiment assign double-11 --control 0.4 --arm face-5=0.3 --arm face-10=0.3 --stratify segment
    coupon-ledger experiment assign double-11 --users members.txt --salt 2026-11
    """
    shares = _shares(control, arms)
    strata = [name for names in stratify if names for name in names.split(",")]
    ids = _lines(file) if file is not None else None
    with answered(
        settings,
        output,
        "experiment-candidates",
        campaign=campaign,
        strata=strata,
    ) as answer:
        known = _whole(answer)
    chosen = known if ids is None else _chosen(known, ids)
    drawn = _drawn(chosen, shares, salt or campaign)
    at = at or datetime.now(UTC)
    if drawn.height:
        _warn_of_begun(settings, campaign, at)
    if not dry_run:
        _publish(settings, campaign, drawn, shares, at)
    _print_drawn(drawn, chosen, shares, output)
    if output == "table":
        dry = "{n:count} people would be assigned; nothing was written"
        wet = "{n:count} people assigned; run `consume` to see them"
        click.echo(say(dry if dry_run else wet, n=drawn.height), err=True)


_BEGUN: Final = (
    "campaign {campaign} has begun by {at:instant} ({signs}): `experiment show` leaves out who is assigned after the"
    " start or has a coupon already; assign before the campaign, or name with --at when they were assigned"
)


def _warn_of_begun(settings: Settings, campaign: str, at: datetime) -> None:
    with answered(settings, "none", "experiment-begun", campaign=campaign, until=at) as answer:
        signs = [f"{row['what']} since {cell(row['since'])}" for row in rows_of(answer)]
    if signs:
        warn(_BEGUN, campaign=campaign, at=at, signs=signs)


def _shares(control: float, arms: Sequence[str]) -> dict[str, float]:
    """The share of each arm, control included, by the arm's name. `arms`: the values of --arm, as NAME=SHARE. Raises
    click's errors if one is malformed or if the shares do not sum to one."""
    shares = {CONTROL: control}
    for one in arms or (f"treatment={1 - control}",):
        name, _, share_text = one.partition("=")
        try:
            share = float(share_text)
        except ValueError:
            share = 0.0
        if not name or name in shares or not 0 < share < 1:
            raise click.BadParameter(f"{one!r} is no new NAME=SHARE with a share between 0 and 1", param_hint="--arm")
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise click.UsageError(f"the shares of all arms, {CONTROL} included, sum to {sum(shares.values()):g}, not to 1")
    return shares


def _chosen(known: pl.DataFrame, ids: Sequence[str]) -> pl.DataFrame:
    """The people that the user named, one row each: person, stratum, and the person's arm if already assigned.

    `known`: all people in the ledger, with their `ids`. `ids`: the user ids that the user named. An id that is not in
    the ledger is a person of its own.
    """
    import polars as pl

    wanted = pl.DataFrame({"user_id": ids}, schema={"user_id": pl.String})
    owners = known.explode("ids", empty_as_null=True, keep_nulls=True).rename({"ids": "user_id"})
    people = wanted.join(owners, on="user_id", how="left", maintain_order="left")
    return people.select(
        pl.coalesce("person", "user_id").alias("person"), pl.col("stratum").fill_null("–"), "arm"
    ).unique("person", maintain_order=True)


def _lines(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UnusableFile(f"file {file}: cannot be read ({why}); give a text file with an id a line") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _drawn(chosen: pl.DataFrame, shares: Mapping[str, float], salt: str) -> pl.DataFrame:
    """The rows of `chosen` that had no arm yet, each with an arm drawn for it. `shares`: the share of each arm."""
    import polars as pl

    from coupon_ledger.analysis.draw import draw

    free = chosen.filter(pl.col("arm").is_null()).sort("person")
    arms = draw(free["person"].to_list(), free["stratum"].to_list(), shares, salt)
    return free.with_columns(arm=pl.Series(arms, dtype=pl.String))


def _publish(settings: Settings, campaign: str, drawn: pl.DataFrame, shares: Mapping[str, float], at: datetime) -> None:
    from coupon_ledger.ledger.publisher import Publisher

    with (
        appending(settings) as log,
        Publisher(log, batch_size=_BATCH) as publisher,
        progress("assigning", drawn.height) as bar,
    ):
        log.partitions()
        for number, event in enumerate(_events(campaign, drawn, shares, at), start=1):
            if not publisher.publish(event):
                refused = publisher.report.refused[-1]
                rules = "; ".join(map(str, refused.problems))
                raise click.UsageError(f"event {refused.event_id}: was refused ({rules}); mend the ids or the campaign")
            if number % _BATCH == 0:
                bar.advance(_BATCH)


def _events(campaign: str, drawn: pl.DataFrame, shares: Mapping[str, float], at: datetime) -> Iterator[Row]:
    """The events to append: first the share of each arm, then the assignment of each person in `drawn`. Event ids
    derive from the content, so appending the events again changes nothing."""
    common = {"topic": "campaign.events", "campaign_id": campaign, "source": SOURCE, "occurred_at": at}
    for arm, share in shares.items() if drawn.height else ():
        target = round(share * 10_000)
        yield common | {
            "type": "target_set",
            "event_id": _event_id("share", campaign, f"{arm}/{target}/{at.isoformat()}"),
            "metric": f"share:{arm}",
            "target": target,
        }
    for person, arm in drawn.select("person", "arm").iter_rows():
        yield common | {
            "type": "assigned",
            "event_id": _event_id("assigned", campaign, person),
            "user_id": person,
            "arm": arm,
        }


def _event_id(kind: str, campaign: str, what: str) -> str:
    return f"{kind}:{hashlib.sha256(b'%b/%b' % (campaign.encode(), what.encode())).hexdigest()[:32]}"


def _print_drawn(drawn: pl.DataFrame, chosen: pl.DataFrame, shares: Mapping[str, float], output: str) -> None:
    rows = []
    for stratum in sorted(set(chosen["stratum"])):
        mine, before = drawn.filter(stratum=stratum), chosen.filter(stratum=stratum)
        for arm, share in shares.items():
            rows.append(
                {
                    "stratum": stratum or "all",
                    "arm": arm,
                    "share": share,
                    "people": mine.filter(arm=arm).height,
                    "there_already": before.filter(arm=arm).height,
                }
            )
    print_rows(rows, output)


@experiment.command("arms")
@click.argument("campaign")
@click.option("--arm", help="Only this arm.")
@settings_options("database")
@output_option
def arms(campaign: str, arm: str | None, settings: Settings, output: str) -> None:
    """List who is in which arm of CAMPAIGN, to know who gets coupons and who does not.

    \b
    coupon-ledger experiment arms double-11 --arm face-10 --output csv
    """
    with answered(settings, output, "experiment-candidates", campaign=campaign) as answer:
        assigned = _whole(answer).drop_nulls("arm").select("arm", "person", "ids").sort("arm", "person")
        if not assigned.height:
            raise NotAssigned(
                f"campaign {campaign}: nobody is assigned to an arm; run `experiment assign`, then `consume`"
            )
    print_frames([assigned if arm is None else assigned.filter(arm=arm)], output)


@experiment.command("plan")
@click.option("--days", type=click.IntRange(1, 366), default=21, show_default=True, help=about(Plan, "days"))
@click.option(
    "--lift",
    "lift_share",
    type=click.FloatRange(-1, 1),
    default=0.05,
    show_default=True,
    help=about(Plan, "lift_share"),
)
@click.option("--people", type=click.IntRange(min=4), help=about(Plan, "people"))
@click.option(
    "--control", type=click.FloatRange(0, 1, True, True), default=0.5, show_default=True, help=about(Plan, "control")
)
@click.option("--treatments", type=click.IntRange(min=1), default=1, show_default=True, help=about(Plan, "treatments"))
@click.option("--power", type=float, default=0.8, show_default=True, help=about(Plan, "power"))
@click.option("--alpha", type=float, default=0.05, show_default=True, help=about(Plan, "alpha"))
@click.option(
    "--active-days", type=click.IntRange(min=1), default=90, show_default=True, help=about(Plan, "active_days")
)
@click.option("--mean", type=float, help="Mean per person, instead of past sales; with --sd.")
@click.option("--sd", type=float, help="Standard deviation between people; with --mean.")
@click.option(
    "--correlation",
    type=float,
    default=0.0,
    show_default=True,
    help="Correlation of what a person buys before and after; with --mean.",
)
@goods_rate_option
@click.option("--currency", help=about(Plan, "currency"))
@zone_option()
@instant_option("--until", about(Plan, "until"))
@settings_options("database")
@output_option
def plan(
    mean: float | None, sd: float | None, correlation: float, settings: Settings, output: str, **parameters: Any
) -> None:
    """Calculate before a campaign how many people it needs (样本量), and the smallest effect it can show.

    The calculation is based on what people bought in a past period of --days days, or on --mean and --sd.
    smallest_lift: the smallest effect, in margin per person; smallest_lift_share: the same as a share of the mean.
    people_needed: how many people all arms together need to show --lift. …_cuped: the same figures after adjusting for
    what people bought before the campaign.

    \b
    coupon-ledger experiment plan --days 21 --lift 0.05 --control 0.2
    coupon-ledger experiment plan --mean 7400 --sd 15000 --people 20000 --treatments 3
    """
    if (mean is None) != (sd is None):
        raise click.UsageError("--mean and --sd go together")
    if mean is None or sd is None:
        with answered(settings, output, "experiment-plan", **parameters) as answer:
            row = answer.row()
    else:
        row = _planned(mean, sd, correlation, parameters)
    _print_plan(row, output, None if mean is None else parameters["currency"])


def _planned(mean: float, sd: float, correlation: float, parameters: Mapping[str, Any]) -> Row:
    from coupon_ledger.analysis.power import Design
    from coupon_ledger.questions.experiments.experiments import planned

    if parameters["people"] is None:
        raise click.UsageError("--people is needed with --mean and --sd")
    design = Design(parameters["control"], parameters["treatments"], parameters["alpha"], parameters["power"])
    return planned(design, mean, sd, correlation, parameters["people"], parameters["lift_share"]).row(0, named=True)


def _print_plan(row: Row, output: str, currency: str | None) -> None:
    """Print the plan `row`. `currency`: the currency of --mean and --sd. None if the user named none, or if the plan is
    based on past sales; then the row states its currency. Amounts without a currency are printed as plain numbers."""
    warnings = row.pop("warnings", None) or []
    if output != "table":
        print_row(without_notes(row | {"warnings": warnings}), output)
        return
    said = {k: v for k, v in row.items() if v is not None}
    if "currency" not in row:
        for name in ("mean", "sd", "smallest_lift", "smallest_lift_cuped"):
            said[name] = figure("smallest_lift" if currency else "mean", row[name], currency)
    print_row(said, output)
    if row["people_needed"] is not None:
        click.echo()
        echo_wrapped(text_of(_plan_in_words(row, "")))
        if row["correlation"]:
            echo_wrapped(say("With CUPED: {plan}", plan=_plan_in_words(row, "_cuped")))
    _print_warnings(warnings)


def _plan_in_words(row: Row, variant: str) -> Note:
    return note(
        "{people:count} people can show a change of {smallest:percent} of the mean or more; to see {lift:percent},"
        " {needed:count} are needed",
        people=row["people"],
        smallest=row[f"smallest_lift_share{variant}"],
        lift=row["lift_share"],
        needed=row[f"people_needed{variant}"],
    )


# --- after the campaign


def _facts_options(command: Any) -> Any:
    """Add the options that `show`, `people` and `compare` share to `command`."""
    for option in (
        click.option(
            "--after", "after_days", type=click.IntRange(0, 366), default=7, show_default=True,
            help=about(Experiment, "after_days"),
        ),
        instant_option("--expiry", about(Experiment, "expiry")),
        instant_option("--start", about(Experiment, "start")),
        click.option("--currency", help=about(Experiment, "currency")),
        goods_rate_option,
    ):  # fmt: skip
        command = option(command)
    return command


_control_option = click.option(
    "--control-arm", default=CONTROL, show_default=True, help=about(Experiment, "control_arm")
)


@experiment.command("show")
@click.argument("campaign")
@_facts_options
@_control_option
@click.option("--shares", metavar="ARM=SHARE,…", help="Shares of the draw, if the ledger does not have them.")
@click.option("--by", metavar="NAME", help=about(Experiment, "by"))
@zone_option()
@past_options
@settings_options("database")
@output_option
def show(campaign: str, settings: Settings, output: str, **parameters: Any) -> None:
    """Show what CAMPAIGN caused (增量). All orders of all assigned people count, with or without a coupon.

    effect: the mean per person in the treatment minus that in the control. total_…: the effect on all people of the
    arm together. Methods: plain (Welch's t-test); cuped (adjusted for what people did before the campaign); winsorised
    (the largest and smallest 1% of the values are capped, so the effect is one on capped values); sequential (stays
    valid however often you look at the results). p_corrected: the p value, corrected for several treatments (Holm) or
    metrics (Benjamini-Hochberg). simultaneous_low, simultaneous_high: an interval that is valid for all treatments at
    once (Bonferroni); the conclusion in words states this interval. The table shows every method for the main metric.
    JSON, CSV and NDJSON (one row per effect) show all metrics.

    \b
    coupon-ledger experiment show double-11
    coupon-ledger experiment show double-11 --goods-rate 70 --goods-rate dairy=80 --by segment
    coupon-ledger experiment show double-11 --known-at 2026-12-01 --output json
    """
    with answered(settings, output, "experiment", campaign=campaign, **parameters) as answer:
        row = answer.row()
    if output == "json":
        print_row(without_notes(row), output)
    elif output != "table":
        print_rows(row["effects"], output)
    else:
        _print_experiment(row)


def _print_experiment(row: Row) -> None:
    sentences = [Note.loads(sentence) for sentence in row["conclusion_notes"]]
    for sentence in sorted(sentences, key=lambda sentence: natural(sentence.values["arm"])):
        echo_wrapped(text_of(sentence))
    click.echo()
    head = ("campaign_id", "name", "currency", "start", "expiry", "end", "people", "srm_p")
    print_row({name: row[name] for name in head if row[name] is not None}, "table")
    currency = row["currency"]
    shown = {name: row[name] for name in COLUMNS} | {"effects": main_effects(row["effects"])}
    for name, rows in shown.items():
        if rows:
            click.echo(f"\n{say(TITLES[name])}")
            printed = [{"metric": row["effects"][0]["metric"], **r} if name == "parts" else r for r in rows]
            print_rows(printed, "table", columns_of(name, rows), currency=currency)
    for curve in row["response"]:
        _print_response(curve, currency)
    _print_warnings(row["warnings"])


def _print_response(curve: Row, currency: str | None) -> None:
    click.echo(f"\n{say('Response to the face value')}")
    print_rows([{"metric": curve["metric"], **point} for point in curve["points"]], "table",
               ["face_value_minor", "mean", "error"], currency=currency)  # fmt: skip
    echo_wrapped(_response_in_words(curve, currency))


def _response_in_words(curve: Row, currency: str | None) -> str:
    """A sentence that says how much more of the metric there is per person for each major unit of face value. `curve`:
    the slope of a straight line through the arms, its interval, and the p value of its fit."""
    unit = 10 ** (decimals(currency) or 0)
    brought = {name: (curve[name] * unit, currency) for name in ("slope", "slope_low", "slope_high")}
    return say(
        "each {one:money} of face value goes with {slope:money} a person ({slope_low:money} to {slope_high:money};"
        " p of a straight line {fits:p})" if curve["unfit_p"] is not None else
        "each {one:money} of face value goes with {slope:money} a person ({slope_low:money} to {slope_high:money})",
        one=(unit, currency), fits=curve["unfit_p"], **brought,
    )  # fmt: skip


def _print_warnings(warnings: Sequence[Row]) -> None:
    if warnings:
        click.echo(f"\n{say('Warnings')}")
    for warning in warnings:
        echo_wrapped(f"- {text_of(Note.loads(warning['note']))}")


@experiment.command("people")
@click.argument("campaign")
@_facts_options
@_control_option
@zone_option()
@past_options
@settings_options("database")
@output_option
def people(campaign: str, settings: Settings, output: str, **parameters: Any) -> None:
    """List the people of CAMPAIGN's arms and what each of them bought. `show` computes its figures from these rows.

    order_ids: the person's orders that count. Orders that were cancelled or refunded in full do not count.

    \b
    coupon-ledger experiment people double-11 --output csv
    """
    with answered(settings, output, "experiment-people", campaign=campaign, **parameters) as answer:
        frames = answer.frames
        if output == "table":  # after refunds, like the net sales of reports
            frames = (frame.rename({"net_minor": "net_sales_minor"}) for frame in frames)
        print_frames(frames, output)


@experiment.command("compare")
@click.argument("campaign")
@click.option(
    "--method",
    type=click.Choice(["matched", "historical"]),
    default="matched",
    show_default=True,
    help="matched: with people who bought similarly before; historical: difference in differences.",
)
@_facts_options
@zone_option()
@past_options
@settings_options("database")
@output_option
def compare(campaign: str, settings: Settings, output: str, **parameters: Any) -> None:
    """Compare people who got CAMPAIGN's coupons with people who did not. Use this if nobody was assigned to arms; the
    evidence is weaker than that of `show`.

    The command makes the same comparison for a time before the campaign, when the true effect is zero (a placebo). It
    gives a reason instead of an effect in three cases: the placebo comparison finds an effect; too few people of the
    two groups are alike; or the ledger's orders do not go back far enough before the campaign (twice the length of the
    period that is compared).

    \b
    coupon-ledger experiment compare 8 --goods-rate 70
    coupon-ledger experiment compare 8 --method historical --goods-rate 70
    """
    with answered(settings, output, "experiment-comparison", campaign=campaign, **parameters) as answer:
        row = answer.row()
    if output != "table":
        print_row(without_notes(row), output)
        return
    warnings, sentence, _ = row.pop("warnings"), row.pop("conclusion_note"), row.pop("conclusion")
    echo_wrapped(text_of(Note.loads(sentence)))
    click.echo()
    print_row({k: v for k, v in row.items() if v is not None and k != "evidence"}, "table")
    _print_warnings(warnings)


def _whole(answer: Answer) -> pl.DataFrame:
    import polars as pl

    return pl.concat(answer.frames)
