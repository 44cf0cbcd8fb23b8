"""A ledger of coupon events. What an upstream system imports to publish:

    from coupon_ledger import Publisher, events

Each is loaded at its first use: a process that needs neither, such as the command's help, does not wait for them.
The packages in here are the folders of the project's top level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coupon_ledger.ledger import events
    from coupon_ledger.ledger.publisher import Publisher

__all__ = ["Publisher", "events"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "Publisher":
        return import_module("coupon_ledger.ledger.publisher").Publisher
    if name == "events":
        return import_module("coupon_ledger.ledger.events")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
