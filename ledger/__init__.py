"""The ledger itself: events, their bytes, the log. What an upstream system imports to publish:

from ledger import Publisher, events

Both are loaded when they are first named, so that who needs neither (the command's help) does not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ledger import events
    from ledger.publisher import Publisher

__all__ = ["Publisher", "events"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "Publisher":
        return import_module("ledger.publisher").Publisher
    if name == "events":
        return import_module("ledger.events")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
