"""The program `coupon-ledger`: its list of commands, and the one place where errors become messages and exit codes.

Exit codes: 0 success; 1 not found, or `doctor` found errors, or a test of alert rules failed; 2 wrong usage or
settings; 3 some events, or a schema change, were refused; 4 the log cannot be used; 5 the database cannot be used;
6 `verify` or `alerts rules check` found something; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from coupon_ledger.cli.terminal import guarded
from coupon_ledger.cli.usage import usage_of
from coupon_ledger.cli.view import forget, global_options, latest, view, with_view_options
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.extras import is_missing, missing
from coupon_ledger.ledger.words import Note, Speaker

# Name, module, and the line that the list of commands shows. Modules are loaded only when they are needed.
COMMANDS: Final = {
    "init": ("coupon_ledger.cli.setup", "Create the log's topics and an empty database."),
    "config": ("coupon_ledger.cli.setup", "Show every setting and where it came from."),
    "publish": ("coupon_ledger.cli.publish", "Append events from NDJSON, JSON, CSV, XLSX or Parquet."),
    "import": ("coupon_ledger.cli.imports", "Append events made from another source's data."),
    "simulate": ("coupon_ledger.cli.imports", "Append a seeded synthetic sale day."),
    "run": ("coupon_ledger.cli.run", "Run consumer, HTTP API and pages over one database."),
    "serve": ("coupon_ledger.cli.run", "Run the HTTP API and the pages beside a consumer."),
    "people": ("coupon_ledger.cli.people", "Show and change who may sign in to the pages."),
    "tokens": ("coupon_ledger.cli.people", "Show and change which systems may use the HTTP API."),
    "consume": ("coupon_ledger.cli.consume", "Fold the log into the database."),
    "status": ("coupon_ledger.cli.status", "Show positions, lag, the last commit and counts."),
    "doctor": ("coupon_ledger.cli.doctor", "Examine log, database and machine, with remedies."),
    "tail": ("coupon_ledger.cli.tail", "Show events as they come from the log."),
    "state": ("coupon_ledger.cli.coupons", "Show the state of one coupon."),
    "history": ("coupon_ledger.cli.coupons", "Show every event of one coupon and what it did."),
    "coupons": ("coupon_ledger.cli.coupons", "List coupons."),
    "user": ("coupon_ledger.cli.orders", "Show a user's coupons: usable, used, expired."),
    "order": ("coupon_ledger.cli.orders", "Show an order with its coupons and what does not match."),
    "campaigns": ("coupon_ledger.cli.campaigns", "List campaigns with their funnel and rates, or show one."),
    "ask": ("coupon_ledger.cli.ask", "Answer a question in plain words, in English or Chinese."),
    "mcp": ("coupon_ledger.cli.ask", "Answer the questions of assistants over MCP."),
    "metrics": ("coupon_ledger.cli.metrics", "Show the operating metrics over any slice and period."),
    "why": ("coupon_ledger.cli.why", "Show why a metric changed: every cause, exactly."),
    "detect": ("coupon_ledger.cli.detect", "Find anomalies of one metric in a CSV."),
    "violations": ("coupon_ledger.cli.violations", "List broken rules."),
    "alerts": ("coupon_ledger.cli.alerts", "List and handle alerts; statistics; rules."),
    "attribution": ("coupon_ledger.cli.attribution", "Show what channels and campaigns earned, by several models."),
    "expire": ("coupon_ledger.cli.expire", "Expire coupons and release holds that are due."),
    "expiries": ("coupon_ledger.cli.expire", "Show why coupons expired, and the face value lost."),
    "segments": ("coupon_ledger.cli.segments", "Choose customers by saved rules."),
    "review": ("coupon_ledger.cli.review", "Review a campaign: one report of goal, result, cost and cause."),
    "report": ("coupon_ledger.cli.report", "Reports: ROI, channels, finance, customers, funnel, expiry."),
    "experiment": ("coupon_ledger.cli.experiment", "Draw arms, plan, and see what a campaign caused."),
    "diff": ("coupon_ledger.cli.coupons", "Show what changed between two instants, and by which events."),
    "digest": ("coupon_ledger.cli.verify", "Show the digests of all tables."),
    "rebuild": ("coupon_ledger.cli.rebuild", "Build a new database, compare, swap; or roll back."),
    "verify": ("coupon_ledger.cli.verify", "Check tables, accounts and positions, and show the digests."),
    "dead-letters": ("coupon_ledger.cli.repair", "List, export, replay or discard records that were not folded."),
    "correct": ("coupon_ledger.cli.correct", "Append compensating events from a file, dry-run first."),
    "operations": ("coupon_ledger.cli.repair", "List what operators did."),
    "backup": ("coupon_ledger.cli.backup", "Copy the database into a file while it runs."),
    "restore-db": ("coupon_ledger.cli.backup", "Put a backup in the place of the database."),
    "archive": ("coupon_ledger.cli.archive", "Archive the log into Parquet files; verify an archive."),
    "restore": ("coupon_ledger.cli.archive", "Create a log from an archive."),
    "schemas": ("coupon_ledger.cli.schemas", "List, show and check the Avro schemas."),
    "completion": ("coupon_ledger.cli.completion", "Print the script that completes commands in a shell."),
}

EPILOG: Final = """\b
Start here:
  coupon-ledger init
  coupon-ledger publish events.ndjson
  coupon-ledger consume
  coupon-ledger state COUPON
