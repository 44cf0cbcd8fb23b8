"""Questions to the database: `state`, `history`, `coupons`, `user`, `order`, `campaigns`, `violations`, `diff`,
`digest`, `dead-letters`. The file and the process that owns it give the same answers."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.asking import FIRST_ROWS, answered, rows_of
from coupon_ledger.cli.export import write_parquet
from coupon_ledger.cli.options import (
    dead_letter_options,
    duration_option,
    instant_option,
    limit_option,
    output_option,
    past_options,
    position_option,
    settings_options,
    timeout_option,
)
from coupon_ledger.cli.output import LIKE_ANY, Fit, limited, print_frames, print_row, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.amounts import percent_of_bp
from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.rules import CHOICES, STATES
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note
from coupon_ledger.questions.parameters import about
from coupon_ledger.questions.states.parameters import Coupons, Diff, Expiring, Violations
from coupon_ledger.reports.labels import codes_in_words, figure, in_words, label, label_of_texts, say, text_of, word
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from datetime import timedelta

    import polars as pl

    from coupon_ledger.questions.registry import Answer

SHOWN = 50
_CAMPAIGN_COLUMNS = (
    "campaign_id name status issued claimed used use_rate discount_minor currency violations coupons in_use"
)
LONG_ENDED_DAYS = 30


@click.command()
@click.argument("coupon")
@past_options
@settings_options("database")
@output_option
def state(coupon: str, settings: Settings, output: str, **past: Any) -> None:
    """Show where COUPON stands: its state, owner, order, values and instants.

    \b
    coupon-ledger state c-00000001
    coupon-ledger state c-00000001 --output json
    coupon-ledger state c-00000001 --at 2026-11-11T20:00:00+08:00 --known-at 2026-11-12
    coupon-ledger state c-00000001 --at-position coupon.events:2:75632
    """
    with answered(settings, output, "state", coupon=coupon, **past) as answer:
        print_row(answer.row(), output)


@click.command()
@click.argument("coupon")
@past_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
def history(coupon: str, limit: int | None, settings: Settings, output: str, **past: Any) -> None:
    """Show the events of COUPON in canonical order, the state before and after each, and what was wrong with it.

    With --limit only the last ones; it says how many are left out.

    \b
    coupon-ledger history c-00000001
    coupon-ledger history c-00000001 --limit 5
    coupon-ledger history c-00000001 --output ndjson
    coupon-ledger history c-00000001 --known-at 2026-11-12
    """
    at_most = limit or (SHOWN if output == "table" else None)
    with answered(settings, output, "history", coupon=coupon, limit=at_most, **past) as answer:
        rows = [{**row, "data": json.loads(row["data"])} for row in rows_of(answer)]
        numbers = [row.pop("number") for row in rows]
        [currency] = {row.pop("currency") for row in rows} or {None}
        if output != "table":
            print_rows(rows, output)
            return
        if numbers and numbers[0] > 1:
            left = numbers[0] - 1
            click.echo(say("{n:count} earlier event{n:s} {n:are} left out; --limit shows more", n=left), err=True)
        print_rows((_for_people(row, currency) for row in rows), output)
        for row in rows:
            for violation in row["violations"]:
                if violation == "conflicting_duplicate":
                    click.echo(say(_CONFLICT, violation=violation, event=row["event_id"]))


def _for_people(row: Row, currency: str | None) -> Row:
    """`currency`: the coupon's, for events without one."""
    data = in_words(row["data"], currency)
    return {
        "occurred_at": row["occurred_at"],
        "type": row["type"],
        "transition": f"{word(row['before'])} → {word(row['after'])}",
        "violations": _violations_in_words(row),
        "event_id": row["event_id"],
        "data": data,
    }


def _violations_in_words(row: Row) -> str | None:
    """Faults first, then superseded and explained violations."""
    excused = (*row["superseded"], *row["explained"])
    faults = [code for code in row["violations"] if code not in excused]
    parts = [codes_in_words(faults)] if faults else []
    parts += [say(_EXCUSED[name], codes=codes_in_words(row[name])) for name in _EXCUSED if row[name]]
    return ", ".join(parts) or None


_EXCUSED: Final = {"superseded": "superseded ({codes})", "explained": "explained ({codes})"}


