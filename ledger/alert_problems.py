"""Alerts about the rules themselves: one that cannot be evaluated, or about which the rules file is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from coupon_ledger.ledger.words import Note

EVALUATION: Final = {"type": "evaluation"}
"""The labels of the alert that says that a rule cannot be evaluated."""
RULES_FILE: Final = {"type": "rules_file"}
"""The labels of the alert that says that the rules file is wrong about a rule. Its evidence has `file`.

The evidence of both has `said`: the problem as a note, dumped."""
FILE_RULE: Final = "alert-rules"
"""Stands for the rule of problems of the rules file that are in no rule."""


def said_in(evidence: Mapping[str, Any], otherwise: str | None) -> Note | str | None:
    """What is wrong with a rule or with the rules file, as the evidence of the alert says; `otherwise` if that is no
    note."""
    try:
        return Note.loads(evidence["said"])
    except (AssertionError, LookupError, TypeError, ValueError):
        return otherwise
