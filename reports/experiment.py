"""How the results of an experiment are shown: the titles and columns of the tables, and which effects they contain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coupon_ledger.reports.text import Row


def without_notes(row: Row) -> Row:
    """The row without its notes, which are templates for translation. Machines find the same sentences in English in
    other columns."""
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
    """The columns of the table `name` that people see. The intervals are those on which the conclusions are based."""
    return with_the_intervals_that_count(COLUMNS[name].split(), rows)


def with_the_intervals_that_count(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The columns to show. If the rows have corrected intervals, as they do with several treatments, these replace the
    plain intervals, and amounts without a corrected interval are shown without any. `--wide` shows all intervals."""
    wide = {column: f"{column.removesuffix(end)}simultaneous_{end}" for column in columns for end in ("low", "high")
            if column.endswith(end)}  # fmt: skip
    if not any(row.get(name) is not None for row in rows for name in wide.values()):
        return list(columns)
    return [wide.get(column, column) for column in columns if column not in ("low_minor", "high_minor")]


def main_effects(effects: Sequence[Row]) -> list[Row]:
    """The effects that people see: those on the main metric by every method, and those on other metrics by the plain
    method."""
    main = effects[0]["metric"]
    return [row for row in effects if row["metric"] == main or row["method"] == "plain"]
