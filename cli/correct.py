"""`correct`: undo the effect of wrong events, which stay in the log, by appending compensating events from a file."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.asking import rows_of
from coupon_ledger.cli.lists import SHOWN
from coupon_ledger.cli.options import LOG, operator_options, output_option, settings_options, signed
from coupon_ledger.cli.output import limited, print_row, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.cli.tables import warn
from coupon_ledger.ledger.amounts import amount, counted, money
from coupon_ledger.ledger.errors import InvalidEvent, UnusableFile
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.rules import CORRECTED
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.reports.labels import say, word
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.ledger.formats.rows import Filling, Item
    from coupon_ledger.ledger.log import Record
    from coupon_ledger.projections.identity import ReadLog
    from coupon_ledger.questions.registry import AsOf
    from coupon_ledger.questions.states.correction import Effect

SOURCE: Final = "operator"
"""The `source` of every compensating event."""
_FORMATS: Final = ("ndjson", "csv")
_AT_ONCE: Final = 2_000
"""Coupons per question."""


@dataclass(frozen=True, slots=True)
class Correction:
    """The compensating events of a file, in the order of its rows. `file`: the file's name. `sha256`: the hash of its
    bytes."""

    file: str
    sha256: str
    events: list[Row]

    @property
    def event_id(self) -> str:
        """The id of the `correction_applied` operation that is recorded with this correction. The same events, in any
        order, give the same id."""
        ids = "\n".join(sorted(event["event_id"] for event in self.events))
        return CORRECTED + hashlib.sha256(ids.encode()).hexdigest()


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--format", "file_format", type=click.Choice(_FORMATS), help="Format of FILE. [default: by its ending]")
@click.option(
    "--set", "defaults", multiple=True, metavar="FIELD=VALUE", help="Value for rows without this field (repeatable)."
)
@click.option("--apply", "apply_", is_flag=True, help="Append the events. Without it nothing is written.")
@click.option("--allow-violations", is_flag=True, help="Append even if that breaks rules of a coupon's life cycle.")
@operator_options
@settings_options(*LOG, "database")
@output_option
def correct(
    file: Path,
    file_format: str | None,
    defaults: tuple[str, ...],
    apply_: bool,
    allow_violations: bool,
    why: str | None,
    operator: str | None,
    settings: Settings,
    output: str,
) -> None:
    """Show what compensating events from FILE ("-": standard input) would do; with --apply, append them.

    FILE is NDJSON, or CSV with a header of field names. A row is a coupon event: coupon_id, type, occurred_at, and the
    fields that its type needs (docs/events.md). The command sets source and event_id. It derives event_id from the
    row, so applying the same row again changes nothing. To undo a wrong use, write a `returned` event with the
    order_id of the use. To take back a wrongly issued coupon, write a `revoked` event with a reason.

    For each coupon the command shows, before and after, the state, the discount taken and the face value still
    promised, and which violations would appear and disappear. For each campaign it shows the sums. If the events would
    break rules of a coupon's life cycle, it lists each such violation and appends nothing (exit code 3), unless
    --allow-violations is given. --apply appends the events, and an operation with the operator's name and the reason.
    A consumer folds the events.

    The command also shows which violations across coupons (stock and limits of campaigns) and between topics
    (contradictions between orders and coupons) would appear and disappear once every grace is over. These violations
    never stop a correction, since a correction of the order may still follow.

    \b
    coupon-ledger correct returns.csv
    coupon-ledger correct returns.csv --apply --why "till 7 booked the wrong coupons"
    coupon-ledger correct surplus.csv --set type=revoked --set reason=issued_twice \
      --set occurred_at=2026-11-12T09:00:00Z
    """
    by = signed(why, operator) if apply_ else None
    correction = _read(file, file_format, defaults)
    _say_what_is_to_come(correction.events)
    effects, there, changes = effects_of(settings, correction.events)
    _show(effects, changes, output)
    broken = [f"{e.coupon_id}: {violation}" for e in effects for violation in e.violations]
    if broken and not allow_violations:
        for words in broken:
            click.echo(words, err=True)
        raise InvalidEvent(_broken(file, len(broken)))
    fresh = [event for event in correction.events if event["event_id"] not in there]
    counts = {"n": len(fresh), "known": len(correction.events) - len(fresh)}
    if by is None:
        click.echo(say(_DRY, **counts), err=True)
        return
    _append(settings, correction, fresh, effects, by)
    click.echo(say(_APPENDED, **counts), err=True)


_DRY: Final = "nothing was appended; --apply would append {n:count} event{n:s} ({known:count} there already)"
_APPENDED: Final = "appended {n:count} event{n:s} ({known:count} there already); `coupon-ledger consume` folds them"


def _broken(file: Path, count: int) -> list[Any]:
    from coupon_ledger.ledger.errors import Problem

    broken = counted(count, "rule")
    words = f"{broken} would be broken, and nothing was appended; mend it, or insist with --allow-violations"
    return [Problem(f"correction {file}", words)]


# ── The file ─────────────────────────────────────────────────────────────────────────────────────────────────


def _read(file: Path, file_format: str | None, defaults: Sequence[str]) -> Correction:
    """The events of the file, with `source` and `event_id` set. `defaults`: the values of --set, as FIELD=VALUE.

    Raises `UnusableFile` if the file cannot be read or has no rows, if two rows have the same content, or if some rows
    are not coupon events. Each such row is printed on standard error.
    """
    from coupon_ledger.ledger.codec import decode

    content = _bytes(file)
    kind = file_format or ("csv" if file.suffix.lower() == ".csv" else "ndjson")
    records = list(_records(_items(content, kind, f"file {file}", _filling(defaults)), file))
    events: dict[str, Row] = {}
    for record in records:
        _, row = decode(record.value)
        row["event_id"] = _id_of(row)
        events[row["event_id"]] = row
    if twice := len(records) - len(events):
        raise UnusableFile(f"file {file}: rows that say what another one says: {twice:,}; leave one of each")
    if not events:
        raise UnusableFile(f"file {file}: holds no rows; write one for each compensating event")
    return Correction(file.name, hashlib.sha256(content).hexdigest(), list(events.values()))


def _bytes(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnusableFile(f"file {file}: cannot be read ({error.strerror}); check the path") from error


def _filling(defaults: Sequence[str]) -> Filling:
    from coupon_ledger.ledger.formats.csv_rows import data_of
    from coupon_ledger.ledger.formats.rows import Filling, column_kinds

    cells = dict(text.partition("=")[::2] for text in defaults)
    for name in cells:
        if name not in column_kinds(COUPON) or name in ("event_id", "source"):
            raise click.UsageError(f"--set {name}: no field that a row may have; see docs/events.md")
    default, problems = data_of(COUPON, cells)
    if problems:
        raise click.UsageError(f"--set {problems[0]}")
    return Filling({"event_id": "made", "source": SOURCE}, default)


def _items(content: bytes, kind: str, what: str, filling: Filling) -> Iterator[Item]:
    from coupon_ledger.ledger.formats.csv_rows import csv_items
    from coupon_ledger.ledger.formats.ndjson import ndjson_items
    from coupon_ledger.ledger.formats.rows import MAX_ROW_BYTES

    lines = (line[: MAX_ROW_BYTES + 1] for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    return csv_items(lines, COUPON, what, filling) if kind == "csv" else ndjson_items(lines, COUPON, filling)


def _records(items: Iterator[Item], file: Path) -> Iterator[Record]:
    from coupon_ledger.ledger.formats.rows import Refused

    problems = []
    for item in items:
        if isinstance(item, Refused):
            problems.append(f"line {item.number}: " + "; ".join(map(str, item.problems)))
        elif item is not None and item.topic != COUPON:
            problems.append(f"{item.key.decode()}: only events of {COUPON} can be corrected here")
        elif item is not None:
            yield item
    if problems:
        for words in problems:
            click.echo(words, err=True)
        raise UnusableFile(f"file {file}: rows that are no events: {len(problems):,}; mend them, nothing was appended")


def _id_of(event: Row) -> str:
    content = {name: value for name, value in plain(event).items() if value is not None and name != "event_id"}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return CORRECTED + hashlib.sha256(text.encode()).hexdigest()[:32]


# ── The effect ───────────────────────────────────────────────────────────────────────────────────────────────


def effects_of(settings: Settings, events: Sequence[Row]) -> tuple[list[Effect], set[str], list[Row]]:
    """What the compensating `events` would change. Returns three things: the effect on each coupon, in the order of
    coupon ids; the ids of all events that the ledger already has of these coupons; and a row for each violation across
    coupons or between topics that would appear or disappear."""
    from coupon_ledger.api.client import asking
    from coupon_ledger.consumers.log_identity import of_source
    from coupon_ledger.questions.states.correction import effect, naive

    by_coupon: dict[str, list[Row]] = {}
    for event in events:
        by_coupon.setdefault(event["coupon_id"], []).append(naive(event))
    effects: list[Effect] = []
    become: list[Row] = []
    there: set[str] = set()
    with asking(settings.database) as source, progress("folding", len(by_coupon)) as bar:
        ids = sorted(by_coupon)
        for coupons in (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)):
            histories: dict[str, list[Row]] = {}
            answer = source.ask("histories", coupons=coupons)
            for row in rows_of(answer):
                histories.setdefault(row["coupon_id"], []).append(row)
                there.add(row["event_id"])
            for coupon in coupons:
                one, changed = effect(coupon, histories.get(coupon, []), by_coupon[coupon])
                effects.append(one)
                become += [changed] if changed is not None else []
            bar.advance(len(coupons))
        changes = list(rows_of(source.ask("across", coupons=[_as_become(row) for row in become]))) if become else []
        known = of_source(source)
    _say_what_is_not_known(settings, answer.as_of, known)
    return effects, there, changes


def _as_become(row: Row) -> Row:
    """The fields of the parameter type `Become`, taken from a coupon's row as it would be after the correction."""
    from coupon_ledger.questions.states.parameters import Become

    return {field.name: row[field.name] for field in fields(Become)}


