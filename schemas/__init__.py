"""The Avro schemas: one record per topic, and every released version of each.

`<name>.avsc` is the current version, `released/<name>/v<N>.avsc` are the released ones; a released file is never
edited. The current version equals the newest released one, or adds to it.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

Schema = dict[str, Any]

NAMES = (
    *("coupon_event", "order_event", "campaign_event", "user_event"),
    *("dead_letter", "operation_event", "alert_event"),
)


@cache
def current(name: str) -> Schema:
    """The current schema of a record, as parsed JSON."""
    schema: Schema = json.loads(files(__package__).joinpath(f"{name}.avsc").read_text(encoding="utf-8"))
    return schema


@cache
def released(name: str) -> tuple[Schema, ...]:
    """Every released version of a record's schema, oldest first."""
    folder = files(__package__).joinpath("released").joinpath(name)
    versions = sorted(
        (int(f.name.removeprefix("v").removesuffix(".avsc")), f) for f in folder.iterdir() if f.name.endswith(".avsc")
    )
    return tuple(json.loads(f.read_text(encoding="utf-8")) for _, f in versions)
