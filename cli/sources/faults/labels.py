"""What is known about an injected fault: the label."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

KEY_FIELDS: Final = (
    "source",
    "channel",
    "store",
    "arm",
    "code",
    "device_id",
    "ip",
    "phone_prefix",
    "user_id",
    "coupon_id",
    "order_id",
)
"""The fields of events whose values a label can name."""


@dataclass(frozen=True)
class Label:
    """One injected fault.

    `start`, `end`: when the first and the last of its events happened; for a missing or delayed stream, from when to
    when events are missing or delayed. `keys`: by field of the events, the values that are part of the fault.
    `money_minor`: the money at stake, in minor units of `currency`.

    `event_ids`: the events that are the fault. `context_event_ids`: other events that were added with it, each ordinary
    in itself, such as the creation of the coupons. `removed_event_ids`: events of the clean stream that did not happen
    because of the fault. All other events are as in the clean stream, and arrive when they did.
    """

    kind: str
    start: datetime
    end: datetime
    campaign_id: str | None
    keys: Mapping[str, tuple[str, ...]]
    money_minor: int
    currency: str
    event_ids: tuple[str, ...]
    context_event_ids: tuple[str, ...] = field(default=())
    removed_event_ids: tuple[str, ...] = field(default=())

    def as_json(self) -> str:
        """One line of JSON. Instants are RFC 3339 in UTC, under the names `from` and `until`."""
        return json.dumps(
            {
                "kind": self.kind,
                "from": _written(self.start),
                "until": _written(self.end),
                "campaign_id": self.campaign_id,
                "keys": {name: list(values) for name, values in self.keys.items()},
                "money_minor": self.money_minor,
                "currency": self.currency,
                "event_ids": list(self.event_ids),
                "context_event_ids": list(self.context_event_ids),
                "removed_event_ids": list(self.removed_event_ids),
            },
            ensure_ascii=False,
        )

    def without(self, gone: frozenset[str]) -> Label:
        """The label after another fault has removed the events `gone`."""
        if gone.isdisjoint(self.event_ids) and gone.isdisjoint(self.context_event_ids):
            return self
        return replace(
            self,
            event_ids=tuple(i for i in self.event_ids if i not in gone),
            context_event_ids=tuple(i for i in self.context_event_ids if i not in gone),
        )


def write_labels(labels: Iterable[Label], path: Path) -> None:
    """Write the labels as JSON lines. Raises `OSError`."""
    path.write_text("".join(label.as_json() + "\n" for label in labels), encoding="utf-8")


def _written(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
