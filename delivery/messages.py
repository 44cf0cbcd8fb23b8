"""What a message about an alert says, as data: what, how much, since when, what to do, with the alert's id.
`rendering.py` makes texts of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from coupon_ledger.ledger.plain import instant
from coupon_ledger.projections.alerts.rules import SEVERITIES, Severity

MessageKind = Literal["firing", "resolved", "repeat", "digest", "escalation", "flapping", "test"]
KINDS: Final[tuple[MessageKind, ...]] = (*("firing", "resolved", "repeat", "digest", "escalation", "flapping", "test"),)


@dataclass(frozen=True, slots=True)
class Item:
    """One alert of a group or digest: its summary by language, and its key by name."""

    summary: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """What a message is about.

    `key`: the idempotency key, the same if the same message is made again, such as `ID/firing/1`; printable ASCII, up
    to 200 characters. `alert_id`: opaque, without data about persons. `summary`: by language, with values in it.
    `keys`: the key of the alert, by name. `value`, `threshold`: the number that the rule looks at; `metric`: the name
    of its column or metric, which decides how it is written. `since`, `until`: instants in UTC, without a zone, or
    aware. `playbook`: what to do, as the rule says; may have links, so without values from events. `link`: where the
    alert is shown. `items`: the alerts of a digest or group. `further`: how many more of them are not named.
    """

    key: str
    alert_id: str
    rule: str
    severity: Severity
    kind: MessageKind
    summary: Mapping[str, str]
    since: datetime
    until: datetime | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None
    value: float | None = None
    threshold: float | None = None
    money_minor: int | None = None
    currency: str | None = None
    playbook: str | None = None
    link: str | None = None
    items: tuple[Item, ...] = ()
    further: int = 0

    def __post_init__(self) -> None:
        if not (self.key.isascii() and self.key.isprintable() and 0 < len(self.key) <= 200):
            raise ValueError(f"message key {self.key!r}: not 1 to 200 printable ASCII characters")
        if self.severity not in SEVERITIES or self.kind not in KINDS:
            raise ValueError(f"message {self.key}: unknown severity {self.severity!r} or kind {self.kind!r}")

    def as_json(self) -> dict[str, Any]:
        """As plain values, from which `from_json` makes the message again. Leaves out what is not known."""
        values = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        for name in ("since", "until"):
            if name in values:
                values[name] = instant(_naive(values[name]))
        values["items"] = [{"summary": dict(item.summary), "keys": dict(item.keys)} for item in self.items]
        return {**values, "summary": dict(self.summary), "keys": dict(self.keys)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> AlertMessage:
        instants = {n: _naive(datetime.fromisoformat(data[n])) for n in ("since", "until") if n in data}
        return AlertMessage(**{**data, **instants, "items": tuple(Item(**item) for item in data["items"])})


def _naive(at: datetime) -> datetime:
    return at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)
