"""The contents of `lifecycle.toml` as Python values, for the folds, the event models and the docs."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any, Final

DATA: Final[dict[str, Any]] = tomllib.loads(files(__package__).joinpath("lifecycle.toml").read_text(encoding="utf-8"))

STATES: Final[tuple[str, ...]] = tuple(DATA["states"])
TRANSITIONS: Final[dict[str, list[str]]] = DATA["transitions"]
GUARDS: Final[dict[str, dict[str, Any]]] = DATA["guards"]
CROSS_RULES: Final[tuple[str, ...]] = (*DATA["cross"]["campaign"], *DATA["cross"]["between_topics"])
VIOLATIONS: Final[tuple[str, ...]] = (
    *(
        f"{event}_when_{state}"
        for event, cells in TRANSITIONS.items()
        for state, cell in zip(STATES, cells, strict=True)
        if cell.endswith("!")
    ),
    *GUARDS,
    "conflicting_duplicate",
    *CROSS_RULES,
)
"""All violation codes."""
REVOCABLE: Final = frozenset(
    state
    for state, after in zip(STATES, TRANSITIONS["revoked"], strict=True)
    if not after.endswith("!") and state not in ("expired", "revoked")
)
"""States in which a coupon may be revoked and can still be used."""
GRACE_MINUTES: Final[int] = DATA["cross"]["grace_minutes"]
EXPIRY: Final[dict[str, Any]] = DATA["expiry"]
SWEPT: Final = "sweep:"
"""Prefix of the `event_id` of events that the ledger's own sweeps append."""
CORRECTED: Final = "correct:"
"""Prefix of the `event_id` of compensating events, which `correct` appends."""
NEEDS: Final[dict[str, dict[str, list[str]]]] = DATA["topics"]
CHOICES: Final[dict[str, list[str]]] = DATA["choices"]
CURRENCIES: Final[frozenset[str]] = frozenset(
    files(__package__).joinpath("currencies.txt").read_text(encoding="utf-8").split()
)


def types(topic: str) -> tuple[str, ...]:
    """All event types of a topic, in canonical order."""
    return tuple(NEEDS[topic])
