"""`init`: create the log's topics and the database. `config`: show the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.options import LOG, output_option, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.ledger.errors import masked
from coupon_ledger.ledger.settings import Setting, Settings
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from coupon_ledger.ledger.log import EventLog

_SECRET: Final = ("password", "passwd", "secret", "token", "user.info", "key", "jaas", "credential")
_PLACE: Final = ("file", "location", "path", "url")
"""Endings of option names whose value is the place of a secret, not the secret."""


@click.command()
@settings_options(*LOG, "database", "partitions", "replication")
def init(settings: Settings) -> None:
    """Create the log's topics and an empty database. What already exists is left unchanged.

    \b
    coupon-ledger init
    coupon-ledger init --log kafka://localhost:9092 --partitions 12 --replication 3
    """
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.projections.database import create_database

    log = open_log(settings.log, create=True)
    try:
        created = log.create_topics()
        _warn_of_another_log(settings, log)
    finally:
        log.close()
    there, made = "log {log}: topics are there", "log {log}: made {topics}"
    echo_wrapped(say(made if created else there, log=masked(settings.log.url), topics=created), indent=4)
    there, made = "database {file}: is there", "database {file}: made"
    echo_wrapped(say(made if create_database(settings.database) else there, file=str(settings.database)), indent=4)


def _warn_of_another_log(settings: Settings, log: EventLog) -> None:
    """Warn if the database was filled from another log: such a database never folds the events of `log`."""
    from coupon_ledger.cli.appending import known_log
    from coupon_ledger.consumers.log_identity import difference
    from coupon_ledger.ledger.errors import StoreError

    try:
        why = difference(known_log(settings), log)
    except StoreError:  # an owner that does not answer, or another version: the next command reports it
        return
    if why:
        warn(_ANOTHER_LOG, file=str(settings.database), why=why)


_ANOTHER_LOG: Final = (
    "database {file} was filled from another log than this one ({why}), and folds nothing of it; name the right log"
    " with --log, restore it from its archive (`coupon-ledger restore`), or name another database with --database"
)


@click.command()
@settings_options(*LOG, "database", "partitions", "replication", "batch-size", "private-files", opens=False)
@output_option
def config(settings: Settings, output: str) -> None:
    """Show every setting, its value and where it came from.

    \b
    coupon-ledger config
    COUPON_LEDGER_LOG=kafka://localhost:9092 coupon-ledger config --output json
    """
    groups = {"": settings.values, "kafka.": settings.kafka, "schema-registry.": settings.registry}
    print_rows(
        (
            {
                "setting": group + s.name,
                "value": _shown(s),
                "from": s.origin,
            }
            for group, values in groups.items()
            for s in values.values()
        ),
        output,
    )


def _shown(setting: Setting) -> Any:
    """The setting's value, with passwords and other secrets masked."""
    name = setting.name.lower()
    if setting.value and any(word in name for word in _SECRET) and not name.endswith(_PLACE):
        return "********"
    return masked(setting.value) if isinstance(setting.value, str) else setting.value