def _say_what_is_not_known(settings: Settings, as_of: AsOf, known: ReadLog) -> None:
    """Warn if the log has coupon events that are not consumed yet, since the shown effect leaves them out. `as_of`: the
    state that was read. `known`: the identity of the database's log. Raises `LogReplaced` if the database was
    filled from another log."""
    from coupon_ledger.consumers.log_identity import open_log_of, refuse
    from coupon_ledger.ledger.log import TopicPartition

    read = {TopicPartition(p["topic"], p["partition"]): p["next_offset"] for p in as_of.positions}
    log = open_log_of(settings.log, known, settings.database)
    try:
        refuse(known, log, settings.database)
        ends = log.end_positions(log.partitions([COUPON]))
    finally:
        log.close()
    if behind := sum(end - read.get(partition, 0) for partition, end in ends.items()):
        warn("records of {topic} not consumed yet: {n:count}; the effect is without them", topic=COUPON, n=behind)


def _say_what_is_to_come(events: Sequence[Row]) -> None:
    now = datetime.now(UTC)
    if later := [event["occurred_at"] for event in events if event["occurred_at"] > now]:
        warn(_LATER, n=len(later), last=max(later).astimezone(UTC).replace(tzinfo=None))


_LATER: Final = (
    "events later than now: {n:count}, the last one at {last:instant}; states count them at once, `--at` before then"
    " does not"
)


