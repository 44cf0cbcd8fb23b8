"""What the process that sends messages is given: an address, and a message in all the forms that a destination may
take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message in the language of its channel. `title`: one line. `text`, `markdown`, `html`: the same in three
    forms, without the title. `short`: title and text in a few words, for SMS. `data`: the body of a webhook.
    `thread`: what messages about the same alert share. `firing`: whether something is wrong (still)."""

    title: str
    text: str
    short: str
    markdown: str
    html: str
    severity: str
    firing: bool
    thread: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt. `kind`: of the destination. `address`: with the secret in its place. `secret`: the key with which a
    webhook is signed. `key`: the idempotency key, the same at every attempt. `delivered`: recipients who got the
    message at an earlier attempt."""

    kind: str
    address: str
    secret: str
    timeout_s: float
    key: str
    text: Rendered
    delivered: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Job:
        return Job(**{**data, "text": Rendered(**data["text"]), "delivered": tuple(data["delivered"])})