@click.group(invoke_without_command=True)
@click.option("--count", is_flag=True, help="How many in each state instead of a list.")
@click.option("--campaign", help=about(Coupons, "campaign"))
@click.option("--state", type=click.Choice(STATES), help=about(Coupons, "state"))
@click.option("--owner", "--user", "owner", help=about(Coupons, "owner"))
@click.option("--type", "coupon_type", type=click.Choice(CHOICES["coupon_type"]), help=about(Coupons, "coupon_type"))
@click.option("--channel", help=about(Coupons, "channel"))
@click.option("--code", help=about(Coupons, "code"))
@instant_option("--since", about(Coupons, "since"))
@instant_option("--until", about(Coupons, "until"))
@click.option("--all", "everything", is_flag=True, help="In a table, those that ended long ago too.")
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.parquet",
    help="Write all of them, in no order, to this Parquet file instead; it is there when it is whole.",
)
@past_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
@click.pass_context
def coupons(
    context: click.Context,
    /,
    count: bool,
    everything: bool,
    to: Path | None,
    limit: int | None,
    settings: Settings,
    output: str,
    **filters: Any,
) -> None:
    """List coupons by id. The machine formats stream all of them.

    A table leaves out those that expired or were revoked more than 30 days before the data's clock, unless --all is
    given.

    \b
    coupon-ledger coupons --count
    coupon-ledger coupons --campaign 8 --state used
    coupon-ledger coupons --channel app --type cash --since 2026-11-11
    coupon-ledger coupons --code SAVE20
    coupon-ledger coupons --campaign 8 --count --at 2026-11-11T20:00:00+08:00
    coupon-ledger coupons --output ndjson > coupons.ndjson
    coupon-ledger coupons --at 2026-11-12 --to coupons.parquet
    coupon-ledger coupons expiring --within 3d
    """
    if context.invoked_subcommand is not None:
        return
    if to is not None:
        if count:
            raise click.UsageError("--to writes coupons, --count counts them; leave one out")
        _exported(settings, to, limit=limit, ordered=limit is not None, **filters)
        return
    if count:
        with answered(settings, output, "states", **filters) as answer:
            print_frames((frame.drop("long_ended") for frame in answer.frames), output)
        return
    shown = "coupon_id state campaign_id coupon_type owner order_id discount_minor last_event_at events violations"
    if output != "table" or everything:
        _listed(settings, output, limit, shown.split(), "coupons", **filters)
        return
    _listed(settings, output, limit, shown.split(), "coupons", ended_days=LONG_ENDED_DAYS, **filters)
    with answered(settings, "none", "states", ended_days=LONG_ENDED_DAYS, **filters) as answer:
        left_out = sum(row["long_ended"] for row in rows_of(answer))
    if left_out:
        click.echo(say(_LEFT_OUT, n=left_out, days=LONG_ENDED_DAYS), err=True)


def _exported(settings: Settings, to: Path, **parameters: Any) -> None:
    with answered(settings, "table", "coupons", **parameters) as answer:
        with progress("writing", None, "coupons") as bar:
            rows = write_parquet(answer, to, bar.advance)
        click.echo(say("{n:count} coupon{n:s} written to {file}", n=rows, file=str(to)))


@coupons.command("expiring")
@duration_option("--within", "How long before its end a coupon is listed, by the data's clock.", default="3d")
@click.option("--campaign", help=about(Coupons, "campaign"))
@click.option("--channel", help=about(Expiring, "channel"))
@limit_option(SHOWN)
@settings_options("database")
@output_option
def expiring(within: timedelta, limit: int | None, settings: Settings, output: str, **filters: Any) -> None:
    """List coupons that their owners should be reminded of: still usable, and over soon.

    \b
    coupon-ledger coupons expiring --within 3d
    coupon-ledger coupons expiring --within 12h --campaign 8 --output csv
    """
    shown = "valid_until owner coupon_id state campaign_id coupon_type face_value_minor percent_off_bp currency channel"
    _listed(settings, output, limit, shown.split(), "expiring", within_s=int(within.total_seconds()), **filters)


