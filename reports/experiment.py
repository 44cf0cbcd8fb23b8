"""How the results of an experiment are shown: titles, columns, and which effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coupon_ledger.reports.text import Row


def without_notes(row: Row) -> Row:
    """The row without its notes (sentences as templates, for translation). Machines get the same sentences in English
    from other columns."""
    plain = {name: value for name, value in row.items() if not name.startswith("conclusion_note")}
    return plain | {"warnings": [{n: v for n, v in w.items() if n != "note"} for w in row["warnings"]]}


COLUMNS: Final = {
    "arms": "arm assigned people planned_share share got_coupon face_value_minor buyers orders coupon_orders",
    "effects": "arm metric method control_mean treated_mean effect low high relative_effect p p_corrected",
    "returns": "arm incremental_margin_minor low_minor high_minor cost_minor roi roi_low roi_high simple_roi",
    "parts": "arm part control treated effect low high p_corrected",
}

TITLES: Final = {
    "arms": "Arms",
    "effects": "Effects per person assigned",
    "returns": "Return on cost (simple ROI is not incremental)",
    "parts": "By part of the people",
}


def columns_of(name: str, rows: Sequence[Row]) -> list[str]:
    """The columns that people see, with the intervals that the conclusions are based on."""
    return with_the_intervals_that_count(COLUMNS[name].split(), rows)


def with_the_intervals_that_count(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Replace plain intervals by corrected ones if there are any, as with several treatments. `--wide` shows both. An
    amount without a corrected interval is then shown without any interval."""
    wide = {column: f"{column.removesuffix(end)}simultaneous_{end}" for column in columns for end in ("low", "high")
            if column.endswith(end)}  # fmt: skip
    if not any(row.get(name) is not None for row in rows for name in wide.values()):
        return list(columns)
    return [wide.get(column, column) for column in columns if column not in ("low_minor", "high_minor")]


def main_effects(effects: Sequence[Row]) -> list[Row]:
    """The effects that people see: by every method for the main metric, by the plain method for the others."""
    main = effects[0]["metric"]
    return [row for row in effects if row["metric"] == main or row["method"] == "plain"]
