"""`verify`: check the tables with audits, compare positions with the log, and with `--deep` fold coupons again with the
reference fold. `digest`: show the digests of all tables.

Each check is a separate question to the process that owns the database at that moment. A check sees one committed
state; between checks a consumer may start, stop or commit. If nobody owns the database, this process opens it. Short
questions then share one opening, since opening the database takes longer than most of them.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from coupon_ledger.cli.lists import print_all
from coupon_ledger.cli.options import LOG, output_option, settings_options
from coupon_ledger.cli.output import Fit, print_row, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.labels import say, text_of
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    import polars as pl

    from coupon_ledger.consumers.log_contents import LogContents
    from coupon_ledger.ledger.log import TopicPartition
    from coupon_ledger.questions.registry import AsOf, Source

_SAMPLE: Final = 5_000
_SHOWN: Final = 10
_OPEN_S = 1.0
"""Seconds for which questions share an opened database; the next question after that reopens it. So a consumer that
starts meanwhile gets the database: it waits for it five times as long."""


class _Sample(click.ParamType[int | None]):
    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "all" or value is None:
            return None
        try:
            number = int(value)
        except ValueError:
            number = 0
        return number if number > 0 else self.fail(f"{value!r} is neither a number of coupons nor `all`", param, ctx)


@click.command()
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check (repeatable).")
@click.option(
    "--deep", is_flag=True, help="Also fold coupons with the reference fold, and compare with their stored rows."
)
@click.option(
    "--sample",
    type=_Sample(),
    default=_SAMPLE,
    show_default=True,
    metavar="N|all",
    help="With --deep: about how many coupons.",
)
@click.option("--seed", type=int, help="With --deep: repeat the sample of another run, which showed this seed.")
@click.option(
    "--from-log", is_flag=True, help="With --deep: fold from the log's bytes, and compare the journal with them too."
)
@click.option("--without-log", is_flag=True, help="Leave out the checks that need the log.")
@settings_options(*LOG, "database")
@output_option
@click.pass_context
def verify(
    context: click.Context,
    /,
    only: tuple[str, ...],
    deep: bool,
    sample: int | None,
    seed: int | None,
    from_log: bool,
    without_log: bool,
    settings: Settings,
    output: str,
) -> None:
    """Check that the tables match the log, and show their digests.

    Audits look for broken invariants: accounts that do not balance, rows that contradict the journal, violations
    without an event, positions that the log does not have. A sound database has none. The command may run
    while a consumer runs: each check sees one committed state. docs/operations.md says what each finding means and
    what to do.

    --deep folds a sample of the coupons (`--sample all`: every coupon) again, event by event, with the reference fold.
    The events are those of the journal, or with --from-log those of the log, which is then read from its start.

    The exit code is 6 if anything is found.

    \b
    coupon-ledger verify
    coupon-ledger verify --deep --sample all --from-log
    coupon-ledger verify --only accounts --only rows_of_journal --output json
    """
    named = [
        n for n in ("sample", "seed", "from_log") if context.get_parameter_source(n) is ParameterSource.COMMANDLINE
    ]
    if named and not deep:
        raise click.UsageError(f"--{named[0].replace('_', '-')} needs --deep")
    if from_log and without_log:
        raise click.UsageError("--from-log and --without-log exclude each other")
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    checks = _Checks(settings, only, without_log)
    with closing(checks), progress("verifying", len(checks.names), "checks") as bar:
        rows = []
        for name in checks.names:
            rows.append(checks.run(name))
            bar.advance(1)
    if deep:
        rows.append(_reference_check(settings, sample, seed, from_log))
    failed = [row["check"] for row in rows if row["result"] != "ok"]
    _print(rows, checks.digests, output)
    if failed:
        from coupon_ledger.ledger.errors import OffendersFound

        raise OffendersFound(
            f"database {settings.database}: {len(failed)} of {len(rows)} checks found something ({', '.join(failed)});"
            " docs/operations.md says what that means and what to do"
        )


class _Checks:
    """Runs the requested checks. `names`: their names; `digests`: the digests of all tables, empty until the check
    `digest` has run."""

    def __init__(self, settings: Settings, only: Sequence[str], without_log: bool) -> None:
        from coupon_ledger.questions.audits import AUDITS

        self._settings = settings
        self._questions = _Questions(settings)
        self.digests: list[Row] = []
        # The log first: if it cannot be reached, that is reported at once.
        known = [*(() if without_log else ("positions_of_log", "same_log")), *AUDITS, "digest"]
        if unknown := sorted(set(only) - set(known)):
            raise click.UsageError(f"no check {', '.join(unknown)}; there are {', '.join(known)}")
        self.names = [name for name in known if not only or name in only]

    def run(self, name: str) -> Row:
        if name == "positions_of_log":
            return _positions(self._settings)
        if name == "same_log":
            return _same_log(self._settings)
        if name == "digest":
            state, frame = self._questions.ask("digest")
            self.digests = frame.to_dicts()
            last = self.digests[-1]
            return _row(name, note("facts {facts}, full {full}", facts=last["facts"], full=last["full"]), 0, [], state)
        state, frame = self._questions.ask("audit", name=name, limit=_SHOWN)
        audit = frame.row(0, named=True)
        return _row(name, Note(audit["asked"], {}), audit["offenders"], json.loads(audit["examples"]), state)

    def close(self) -> None:
        self._questions.close()


class _Questions:
    """Asks several questions. If nobody owns the database, this process opens it, and keeps it open for `_OPEN_S`
    seconds for further questions."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = ExitStack()
        self._local: Source | None = None
        self._until = 0.0

    def ask(self, question: str, **parameters: Any) -> tuple[AsOf, pl.DataFrame]:
        """Ask the question. Returns the state that was read (commit, data's clock, positions), and the whole answer as
        one frame."""
        import polars as pl

        answer = self._source().ask(question, **parameters)
        return answer.as_of, pl.concat(answer.frames)

    def _source(self) -> Source:
        """The source to ask. While the database may be kept open, it is the opened database. Otherwise it is the owner,
        or the newly opened database if there is no owner; this is found out each time, since an owner may end."""
        from coupon_ledger.api.client import Remote, asking

        if self._local is None or time.monotonic() > self._until:
            self.close()
            source = self._open.enter_context(asking(self._settings.database))
            self._local = None if isinstance(source, Remote) else source
            self._until = time.monotonic() + _OPEN_S
            return source
        return self._local

    def close(self) -> None:
        self._local = None
        self._open.close()


