"""A ledger of coupon events. Systems that publish events, or ask over HTTP, import:

    from coupon_ledger import Client, Publisher, events

They are loaded at their first use, so that a process that needs neither, such as the command's help, starts faster.
The packages of `coupon_ledger` (`coupon_ledger.ledger`, …) are the folders at the project's top level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coupon_ledger.api.http_client import Client
    from coupon_ledger.ledger import events
    from coupon_ledger.ledger.publisher import Publisher

__all__ = ["Client", "Publisher", "events"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "Client":
        return import_module("coupon_ledger.api.http_client").Client
    if name == "Publisher":
        return import_module("coupon_ledger.ledger.publisher").Publisher
    if name == "events":
        return import_module("coupon_ledger.ledger.events")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
