"""`schemas`: list the schemas, show one, or check a change to them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import click

from coupon_ledger import schemas as packaged
from coupon_ledger.cli.options import output_option
from coupon_ledger.cli.output import print_rows
from coupon_ledger.ledger.amounts import counted
from coupon_ledger.ledger.errors import IncompatibleSchema


@click.group()
def schemas() -> None:
    """List, show and check the Avro schemas of the log's messages.

    \b
    coupon-ledger schemas check
    """


@schemas.command("list")
@output_option
def list_(output: str) -> None:
    """List every version of every schema, with the header that begins each message of that version.

    \b
    coupon-ledger schemas list
    """
    from coupon_ledger.ledger.codec import TOPIC_OF_SCHEMA, writer_schemas

    print_rows(
        (
            {
                "schema": writer.name,
                "version": f"v{writer.version}",
                "topic": TOPIC_OF_SCHEMA.get(writer.name),
                "fields": len(writer.schema["fields"]),
                "header": writer.header.hex(),
            }
            for writer in writer_schemas().values()
        ),
        output,
    )


@schemas.command()
@click.argument("name", type=click.Choice(packaged.NAMES))
@click.option("--version", "number", type=click.IntRange(min=1), help="A released version. [default: the current one]")
def show(name: str, number: int | None) -> None:
    """Print a schema as Avro JSON; by default the current version.

    \b
    coupon-ledger schemas show coupon_event > coupon_event.avsc
    coupon-ledger schemas show coupon_event --version 1
    """
    released = packaged.released(name)
    if number is not None and number > len(released):
        raise click.UsageError(f"{name} has no version {number}; the newest is v{len(released)}")
    schema = packaged.current(name) if number is None else released[number - 1]
    click.echo(json.dumps(schema, ensure_ascii=False, indent=2))


@schemas.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@output_option
def check(folder: Path | None, output: str) -> None:
    """Check that the changes to the schemas break neither old readers nor old data.

    Compares every schema in FOLDER (default: the installed schemas) with all its released versions: each must be able
    to read what the other wrote. Each broken rule is reported with its field and remedy, and the exit code is 3. To
    release the current schema as a new version, copy it to released/NAME/vN.avsc and, in released/, run `sha256sum
    NAME/vN.avsc >> SHA256SUMS`.

    \b
    coupon-ledger schemas check
    coupon-ledger schemas check path/to/schemas --output json
    """
    from coupon_ledger.ledger.compatibility import check_schemas

    checked, breaches = check_schemas(folder or files(packaged))
    if breaches:
        if output == "table":
            for breach in breaches:
                click.echo(str(breach), err=True)
        else:
            print_rows((asdict(b) for b in breaches), output)
        click.echo(
            f"error: {counted(len(breaches), 'broken rule')}; see `coupon-ledger schemas check --help`", err=True
        )
        sys.exit(IncompatibleSchema.exit_code)
    for schema in checked:
        if schema.new_symbols:
            click.echo(
                f"note: {schema.name}: readers of v{schema.released} and before do not know"
                f" {', '.join(schema.new_symbols)}; update every consumer before the first producer, and replay what an"
                " older one kept as dead letters (docs/schema-evolution.md)",
                err=True,
            )
    print_rows(({"name": c.name, "released": c.released, "adds": c.adds} for c in checked), output)
