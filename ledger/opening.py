"""Opens the log at an address.

Each implementation of the log is imported only when an address of its kind is opened. So a process that uses the
embedded log does not load the Kafka client.
"""

from __future__ import annotations

from pathlib import Path

from coupon_ledger.ledger.errors import SettingsError
from coupon_ledger.ledger.log import Backend, EventLog
from coupon_ledger.ledger.settings import LogSettings


def open_log(settings: LogSettings, *, create: bool = False) -> EventLog:
    """Open the log at `settings.url`: `sqlite:///path`, `kafka://host:port,host:port`, or the service at
    `https://host`, through which events can be published and nothing can be read.

    `create`: create the embedded log's file if it is missing, but no topics (`create_topics` does that). If the
    settings name a schema registry, the log's messages are in the Confluent wire format (`registry_log`). Raises
    `SettingsError` if the address has another form, and `LogUnavailable` if the log cannot be reached.
    """
    if over_http(settings):
        from coupon_ledger.ledger.http_log import HttpLog

        return HttpLog(settings)
    if settings.schema_registry:
        from coupon_ledger.ledger.registry_log import RegistryLog

        return RegistryLog(open_backend(settings, create=create), settings)
    return open_backend(settings, create=create)


def over_http(settings: LogSettings) -> bool:
    """Whether the address is that of the service, through which events can be published and nothing can be read."""
    return settings.url.startswith(("https://", "http://"))


def open_backend(settings: LogSettings, *, create: bool = False) -> Backend:
    """Open the log without the schema registry, even if the settings name one. Messages are returned in the format in
    which they are stored."""
    if settings.writer_schemas:
        from coupon_ledger.ledger.codec import know_writers

        know_writers(Path(settings.writer_schemas))
    scheme = settings.url.partition("://")[0]
    if scheme == "sqlite":
        from coupon_ledger.ledger.sqlite_log import SqliteLog

        return SqliteLog(settings, create=create)
    if scheme == "kafka":
        from coupon_ledger.ledger.kafka_log import KafkaLog

        return KafkaLog(settings)
    if over_http(settings):
        raise SettingsError(
            f"log address {settings.url!r}: is that of a service, to which events can only be published; name the log"
            " behind it"
        )
    raise SettingsError(
        f"log address {settings.url!r}: unknown scheme; use sqlite:///path, kafka://host:port,host:port or https://host"
    )