@click.command()
@click.argument("user")
@click.option("--person", is_flag=True, help="Also each id of the person, and the rules broken in their name.")
@past_options
@settings_options("database")
@output_option
def user(user: str, person: bool, settings: Settings, output: str, **past: Any) -> None:
    """Show the coupons of USER and of every id linked to it: usable now (by the data's clock), used, expired.

    With --person also what each id of the person has, and which rules were broken: over_person_limit counts all ids
    together, a wrong_user between two ids of one person is explained. CSV and NDJSON have a row per coupon.

    \b
    coupon-ledger user u-1
    coupon-ledger user u-1 --person
    coupon-ledger user u-1 --output json
    coupon-ledger user u-1 --at 2026-11-11
    """
    with answered(settings, output, "person" if person else "user", user=user, **past) as answer:
        row, lists = _with_lists(answer)
        if row["attributes"]:
            row["attributes"] = json.loads(row["attributes"])
        if output == "json":
            print_row(row | _plain_lists(row, lists), output)
        elif output != "table":
            print_frames([lists["coupons"]], output)
        else:
            more = len(row["linked"]) - SHOWN
            row["linked"] = row["linked"][:SHOWN]
            print_row(row, output)
            if more > 0:
                click.echo(say("{n:count} linked id{n:s} {n:are} left out; --output json shows all", n=more), err=True)
            shown = (
                "coupon_id standing state owner campaign_id coupon_type valid_until order_id discount_minor currency"
            )
            names = [name for name in shown.split() if name != "owner" or row["linked"]]
            coupons = lists["coupons"].select(names).to_dicts()
            _print_rows("coupons", coupons, fit=Fit(spare=("state",)))  # `standing` says more
            for name in ("ids", "violations") if person else ():
                _print_list(name, lists[name].head(SHOWN) if name == "ids" else lists[name])


@click.command()
@click.argument("order")
@past_options
@settings_options("database")
@output_option
def order(order: str, settings: Settings, output: str, **past: Any) -> None:
    """Show ORDER: its figures and discounts, the coupons it names or that name it, and what does not match.

    on_order: reserved for it or used on it now. named: among the order's coupon_ids. CSV and NDJSON have a row per
    coupon.

    \b
    coupon-ledger order o-1
    coupon-ledger order o-1 --output json
    coupon-ledger order o-1 --at 2026-11-11T20:00:00+08:00
    """
    with answered(settings, output, "order", order=order, **past) as answer:
        row, lists = _with_lists(answer)
        if output == "json":
            print_row(row | _plain_lists(row, lists), output)
        elif output != "table":
            print_frames([lists["coupons"]], output)
        else:
            coupons = lists["coupons"].to_dicts()
            own = _currencies(settings, [c for c in coupons if not row["currency"] or c["min_spend_minor"]], past)
            currency = row["currency"] or (next(iter(own.values())) if len(set(own.values())) == 1 else None)
            for coupon in coupons:  # a coupon's minimum spend is in its own currency
                if coupon["min_spend_minor"] is not None:
                    least = figure("min_spend_minor", coupon["min_spend_minor"], own.get(coupon["coupon_id"]))
                    coupon["min_spend_minor"] = least
            figures = {k: v for k, v in row.items() if k != "coupon_ids" and v is not None} | {"currency": currency}
            if view().columns is None and "coupon_discount_minor" in figures:  # by the order, not by the uses
                figures = {"order_says_minor" if k == "coupon_discount_minor" else k: v for k, v in figures.items()}
            print_row({k: v for k, v in figures.items() if v is not None}, output)
            for name in ("discounts", "lines"):
                _print_list(name, lists[name], currency)
            _print_rows("coupons", coupons, currency)
            _print_list("violations", lists["violations"])


def _currencies(settings: Settings, coupons: list[Row], past: dict[str, Any]) -> dict[str, str]:
    """The coupons' own currencies, if known."""
    found = {}
    for row in coupons[:SHOWN]:
        if row["state"] is not None:
            with answered(settings, "quiet", "state", coupon=row["coupon_id"], **past) as answer:
                found[row["coupon_id"]] = answer.row()["currency"]
    return {key: currency for key, currency in found.items() if currency}