"""


class ReaderGone(Exception):
    """Raised if the program that reads standard output has closed it, as `| head` does."""


class Commands(click.Group):
    """The group of all commands. It imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        attribute = cmd_name.replace("-", "_") + ("_" if cmd_name == "import" else "")
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), attribute)
        assert isinstance(command, click.Command)
        return with_view_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, cutoff=0.5)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error  # click would end with exit code 1
        except (LedgerError, click.ClickException):
            with contextlib.suppress(LedgerError):
                view()  # so that the error is in the reader's language
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


_NO_MEMORY: Final = (
    "process: out of memory; commands that open the database need 3 GB of address space, `consume` and `rebuild` 5 GB"
    " (`ulimit -v`), and about a third of that as memory; a smaller --batch-size needs less"
)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="coupon-ledger", prog_name="coupon-ledger")
def cli() -> None:
    """An append-only ledger of coupon events and the live state of every coupon, exact and rebuildable.

    Settings come from flags, else from COUPON_LEDGER_… variables, else from coupon-ledger.toml; see
    `coupon-ledger config`. Each command explains itself with --help.
    """


global_options(cli)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the program. Errors that the user can fix become a message and an exit code, without a
    traceback. `arguments`: None for those of the command line."""
    _hold_closed_streams()
    before = os.umask(0o077)
    os.umask(before)
    try:
        with guarded():
            _run(arguments)
    finally:
        os.umask(before)  # a command may have made the umask stricter


def _hold_closed_streams() -> None:
    """Whoever closes standard output or error does not want to read it: it leads nowhere. Else the next file to be
    opened, such as the log's, would get its number, and what libraries print would be written into that file."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _run(arguments: Sequence[str] | None) -> None:
    # Imported modules stay in memory. Scanning them for garbage took an eighth of a command's start-up time.
    gc.set_threshold(10_000)
    forget()
    try:
        cli.main(args=arguments, prog_name="coupon-ledger", standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_spoken(usage_of(error, chinese=latest().chinese)), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; what was committed stays", 130)
    except LedgerError as error:
        _fail(_in_the_readers_language(error), error.exit_code)
    except ReaderGone:
        # Not an error, and nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _fail(_in_words(error), 1)
    except MemoryError:
        _fail(_NO_MEMORY, 1)
    except ModuleNotFoundError as error:
        if not is_missing(error):
            raise
        _fail(missing(error.name or ""), LedgerError.exit_code)
    except ImportError as error:
        if "failed to map segment" not in str(error):
            raise
        _fail(_NO_MEMORY, 1)


def _in_the_readers_language(error: LedgerError) -> str:
    """The error's text: in the reader's language if the error contains a `Note`, otherwise in English. Errors that a
    reader of reports may see contain a `Note`."""
    said = error.args[0] if error.args else None
    return _spoken(said) if isinstance(said, Note) else str(error)


def _spoken(said: Note) -> str:
    how = latest()
    if not how.chinese:
        return str(said)
    from coupon_ledger.reports.labels import label, word

    return Speaker(how.lang, how.instant, word, label).say(said)


def _in_words(error: OSError) -> str:
    name = str(error.filename) if error.filename else ""
    if error.errno == errno.ENAMETOOLONG:
        return f"file {name[:40]}…: its name is too long for this system; choose a shorter one"
    return f"{name}: {error.strerror or error}" if name else f"{error.strerror or error}"


def _fail(message: Any, code: int) -> None:
    click.echo(Speaker(latest().lang).say(Note("error: {message}", {"message": message})), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
