"""The journals: per topic, one table of distinct events, and one table of conflicts.

The columns of both are the hash of the key, the wire fields of the topic, and the event's position in the log with its
`recorded_at`. A journal has one row per identity (key, `event_id`): the content at the earliest position.
"""

from __future__ import annotations

from typing import Any, Final

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import SCHEMA_NAME
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER

JOURNAL: Final = {
    COUPON: "coupon_events",
    ORDER: "order_events",
    CAMPAIGN: "campaign_events",
    USER: "user_events",
}
CONFLICTS: Final = {
    COUPON: "coupon_conflicts",
    ORDER: "order_conflicts",
    CAMPAIGN: "campaign_conflicts",
    USER: "user_conflicts",
}
# Ids hardly repeat, so they hardly compress. Compressing them would take a third of the time of all writing, and
# reading one row would decompress a whole segment. Without compression, ids take 45 more bytes per event.
_IDS: Final = ("event_id", "coupon_id", "order_id", "user_id")
_UNCOMPRESSED: Final = " USING COMPRESSION uncompressed"
POSITION: Final = ("recorded_at", "log_partition", "log_offset")


def wire_fields(topic: str) -> tuple[str, ...]:
    """The names of the fields in the topic's Avro schema, which are the content of an event."""
    return tuple(f["name"] for f in schemas.current(SCHEMA_NAME[topic])["fields"])


def later_fields(topic: str) -> frozenset[str]:
    """The wire fields that were added after the first released version of the topic's schema."""
    first = {f["name"] for f in schemas.released(SCHEMA_NAME[topic])[0]["fields"]}
    return frozenset(wire_fields(topic)) - first


def columns(topic: str) -> tuple[str, ...]:
    """The columns of the topic's journal, in their order."""
    return ("key_hash", *wire_fields(topic), *POSITION)


MOMENTS: Final = " UNION ALL ".join(
    f"SELECT recorded_at, least(occurred_at, recorded_at) AS moment FROM {journal}" for journal in JOURNAL.values()
)
"""A query for the events of all topics: when each was recorded, and its instant by the earlier of both clocks."""


def happened(topic: str) -> str:
    """A query for the events of the topic whose min(`occurred_at`, `recorded_at`) is at or after `$start` and before
    `$end`. In two parts, of which each finds its blocks of the journal, so that time does not grow with history."""
    return (
        f"SELECT * FROM {JOURNAL[topic]} WHERE occurred_at >= $start AND occurred_at < $end AND recorded_at >= $start"
        f" UNION ALL SELECT * FROM {JOURNAL[topic]}"
        " WHERE occurred_at >= $end AND recorded_at >= $start AND recorded_at < $end"
    )


def table_statements() -> list[str]:
    """The CREATE TABLE statements of all journals and their conflicts."""
    return [_table(topic, names[topic]) for names in (JOURNAL, CONFLICTS) for topic in SCHEMA_NAME]


def _table(topic: str, name: str) -> str:
    lines = ["key_hash BIGINT NOT NULL"]
    for field in schemas.current(SCHEMA_NAME[topic])["fields"]:
        nullable = isinstance(field["type"], list)
        compression = _UNCOMPRESSED if field["name"] in _IDS else ""
        lines.append(f"{field['name']} {_sql_type(field['type'])}{'' if nullable else ' NOT NULL'}{compression}")
    lines += [
        "recorded_at TIMESTAMP NOT NULL",
        "log_partition INTEGER NOT NULL",
        "log_offset BIGINT NOT NULL",
    ]
    return f"CREATE TABLE {name} (\n    " + ",\n    ".join(lines) + "\n)"


def _sql_type(kind: Any) -> str:
    if isinstance(kind, list):
        return _sql_type(kind[1])
    if isinstance(kind, str):
        return {"string": "VARCHAR", "long": "BIGINT", "int": "BIGINT", "bytes": "BLOB"}[kind]
    if kind["type"] == "array":
        return _sql_type(kind["items"]) + "[]"
    if kind["type"] == "record":
        return "STRUCT(" + ", ".join(f"{f['name']} {_sql_type(f['type'])}" for f in kind["fields"]) + ")"
    return "TIMESTAMP" if kind["type"] == "long" else "VARCHAR"