@click.group(invoke_without_command=True)
@past_options
@settings_options("database")
@output_option
@click.pass_context
def campaigns(context: click.Context, /, settings: Settings, output: str, **past: Any) -> None:
    """List campaigns: how many coupons were issued, claimed, used, returned, expired, and the rates.

    Counts are of distinct coupons with such an event. claim_rate: claimed / issued to be claimed. use_rate: in use
    now / owned. violations: of rules of single coupons and of the campaign (stock, limits, windows); those
    between coupons and orders: `violations --scope cross`. discounts: what coupons in use took off, by
    currency; discount_minor: the same, empty where there are several currencies.

    \b
    coupon-ledger campaigns
    coupon-ledger campaigns --at 2026-11-11
    coupon-ledger campaigns show 8
    """
    if context.invoked_subcommand is not None and any(value is not None for value in past.values()):
        raise click.UsageError(
            f"--at, --known-at and --at-position of one campaign come after `{context.invoked_subcommand}`"
        )
    if context.invoked_subcommand is None:
        _whole(settings, output, _CAMPAIGN_COLUMNS, "campaigns", **past)


@campaigns.command("show")
@click.argument("campaign")
@past_options
@settings_options("database")
@output_option
def show_campaign(campaign: str, settings: Settings, output: str, **past: Any) -> None:
    """Show CAMPAIGN: its values, what is left of its stock, claims per minute, counts per state, which rules were
    broken (scope coupon: of single coupons; cross: of the campaign's stock, limits and windows; for those between
    coupons and orders see `violations --scope cross`), its rule versions with what
    each changed, and whether its account balances.

    stock_left: quantity less the coupons that were claimed or granted. CSV and NDJSON have one row.

    \b
    coupon-ledger campaigns show 8
    coupon-ledger campaigns show 8 --output json
    coupon-ledger campaigns show 8 --at 2026-11-11T20:00:00+08:00
    """
    with answered(settings, output, "campaign", campaign=campaign, **past) as answer:
        row, lists = _with_lists(answer)
        whole = row | _plain_lists(row, lists)
        for version in whole["versions"]:
            version["changed"] = json.loads(version["changed"])
        if output != "table":
            print_row(whole, output)
            return
        print_row({k: v for k, v in _campaign_in_words(row, whole["discounts"]).items() if v is not None}, output)
        for name in ("states", "broken"):
            _print_list(name, lists[name])
        versions = [{**v, "changed": in_words(_terms(v["changed"]), row["currency"])} for v in whole["versions"]]
        click.echo("\n" + label("versions"))
        print_rows(versions, output, fit=Fit(wrap="changed"))
        held = [
            {**r, "statement": text_of(Note(r["statement"], {})), "ok": "ok" if r["ok"] else "BROKEN"}
            for r in whole["conservation"]
        ]
        click.echo("\n" + label("conservation"))
        print_rows(held, output, fit=Fit(wrap="statement"))
        click.echo(say(_WITHOUT_ORDERS, campaign=campaign), err=True)


def _campaign_in_words(row: Row, discounts: list[Row]) -> Row:
    """The campaign's terms in words, and its discount in the discount's own currency, which may differ from the
    campaign's."""
    taken = [figure("discount_minor", d["discount_minor"], d["currency"]) for d in discounts]
    return _terms(row) | {"discount_minor": taken or row["discount_minor"]}


def _terms(terms: Row) -> Row:
    """The campaign's values: JSON in words, instants as instants."""
    said = dict(terms)
    if funders := _json(said.get("funded_by")):
        said["funded_by"] = [f"{word(who)} {percent_of_bp(bp)}" for who, bp in funders.items()]
    if goods := _json(said.get("applies_to")):
        said["applies_to"] = word(goods) if isinstance(goods, str) else goods
    for name in ("claim_from", "claim_until"):
        if isinstance(value := said.get(name), str):
            said[name] = datetime.fromisoformat(value.removesuffix("Z"))
    return said


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


@click.command()
@click.option("--coupon", "coupon_id", help=about(Violations, "coupon"))
@click.option(
    "--code",
    "violation",
    callback=lambda _ctx, option, value: _rule(value, option),
    help=about(Violations, "violation"),
)
@click.option(
    "--scope",
    type=click.Choice(["coupon", "cross"]),
    help=about(Violations, "scope"),
)
@instant_option("--since", about(Violations, "since"))
@instant_option("--until", about(Violations, "until"))
@click.option("--count", is_flag=True, help="How many of each instead of a list.")
@past_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
def violations(
    coupon_id: str | None,
    violation: str | None,
    scope: str | None,
    since: datetime | None,
    until: datetime | None,
    count: bool,
    limit: int | None,
    settings: Settings,
    output: str,
    **past: Any,
) -> None:
    """List broken rules by time: which event, which rule, in which state it found the coupon.

    Scope coupon: of one coupon's own events. Scope cross: stock, limits and windows of its campaign, and what coupons
    and orders say of each other (counterpart: the other side). Superseded: an event of a sweep (`expire`) that a fact
    told later overtook; no fault.

    \b
    coupon-ledger violations --count
    coupon-ledger violations --scope cross
    coupon-ledger violations --scope coupon --known-at 2026-11-12
    coupon-ledger violations --code used_when_used --output csv
    """
    filters = {"coupon": coupon_id, "violation": violation, "scope": scope, "since": since, "until": until, **past}
    if count:
        _whole(settings, output, None, "violation-counts", **filters)
        return
    shown = "occurred_at key event_id violation state scope counterpart explained provisional superseded".split()
    _listed(settings, output, limit, shown, "violations", **filters)


