"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`level`: ok, warning or error; `object`: of what; `remedy`: a command, or what to do."""

    level: str
    object: str
    finding: str
    remedy: str = ""