def _ask(settings: Settings, question: str, **parameters: Any) -> tuple[AsOf, pl.DataFrame]:
    """Ask one question as `_Questions.ask` does, then close the database at once."""
    with closing(_Questions(settings)) as questions:
        return questions.ask(question, **parameters)


def _row(check: str, checked: Note, offenders: int, examples: list[Row], state: AsOf) -> Row:
    result = "FAILED" if offenders else "ok"
    row = {"check": check, "checked": checked, "offenders": offenders, "result": result}
    return row | {"commit": state.commits, "examples": examples}


def _next_offsets(state: AsOf) -> dict[TopicPartition, int]:
    from coupon_ledger.ledger.log import TopicPartition

    return {TopicPartition(p["topic"], p["partition"]): p["next_offset"] for p in state.positions}


def _positions(settings: Settings) -> Row:
    """Check that the log still has every partition that the database has read, and in each of them the offset from
    which the database reads on. The database is asked before the log: records that arrive in between only make the log
    longer, and cause no false alarm."""
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.ledger.topics import INPUT_TOPICS

    state, _ = _ask(settings, "summary")
    with closing(open_log(settings.log)) as log:
        there = log.partitions(INPUT_TOPICS)
        earliest, ends = log.earliest_positions(there), log.end_positions(there)
    offenders = [
        {**at._asdict(), "next_offset": offset, "log_from": earliest.get(at), "log_to": ends.get(at)}
        for at, offset in sorted(_next_offsets(state).items())
        if at not in ends or not earliest[at] <= offset <= ends[at]
    ]
    checked = note("Does the log hold every partition, as far as it was read, and what comes next?")
    return _row("positions_of_log", checked, len(offenders), offenders[:_SHOWN], state)


def _same_log(settings: Settings) -> Row:
    from coupon_ledger.consumers.log_identity import difference
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.projections.identity import ReadLog

    state, rows = _ask(settings, "log-identity")
    with closing(open_log(settings.log)) as log:
        problem = difference(ReadLog.of_rows(rows.iter_rows(named=True)), log)
    offenders = [{"log": settings.log.url, "difference": problem}] if problem else []
    checked = note(
        "Is it the log that the database was filled from (ids of its topics, the last records that were consumed)?"
    )
    return _row("same_log", checked, len(offenders), offenders, state)


