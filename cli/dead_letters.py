"""`dead-letters list` and `dead-letters show`. `cli/repair.py` adds the commands that repair dead letters."""

from __future__ import annotations

import sys
from typing import Any

import click

from coupon_ledger.cli.asking import answered
from coupon_ledger.cli.lists import SHOWN, print_first
from coupon_ledger.cli.options import dead_letter_options, limit_option, output_option, settings_options
from coupon_ledger.cli.output import print_row
from coupon_ledger.ledger.settings import Settings


@click.group("dead-letters")
def dead_letters() -> None:
    """Records that were not folded: undecodable bytes, unknown schemas, events that break the rules.

    \b
    coupon-ledger dead-letters list
    """


@dead_letters.command("list")
@dead_letter_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
def list_dead_letters(limit: int | None, settings: Settings, output: str, **chosen: Any) -> None:
    """List dead letters with position and reason. Discarded ones are shown only with --all.

    \b
    coupon-ledger dead-letters list
    coupon-ledger dead-letters list --reason unknown_schema --since 1d
    coupon-ledger dead-letters list --all --output ndjson
    """
    shown = "topic partition offset recorded_at reason detail bytes".split()
    if chosen["settled"]:
        shown += ["discarded_by", "discarded_because"]
    print_first(settings, output, limit, shown, "dead-letters", **chosen)


@dead_letters.command("show")
@click.argument("topic")
@click.argument("partition", type=int)
@click.argument("offset", type=int)
@click.option("--raw", is_flag=True, help="Write the record's unchanged value to standard output.")
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
        record = answer.row()
        if raw:
            sys.stdout.buffer.write(record["value"])
        else:
            print_row(record, output)
