"""Converts Python values to JSON types: instants to text in RFC 3339 (UTC, with microseconds and Z), days to text in
ISO 8601, bytes to hexadecimal text."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any


def instant(value: datetime) -> str:
    """An instant as text in RFC 3339, with microseconds and Z. `value`: in UTC; its time zone, if it has one, is
    ignored."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


def plain(value: Any) -> Any:
    """Convert a value to JSON types. Lists, tuples and dictionaries are converted with everything in them; other values
    are returned unchanged."""
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
