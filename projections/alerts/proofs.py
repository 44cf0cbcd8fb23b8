"""Proofs of rules whose action is taken without asking: what a backtest on known faults found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts.planned import text_of

FEWEST: Final = 5
"""Number of alerts below which a backtest proves nothing."""
UNFOUNDED: Final = 0.05
"""The highest share of alerts that may be about no fault."""
_Count = Annotated[int, Field(ge=0, le=10**12)]


class Proof(BaseModel):
    """What a backtest found of a rule. `condition`: that of the rule that was tried (`Rule.condition`). `alerts`: their
    number; `unfounded`: the number of those that are about no known fault; `faults_found`: the number of faults that
    an alert is about."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, strict=True)

    condition: str
    alerts: _Count
    unfounded: _Count
    faults_found: _Count


def proof_of(path: Path, name: str, rule: str) -> tuple[dict[str, Any], Note | None]:
    """What the JSON of `alerts backtest --labels FILE --output json` in this file says of a rule, as data of `Proof`;
    and what is wrong with the file, None if nothing. `name`: what people call the file."""
    text, said = text_of(path, name)
    if text is None:
        return {}, said
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = None
    mine = [r for r in rows if isinstance(r, dict) and r.get("rule") == rule] if isinstance(rows, list) else []
    fields = list(Proof.model_fields)
    if len(mine) != 1 or any(mine[0].get(field) is None for field in fields):
        said = note("the file {file} is no proof of rule {rule}; write it with `coupon-ledger alerts backtest"
                    " --rule {rule} --labels FILE --output json`", file=name, rule=rule)  # fmt: skip
        return {}, said
    return {field: mine[0][field] for field in fields}, None


def check(proof: Proof, condition: str) -> None:
    """Raises `ValueError` if the proof is not of this condition, or is too weak."""
    if proof.condition != condition:
        raise ValueError("has a proof of another condition or window; run alerts backtest again with this file")
    if proof.alerts < FEWEST:
        raise ValueError("has a proof of fewer than five alerts; try it on a longer time, or leave automatic out")
    if proof.unfounded > UNFOUNDED * proof.alerts:
        raise ValueError(
            "has a proof with more than one alert in twenty about no fault; raise its threshold, or leave automatic out"
        )