def _show(effects: Sequence[Effect], changes: Sequence[Row], output: str) -> None:
    from coupon_ledger.questions.states.correction import totals

    if output == "json":
        print_row({"coupons": [asdict(e) for e in effects], "campaigns": totals(effects), "across": changes}, output)
        return
    if output != "table":
        print_rows(map(asdict, effects), output)
        if changes:
            click.echo(
                say("changes across coupons and orders: {n:count}; --output json shows them", n=len(changes)), err=True
            )
        return
    shown, more = limited((_for_people(e) for e in effects), SHOWN)
    print_rows(shown, output)
    if more:
        click.echo(say("… of {n:count}; --output ndjson shows all", n=len(effects)), err=True)
    click.echo("\n" + say("campaigns"))
    print_rows(totals(effects), output)
    if changes:
        click.echo("\n" + say("across coupons and orders"))
        rows, more = limited(iter(changes), SHOWN)
        print_rows(rows, output, "change violation key counterpart event_id occurred_at".split())
        if more:
            click.echo(say("… of {n:count}; --output json shows all", n=len(changes)), err=True)


def _for_people(effect: Effect) -> Row:
    def change(before: int | None, after: int | None) -> str:
        was = say("unknown") if before is None else amount(before, effect.currency)
        return f"{was} → {say('unknown') if after is None else money(after, effect.currency)}"

    return {
        "coupon_id": effect.coupon_id,
        "campaign_id": effect.campaign_id,
        "transition": f"{word(effect.before or 'none')} → {word(effect.after)}",
        "discount_minor": change(effect.discount_before_minor, effect.discount_after_minor),
        "face_value_minor": change(effect.face_value_before_minor, effect.face_value_after_minor),
        "violations": ", ".join(word(v.partition(" ")[2]) for v in effect.violations) or None,
        "healed": ", ".join(word(v.partition(" ")[2]) for v in effect.healed) or None,
    }


# ── The log ──────────────────────────────────────────────────────────────────────────────────────────────────


def _append(
    settings: Settings, correction: Correction, fresh: Sequence[Row], effects: Sequence[Effect], by: tuple[str, str]
) -> None:
    """Append the events that are not in the ledger yet (`fresh`) and then the operation that records the correction, in
    one call. `by`: the operator and the reason. After an interruption, run the same command again to complete the
    correction: all ids derive from the rows, so nothing counts twice."""
    from coupon_ledger.ledger import operations
    from coupon_ledger.ledger.codec import encode_row
    from coupon_ledger.ledger.log import Record
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.questions.states.correction import totals

    operator, why = by
    details = {
        "sha256": correction.sha256,
        "events": len(correction.events),
        "coupons": len(effects),
        "money": totals(effects, by_campaign=False),
    }
    done = operations.operation(
        "correction_applied",
        why=why,
        operator=operator,
        subject=correction.file,
        details=details,
        event_id=correction.event_id,
    )
    records = [Record(COUPON, e["coupon_id"].encode(), encode_row("coupon_event", e)) for e in fresh]
    log = open_log(settings.log)
    try:
        log.append([*records, operations.record_of(done)])
    finally:
        log.close()
