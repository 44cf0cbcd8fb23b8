"""Print answers: all rows, the first rows, or the lists inside an answer of one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from coupon_ledger.cli.asking import FIRST_ROWS, answered, rows_of
from coupon_ledger.cli.output import LIKE_ANY, Fit, limited, print_frames, print_rows
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.labels import label_of_texts, say
from coupon_ledger.reports.lists import with_lists
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SHOWN", "plain_lists", "print_all", "print_first", "print_list", "print_titled", "with_lists"]
SHOWN = 50


def print_all(settings: Settings, output: str, shown: str | None, question: str, **parameters: Any) -> None:
    """Ask `question` and print all rows. A table shows only the columns in `shown`, a text with their names separated
    by spaces (None: all). The other formats show all columns."""
    with answered(settings, output, question, **parameters) as answer:
        print_frames(answer.frames, output, shown.split() if shown and output == "table" else None)


def print_first(
    settings: Settings,
    output: str,
    limit: int | None,
    shown: list[str] | None,
    question: str,
    **parameters: Any,
) -> None:
    """Ask `question` and print the first rows. A table shows at most `limit` rows (None: `SHOWN`) and only the columns
    in `shown` (None: all). The other formats show at most `limit` rows (None: all) and all columns."""
    at_most = limit or SHOWN
    fetched = at_most + 1 if output == "table" else limit
    with answered(settings, output, question, limit=fetched, **parameters) as answer:
        if output != "table":
            print_frames(answer.frames, output)
            return
        rows, more = limited(rows_of(answer), at_most)
        print_rows(rows, output, shown)
        if more:
            click.echo(say(FIRST_ROWS, n=at_most), err=True)


def plain_lists(row: Row, lists: dict[str, pl.DataFrame]) -> dict[str, list[Row]]:
    """The lists that `with_lists` returned, as plain rows: a dict from a list's column to its rows. Lists that are null
    in the answer are left out, empty ones are kept. `row`, `lists`: the two results of `with_lists`."""
    return {name: table.to_dicts() for name, table in lists.items() if name not in row}


def print_list(title: str, table: pl.DataFrame, currency: str | None = None) -> None:
    """Print `table` under `title`; print nothing if `table` is empty. `currency`: used for amounts of rows that state
    no currency."""
    print_titled(title, table.to_dicts(), currency)


def print_titled(title: str, rows: list[Row], currency: str | None = None, fit: Fit = LIKE_ANY) -> None:
    if rows:
        click.echo("\n" + label_of_texts(title))
        print_rows(rows, "table", currency=currency, fit=fit)