@click.command()
@instant_option("--from", about(Diff, "from_at"), cut=True)
@instant_option("--to", about(Diff, "to_at"), cut=True)
@instant_option("--known-from", about(Diff, "known_from"), cut=True)
@instant_option("--known-to", about(Diff, "known_to"), cut=True)
@position_option("--from-position", "from_positions", about(Diff, "from_positions"))
@position_option("--to-position", "to_positions", about(Diff, "to_positions"))
@click.option("--campaign", help=about(Coupons, "campaign"))
@timeout_option
@settings_options("database")
@output_option
def diff(campaign: str | None, settings: Settings, output: str, **bounds: Any) -> None:
    """List the coupons that events came to between two instants: their state before and after, what else changed, and
    the events.

    --from, --to: of business time. --known-from, --known-to: of recording, for what was learned in between, however
    late. --from-position, --to-position: of the log. Several together: between the two states that they describe.

    \b
    coupon-ledger diff --from 2026-11-11 --to 2026-11-12 --campaign 8
    coupon-ledger diff --from 2026-11-12 --to 2026-11-12 --known-from 2026-11-12 --known-to 2026-11-13
    coupon-ledger diff --from-position yesterday.json
    """
    given = {"from_at": bounds.pop("from"), "to_at": bounds.pop("to"), **bounds}
    with answered(settings, output, "diff", campaign=campaign, **given) as answer:
        if output in ("ndjson", "csv"):
            print_frames(answer.frames, output)
            return
        rows = ({**row, "changed": json.loads(row["changed"])} for row in rows_of(answer))
        print_rows(rows if output == "json" else map(_difference, rows), output)


def _difference(row: Row) -> Row:
    events = zip(row["types"], row["event_ids"], strict=True)
    return {
        "coupon_id": row["coupon_id"],
        "campaign_id": row["campaign_id"],
        "transition": f"{word(row['before'] or 'not_there')} → {word(row['after'])}",
        "changed": ", ".join(
            f"{label(n)} {figure(n, old)} → {figure(n, new)}" for n, (old, new) in row["changed"].items()
        ),
        "events": ", ".join(f"{word(kind)} {event_id}" for kind, event_id in events),
    }


@click.command()
@settings_options("database")
@output_option
def digest(settings: Settings, output: str) -> None:
    """Show the digests of all tables.

    facts: equal for the same facts, whatever their arrival, batches, repeats or log. full: every column, equal for
    the same log up to the same positions.

    \b
    coupon-ledger digest
    """
    _whole(settings, output, None, "digest")


@click.group("dead-letters")
def dead_letters() -> None:
    """Records of the log that were not folded: undecodable bytes, unknown schemas, events that break the rules.

    \b
    coupon-ledger dead-letters list
    """


@dead_letters.command("list")
@dead_letter_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
def list_dead_letters(limit: int | None, settings: Settings, output: str, **chosen: Any) -> None:
    """List dead letters with position and reason; those that were discarded only with --all.

    \b
    coupon-ledger dead-letters list
    coupon-ledger dead-letters list --reason unknown_schema --since 1d
    coupon-ledger dead-letters list --all --output ndjson
    """
    shown = "topic partition offset recorded_at reason detail bytes".split()
    if chosen["settled"]:
        shown += ["discarded_by", "discarded_because"]
    _listed(settings, output, limit, shown, "dead-letters", **chosen)


