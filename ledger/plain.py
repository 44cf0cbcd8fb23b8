"""Converts values to JSON types: instants to RFC 3339 (UTC, microseconds, Z), days to ISO 8601, bytes to
hexadecimal."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any


def instant(value: datetime) -> str:
    """RFC 3339 with microseconds and Z. A naive instant is UTC."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


def plain(value: Any) -> Any:
    """Convert a value to JSON types."""
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
