"""`dead-letters export`, `dead-letters replay` and `dead-letters discard`: repairs by operators. `operations`: the list
of what operators did."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from coupon_ledger.cli.asking import FIRST_ROWS, answered, rows_of
from coupon_ledger.cli.dead_letters import dead_letters
from coupon_ledger.cli.lists import SHOWN
from coupon_ledger.cli.options import (
    LOG,
    dead_letter_options,
    instant_option,
    limit_option,
    operator_options,
    output_option,
    settings_options,
    signed,
)
from coupon_ledger.cli.output import limited, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.settings import LogSettings, Settings
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["dead_letters", "operations"]


@dead_letters.command("export")
@click.argument("file", required=False, default="-", type=click.Path(allow_dash=True, path_type=Path))
@dead_letter_options
@settings_options("database", "schema-registry")
def export(file: Path, settings: Settings, **chosen: Any) -> None:
    """Write dead letters to FILE, or to standard output, as NDJSON: one record per line.

    A line has the record's position, the reason, the key and the value in base64, and what can be decoded: the schema,
    and the fields before the broken one.

    \b
    coupon-ledger dead-letters export broken.ndjson
    coupon-ledger dead-letters export --reason invalid_event | jq .read
    """
    with answered(settings, "none", "dead-letters", whole=True, **chosen) as answer, _written(file) as out:
        count = 0
        with progress("exporting", None) as bar:
            for row in rows_of(answer):
                out.write(json.dumps(plain(_exported(row, settings.log)), ensure_ascii=False) + "\n")
                count += 1
                bar.advance(1)
    click.echo(say("exported {n:count} dead letter{n:s}", n=count), err=True)


def _exported(row: Row, log: LogSettings) -> Row:
    from coupon_ledger.ledger.codec import decode_some
    from coupon_ledger.ledger.registry_log import single_object

    key, value = row.pop("key"), row.pop("value")
    writer, fields = decode_some(single_object(value, log))
    contents = {
        "key": b64encode(key).decode(),
        "value": b64encode(value).decode(),
        "key_text": key.decode("utf-8", "backslashreplace"),
        "schema": f"{writer.name} v{writer.version}" if writer else None,
        "read": {name: field for name, field in fields.items() if field is not None},
    }
    return row | contents


def _written(file: Path) -> Any:
    if str(file) == "-":
        return nullcontext(sys.stdout)
    try:
        opened: TextIO = file.open("w", encoding="utf-8")
    except OSError as error:
        raise UnusableFile(f"file {file}: cannot be written ({error.strerror}); name another") from error
    return opened


@dead_letters.command("replay")
@dead_letter_options
@click.option("--dry-run", is_flag=True, help="Show the outcome; write nothing.")
@operator_options
@settings_options(*LOG, "database")
@output_option
def replay(
    dry_run: bool, why: str | None, operator: str | None, settings: Settings, output: str, **chosen: Any
) -> None:
    """Decode dead letters again after a schema or the ledger was fixed, and fold them at their original position.

    By default all open dead letters are replayed; options select some of them. The tables become the same as after a
    rebuild: each record counts at its position and recording time. Records that still cannot be folded stay dead
    letters, with the current reason. The command can be killed and run again; nothing is counted twice. While `consume
    --follow` owns the database, that process replays the dead letters between its batches. It must already run the
    release with the fix.

    applied, repeats, conflicts, dead_letters: by how much these numbers of the partition's account change.

    \b
    coupon-ledger dead-letters replay --dry-run
    coupon-ledger dead-letters replay --reason unknown_schema --why "schema v2 is deployed"
    """
    by = ("", "") if dry_run else signed(why, operator)
    rows = _repaired(settings, "replay", dry_run, by, chosen)
    print_rows(rows, output)
    tried = sum(row["records"] for row in rows)
    dead = sum(row["dead_letters"] for row in rows)
    would = "{n:count} of {tried:count} dead letter{tried:s} would be folded; {dead:count} would stay"
    were = "{n:count} of {tried:count} dead letter{tried:s} folded; {dead:count} left"
    click.echo(say(would if dry_run else were, n=tried - dead, tried=tried, dead=dead), err=True)


@dead_letters.command("discard")
@dead_letter_options
@click.option("--dry-run", is_flag=True, help="Show which would be discarded; write nothing.")
@operator_options
@settings_options(*LOG, "database")
@output_option
def discard(
    dry_run: bool, why: str | None, operator: str | None, settings: Settings, output: str, **chosen: Any
) -> None:
    """Close dead letters that need no further attention. Options select them; the operator and the reason are
    recorded.

    Closed dead letters no longer appear in `dead-letters list` (except with `--all`) or among the open ones that
    `status` counts. Nothing is deleted: the bytes stay, and after a rebuild the same dead letters are closed.

    \b
    coupon-ledger dead-letters discard --reason undecodable --until 2026-11-11 --why "load test on the wrong topic"
    coupon-ledger dead-letters discard --topic coupon.events --partition 2 --offset 75632 --why "sent by hand"
    """
    if chosen.pop("settled"):
        raise click.UsageError("--all: what was discarded is settled already")
    if all(value is None for value in chosen.values()):
        raise click.UsageError("name which: --topic, --partition, --offset, --reason, --since, --until")
    by = ("", "") if dry_run else signed(why, operator)
    print_rows(_repaired(settings, "discard", dry_run, by, chosen), output)


def _repaired(settings: Settings, action: str, dry_run: bool, by: tuple[str, str], chosen: dict[str, Any]) -> list[Row]:
    """Ask the owner to replay or discard dead letters; if nobody owns the database, do it in this process. Returns the
    rows that the command prints. `action`: `replay` or `discard`; `by`: the operator and the reason; `chosen`: the
    values of the options that choose dead letters."""
    from coupon_ledger.api.client import Remote, asking

    with asking(settings.database) as source:
        if isinstance(source, Remote):
            arguments = {"operator": by[0], "why": by[1], "dry_run": dry_run, **chosen}
            if action == "discard":
                return source.discard(**arguments)
            with progress("replaying", 0, "dead letters") as bar:
                return source.replay(bar.update, **arguments)
    return _repaired_here(settings, action, dry_run, by, chosen)


def _repaired_here(
    settings: Settings, action: str, dry_run: bool, by: tuple[str, str], chosen: dict[str, Any]
) -> list[Row]:
    from coupon_ledger.consumers import log_identity
    from coupon_ledger.consumers.discards import Signed, discard
    from coupon_ledger.consumers.intake import use_rules
    from coupon_ledger.consumers.replay import replay
    from coupon_ledger.consumers.tuning import tune_process
    from coupon_ledger.projections.database import open_database
    from coupon_ledger.projections.dead_letters import Chosen

    use_rules(settings)
    tune_process()
    with open_database(settings.database) as store:
        log = log_identity.open_log_of(settings.log, store)
        try:
            log_identity.check(store, log)
            if action == "discard":
                return discard(store, log, Chosen(**chosen), Signed(*by), dry_run=dry_run)
            with progress("replaying", 0, "dead letters") as bar:
                return replay(store, log, Chosen(**chosen), Signed(*by), dry_run=dry_run, progress=bar.update)
        finally:
            log.close()


@click.command()
@click.option("--action", help="Only this action, for example dead_letters_discarded.")
@click.option("--operator", help="Only this operator.")
@instant_option("--since", "Only from then on.")
@instant_option("--until", "Only before then.")
@limit_option(SHOWN)
@settings_options(*LOG, "database")
@output_option
def operations(
    action: str | None,
    operator: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    settings: Settings,
    output: str,
) -> None:
    """List what operators did, when and why, newest first. The list is read from the log, not from the database.

    \b
    coupon-ledger operations
    coupon-ledger operations --action correction_applied --since 1d --output json
    """
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.ledger.operations import read

    log = open_log(settings.log)
    try:
        records = read(log)
    finally:
        log.close()
    rows: Iterator[Row] = (
        done.model_dump() | {"recorded_at": t.recorded_at}
        for t in reversed(records)
        if (done := t.operation)
        and action in (None, done.action)
        and operator in (None, done.operator)
        and (since is None or done.occurred_at >= since)
        and (until is None or done.occurred_at < until)
    )
    if output != "table":
        print_rows(limited(rows, limit)[0] if limit else rows, output)
        return
    shown, more = limited(rows, limit or SHOWN)
    print_rows(shown, output, "occurred_at action operator subject reason".split() if shown else None)
    if more:
        click.echo(say(FIRST_ROWS, n=limit or SHOWN), err=True)