@dead_letters.command("show")
@click.argument("topic")
@click.argument("partition", type=int)
@click.argument("offset", type=int)
@click.option("--raw", is_flag=True, help="Write the record's value as it was to standard output.")
@settings_options("database")
@output_option
def show_dead_letter(topic: str, partition: int, offset: int, raw: bool, settings: Settings, output: str) -> None:
    """Show one dead letter with its bytes (in hexadecimal).

    \b
    coupon-ledger dead-letters show coupon.events 2 75632
    coupon-ledger dead-letters show coupon.events 2 75632 --raw > record.bin
    """
    place = {"topic": topic, "partition": partition, "offset": offset}
    with answered(settings, "raw" if raw else output, "dead-letter", **place) as answer:
        found = answer.row()
        if raw:
            sys.stdout.buffer.write(found["value"])
        else:
            print_row(found, output)


def print_totals(settings: Settings, output: str, **past: Any) -> None:
    with answered(settings, output, "totals", **past) as answer:
        row, lists = _with_lists(answer)
        if output != "table":
            print_row(row | _plain_lists(row, lists), output)
            return
        print_row(row, output)
        for name in ("states", "broken"):
            _print_list(name, lists[name])


_WITHOUT_ORDERS: Final = (
    "violations: of the coupons' own events and of the campaign's rules; `coupon-ledger review {campaign} --section"
    " anomalies` shows those between coupons and orders too"
)
_CONFLICT: Final = "{violation:word}: another content came under the id {event}; it is not folded"
_LEFT_OUT: Final = "{n:count} that ended more than {days} days before are left out; --all lists them"


def _whole(settings: Settings, output: str, shown: str | None, question: str, **parameters: Any) -> None:
    """Print all rows; a table shows only the columns in `shown`."""
    with answered(settings, output, question, **parameters) as answer:
        print_frames(answer.frames, output, shown.split() if shown and output == "table" else None)


def _rule(value: str | None, option: click.Parameter) -> str | None:
    """Refuse an unknown rule: an empty list would look like good news."""
    from coupon_ledger.ledger.rules import VIOLATIONS

    if value is None or value in VIOLATIONS:
        return value
    like = alike([value], VIOLATIONS)
    meant = f"did you mean {' or '.join(like)}? " if like else ""
    raise click.BadParameter(
        f"{value!r} is no rule; {meant}`coupon-ledger violations --count` lists the rules that were broken",
        None,
        option,
    )


def _listed(
    settings: Settings,
    output: str,
    limit: int | None,
    shown: list[str] | None,
    question: str,
    **parameters: Any,
) -> None:
    """Print a list; a table is limited to the first rows and to the columns that matter most."""
    at_most = limit or SHOWN
    asked = at_most + 1 if output == "table" else limit
    with answered(settings, output, question, limit=asked, **parameters) as answer:
        if output != "table":
            print_frames(answer.frames, output)
            return
        rows, more = limited(rows_of(answer), at_most)
        print_rows(rows, output, shown)
        if more:
            click.echo(say(FIRST_ROWS, n=at_most), err=True)


def _with_lists(answer: Answer) -> tuple[Row, dict[str, pl.DataFrame]]:
    """Split a one-row answer into its plain values and its lists of structs, as tables. A null list is both a plain
    null and an empty table; so null (no list) differs from an empty list."""
    import polars as pl

    frame = next(answer.frames)
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List) and dtype.inner == pl.Struct]
    tables = {}
    for name in lists:
        rows = frame[name][0]
        empty = pl.Series(name, [], dtype=frame.schema[name].inner)  # type: ignore[attr-defined]
        tables[name] = (empty if rows is None else rows).struct.unnest()
    nulls = {name: None for name in lists if frame[name][0] is None}
    return frame.drop(lists).row(0, named=True) | nulls, tables


def _plain_lists(row: Row, lists: dict[str, pl.DataFrame]) -> dict[str, list[Row]]:
    """The lists that are not null."""
    return {name: table.to_dicts() for name, table in lists.items() if name not in row}


def _print_list(title: str, table: pl.DataFrame, currency: str | None = None) -> None:
    """`currency`: of amounts whose row names none."""
    _print_rows(title, table.to_dicts(), currency)


def _print_rows(title: str, rows: list[Row], currency: str | None = None, fit: Fit = LIKE_ANY) -> None:
    if rows:
        click.echo("\n" + label_of_texts(title))
        print_rows(rows, "table", currency=currency, fit=fit)
