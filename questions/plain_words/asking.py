"""Asking a question in plain words of a source: the names that it knows, what was understood, and the rows.

The source decides what may be read: pass one that is limited to a reader's rights, and nothing else is reached here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from coupon_ledger.ledger.rules import CHOICES
from coupon_ledger.questions.asking import AsOf, Source
from coupon_ledger.questions.plain_words.readings import Outcome, Reading, Refused, Understood, Unsure, Vocabulary
from coupon_ledger.questions.plain_words.understanding import understand

Row = dict[str, Any]
_SOURCES_OF_NAMES: Final = (
    ("channel", "issued_events"), ("channel", "orders"), ("store", "orders"), ("region", "orders"),
    ("segment", "orders"), ("segment", "net_uses"),
)  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """What was understood, the rows (None if nothing was asked), whether there are more rows, and the state that was
    read."""

    outcome: Outcome
    rows: list[Row] | None
    more: bool
    as_of: AsOf


def vocabulary_of(source: Source) -> tuple[Vocabulary, AsOf]:
    """The names of campaigns, channels, stores, regions and segments in the database, and the state that was read."""
    answer = source.ask("campaigns")
    campaigns = {row["campaign_id"]: row["name"] for row in _rows(answer.frames) if row["campaign_id"] is not None}
    values: dict[str, set[str]] = {"coupon_type": set(CHOICES["coupon_type"])}
    for dimension, metric in _SOURCES_OF_NAMES:
        rows = _rows(source.ask("metrics", names=[metric], by=[dimension]).frames)
        values.setdefault(dimension, set()).update(row[dimension] for row in rows if row[dimension])
    return Vocabulary(campaigns, {name: tuple(sorted(found)) for name, found in values.items()}), answer.as_of


def ask(source: Source, text: str, zone: str, lang: str = "en", limit: int = 50) -> Answered:
    """Understand `text`, and ask if it was understood. At most `limit` rows. `source`: a snapshot, so that names and
    answer are of one state. Raises the errors of the question itself."""
    vocabulary, state = vocabulary_of(source)
    outcome = understand(text, vocabulary, state.data_clock, zone, lang)
    if not isinstance(outcome, Understood):
        return Answered(outcome, None, False, state)
    rows, more = rows_of(source, outcome.reading, limit)
    return Answered(outcome, rows, more, state)


def rows_of(source: Source, reading: Reading, limit: int) -> tuple[list[Row], bool]:
    """The rows of a reading in its order, and whether there are more than `limit`, or than its top N."""
    rows = list(_rows(source.ask(reading.question, **reading.parameters).frames))
    if reading.order is not None:
        rows = sorted(rows, key=lambda row: _place(row, reading))
    most = min(limit, reading.top) if reading.top else limit
    return rows[:most], len(rows) > limit and not (reading.top and reading.top <= limit)


def _place(row: Row, reading: Reading) -> tuple[Any, ...]:
    """Rows without a value come last. Amounts of different currencies are never compared."""
    value = row[str(reading.order)]
    return (row.get("currency") or "", value is None, 0 if value is None else -value if reading.descending else value)


def _rows(frames: Iterator[Any]) -> Iterator[Row]:
    for frame in frames:
        yield from frame.iter_rows(named=True)


def as_plain(answered: Answered) -> Row:
    """The answer for machines, with the notes as English sentences."""
    outcome = answered.outcome
    plain: Row = {"outcome": type(outcome).__name__.lower()}
    if isinstance(outcome, Understood):
        plain |= {"confidence": outcome.confidence, **reading_as_plain(outcome.reading)}
        plain["doubts"] = [str(doubt) for doubt in outcome.doubts]
    elif isinstance(outcome, Unsure | Refused):
        plain["why"] = str(outcome.why)
    plain["alternatives"] = [reading_as_plain(one) for one in outcome.alternatives]
    if answered.rows is not None:
        plain |= {"rows": answered.rows, "more": answered.more}
    return plain


def reading_as_plain(reading: Reading) -> Row:
    return {
        "question": reading.question,
        "parameters": dict(reading.parameters),
        "order": reading.order and {"by": reading.order, "descending": reading.descending},
        "top": reading.top,
        "chips": [{"kind": c.kind, "value": c.value, "text": str(c.said)} for c in reading.chips],
    }