def _reference_check(settings: Settings, sample: int | None, seed: int, from_log: bool) -> Row:
    """Fold coupons again with the reference fold, and compare the results with their rows, one range of coupon hashes
    after the other. Each range is read from one committed state; the database may change between ranges. The fold runs
    in this process, not in the owner."""
    from coupon_ledger.questions.audits.reference import Evidence, differences, ranges

    state, summary = _ask(settings, "summary")
    hash_ranges = ranges(summary["coupons"][0], sample, seed)
    coupons = offenders = 0
    examples: list[Row] = []
    with _log_contents(settings, hash_ranges, state) if from_log else nullcontext(None) as contents:
        total = summary["coupons"][0] if sample is None else min(sample, summary["coupons"][0])
        with progress("folding again", total, "coupons") as bar:
            for first, last in hash_ranges:
                state, frame = _ask(settings, "evidence", first=first, last=last, set_aside=from_log)
                evidence = Evidence(frame)
                log = contents.of(first, last, _next_offsets(state), evidence.set_aside) if contents else None
                different = list(differences(evidence, log))
                offenders += len(different)
                examples += different[: _SHOWN - len(examples)]
                coupons += len(evidence.rows)
                bar.advance(len(evidence.rows))
    of = note("the log's bytes") if from_log else note("the journal")
    whole = "Are {n:count} coupons what the reference fold makes of {of}?"
    part = "Are {n:count} coupons (drawn by --seed {seed}) what the reference fold makes of {of}?"
    checked = note(whole, n=coupons, of=of) if sample is None else note(part, n=coupons, seed=seed, of=of)
    return _row("deep", checked, offenders, examples, state)


@contextmanager
def _log_contents(settings: Settings, hash_ranges: list[tuple[int, int]], state: AsOf) -> Iterator[LogContents]:
    """Yield the log's records of the coupons in these hash ranges, read up to the positions of `state`."""
    from coupon_ledger.consumers.log_contents import LogContents
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.ledger.topics import COUPON

    positions = _next_offsets(state)
    first, last = (hash_ranges[0][0], hash_ranges[-1][1]) if hash_ranges else (0, -1)
    with closing(open_log(settings.log)) as log, LogContents(log, first, last) as contents:
        total = sum(offset for at, offset in positions.items() if at.topic == COUPON)
        with progress("reading the log", total) as bar:
            contents.read_on(positions, bar.update)
        yield contents


def _print(rows: list[Row], digests: list[Row], output: str) -> None:
    if output != "table":
        rows = [row | {"checked": str(row["checked"])} for row in rows]
    if output == "json":
        whole = {"ok": all(row["result"] == "ok" for row in rows), "checks": rows, "digests": digests}
        print_row(whole, output)
        return
    if output != "table":
        print_rows(rows, output)
        return
    shown = (
        {name: row[name] for name in ("check", "result", "offenders")} | {"checked": text_of(row["checked"])}
        for row in rows
    )
    print_rows(shown, output, fit=Fit(wrap="checked"))
    for row in rows:
        if row["examples"]:
            some = "{check}: {n:count} found, the first {shown:count}"
            click.echo("\n" + say(some, check=row["check"], n=row["offenders"], shown=len(row["examples"])))
            print_rows(row["examples"], output)
    if digests:
        click.echo("\n" + say("digests"))
        print_rows(digests, output)
        click.echo("\n" + say("facts digest {digest}", digest=digests[-1]["facts"]))
    commits = sorted({row["commit"] for row in rows})
    one, several = "as of commit {first:count}", "as of commits {first:count} to {last:count}"
    click.echo(say(one if len(commits) == 1 else several, first=commits[0], last=commits[-1]), err=True)


@click.command()
@settings_options("database")
@output_option
def digest(settings: Settings, output: str) -> None:
    """Show the digests of all tables.

    facts: two databases with the same facts have the same digest, whatever the order of arrival, batches, repeats or
    log. full: covers every column; two databases filled from the same log up to the same positions have the same
    digest.

    \b
    coupon-ledger digest
    """
    print_all(settings, output, None, "digest")
