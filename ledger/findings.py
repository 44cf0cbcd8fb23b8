"""The findings of `coupon-ledger doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`level`: ok, warning or error; `object`: what was examined; `remedy`: a command or an instruction."""

    level: str
    object: str
    finding: str
    remedy: str = ""
