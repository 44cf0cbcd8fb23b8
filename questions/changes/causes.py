"""The causes of a difference between two states of knowledge: their codes, in the order in which they are applied, and
the SQL that finds the cause of a delivery. The kinds of events are in causes.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.rules import CORRECTED, SWEPT
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS

_DATA: Final[dict[str, Any]] = tomllib.loads(files(__package__).joinpath("causes.toml").read_text(encoding="utf-8"))
KINDS: Final[dict[str, dict[str, Any]]] = _DATA["kinds"]
CHAINS: Final[dict[str, list[str]]] = _DATA["chains"]

REPLAYED: Final = "replayed_records"
CONFLICT: Final = "other_contents"
OTHER: Final = "other_events"
SWEEP: Final = "sweeps"
CORRECTION: Final = "corrections"
SEVERAL: Final = "several_slices"
CLOCK: Final = "clock"
GOODS_RATES: Final = "goods_rates"
REST: Final = "unexplained"
BEFORE, AFTER, CHANGE = "before", "after", "change"

CAUSES: Final = (
    REPLAYED,
    CONFLICT,
    *(f"{when}_{kind}" for kind in KINDS for when in ("late", "new")),
    OTHER,
    SWEEP,
    CORRECTION,
    CLOCK,
    GOODS_RATES,
)
"""All causes, in the order in which they are applied. The stage of a cause is its place, counted from 1."""
_STAGE: Final = {cause: stage for stage, cause in enumerate(CAUSES, 1)}
_SPAN: Final = re.compile(r"([a-z]+\.[a-z-]+):([0-9]{1,9}):([0-9]{1,18})-([0-9]{1,18})")

Spans = Sequence[tuple[str, int, int, int]]
"""Runs of records: topic, partition, first and last offset."""


def stage_of(cause: str) -> int:
    return _STAGE[cause]


def stage_sql(topic: str, replayed: Spans, horizon: datetime | None) -> str:
    """SQL for the stage of a delivery of this topic. `horizon`: until when an event must have happened to be late; None
    if none is. The SQL uses the column `again` of `Stages`."""
    late = "false" if horizon is None else f"occurred_at <= TIMESTAMP '{horizon}'"
    kinds = [
        f"WHEN type IN ({', '.join(map(_text, kind['types']))})"
        f" THEN if({late}, {_STAGE[f'late_{name}']}, {_STAGE[f'new_{name}']})"
        for name, kind in KINDS.items()
        if kind["topic"] == topic
    ]
    return f"""
        CASE WHEN {within(topic, replayed)} THEN {_STAGE[REPLAYED]}
             WHEN again THEN {_STAGE[CONFLICT]}
             WHEN starts_with(event_id, '{CORRECTED}') THEN {_STAGE[CORRECTION]}
             WHEN starts_with(event_id, '{SWEPT}') THEN {_STAGE[SWEEP]}
             {" ".join(kinds)}
             ELSE {_STAGE[OTHER]} END
    """


def within(topic: str, spans: Spans) -> str:
    """The SQL condition that a delivery of this topic is in one of the spans."""
    runs = [
        f"(log_partition = {partition} AND log_offset BETWEEN {first} AND {last})"
        for of, partition, first, last in spans
        if of == topic
    ]
    return f"({' OR '.join(runs) or 'false'})"


def spans_of(texts: Sequence[str]) -> Spans:
    """Parse spans, each as TOPIC:PARTITION:FIRST-LAST. Raises `WrongQuestion`."""
    spans = []
    for text in texts:
        parts = _SPAN.fullmatch(text)
        if parts is None or parts[1] not in INPUT_TOPICS:
            raise WrongQuestion(f"replayed {text}: is no run of records; write TOPIC:PARTITION:FIRST-LAST, such as"
                                f" {COUPON}:2:75632-75640")  # fmt: skip
        spans.append((parts[1], int(parts[2]), int(parts[3]), int(parts[4])))
    return spans


def _text(value: str) -> str:
    return f"'{value}'"
