"""The findings of `coupon-ledger doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of `coupon-ledger doctor`. `level`: ok, warning or error. `object`: what was examined. `finding`:
    what was found, in words. `remedy`: a command or an instruction; empty if nothing is to be done."""

    level: str
    object: str
    finding: str
    remedy: str = ""
