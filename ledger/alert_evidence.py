"""What the evidence of an alert says, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values_in(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """All values of the evidence: those that the rule's evaluation found, which are in `details`, beside the others."""
    values = dict(evidence)
    details = values.pop("details", None)
    return values | details if isinstance(details, dict) else values
