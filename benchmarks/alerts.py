"""The alert suite: are injected faults found, how soon, and how often is a quiet day accused?

    python -m benchmarks.alerts [--days 14] [--events 8000] [--seeds 1 2] [--faults KIND …]

For each seed, one stream of ordinary days is consumed with the default rules, and one more for each kind of fault. A
fault is *found* if an alert fires between its start and a day after its end that names one of its keys or its campaign,
or that has no key. All other alerts are false. Rules on the tables (violations) count from the instant since which they
hold. The events are folded as the consumer folds them, in the order of their arrival, without a log in between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from coupon_ledger.cli.sources.arrival import ARRIVES_AT, Frames
from coupon_ledger.cli.sources.faults import KINDS, Label, inject
from coupon_ledger.cli.sources.quiet import QuietWorld, quiet_days
from coupon_ledger.ledger.codec import SCHEMA_NAME
from coupon_ledger.ledger.columns import polars_schema
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.ledger.validity import split_valid
from coupon_ledger.projections import kept
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.rules_file import load
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live import cross
from coupon_ledger.projections.live.apply import fold_in, prepare
from coupon_ledger.projections.store import Store

_SLACK: Final = timedelta(days=1)
_AT_ONCE: Final = 50_000


@dataclass(frozen=True, slots=True)
class Found:
    """An alert: its rule, when it fired (UTC), and its key."""

    rule: str
    fired_at: datetime
    key: Mapping[str, str]


def positioned(frames: Frames) -> dict[str, pl.DataFrame]:
    """The events as they come from a log: validated, each recorded when it arrived."""
    found = {}
    for topic in INPUT_TOPICS:
        frame = frames.get(topic)
        if frame is None or not frame.height:
            continue
        frame = frame.sort(ARRIVES_AT, "event_id")
        schema = polars_schema(SCHEMA_NAME[topic])
        wire = frame.select(
            *(pl.col(n).cast(kind) if n in frame.columns else pl.lit(None, kind).alias(n) for n, kind in schema.items())
        )
        valid, invalid = split_valid(topic, wire)
        assert not invalid
        recorded = frame[ARRIVES_AT].gather(valid["row"]).dt.replace_time_zone(None).cast(pl.Datetime("us"))
        found[topic] = (
            valid.with_columns(pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None))
            .with_columns(
                recorded_at=recorded,
                log_partition=pl.lit(0, dtype=pl.Int32),
                log_offset=pl.col("row").cast(pl.Int64),
            )
            .drop("row")
        )
    return found


def consume(store: Store, frames: Frames) -> None:
    """Fold the events in the order of arrival, batch by batch."""
    events = positioned(frames)
    arrivals = pl.concat([frame["recorded_at"] for frame in events.values()]).sort()
    edges = [*arrivals.gather_every(_AT_ONCE, _AT_ONCE).to_list(), arrivals[-1]]
    after = datetime(1970, 1, 1)
    for until in edges:
        batch = {t: f.filter((f["recorded_at"] > after) & (f["recorded_at"] <= until)) for t, f in events.items()}
        with store.transaction():
            changes = [fold_in(store, prepare(t, frame))[1] for t, frame in batch.items() if frame.height]
            cross.settle(store, changes)
            kept.release(store, dict.fromkeys(INPUT_TOPICS, until))
        after = until


def alerts_of(frames: Frames, rules: Sequence[Rule]) -> list[Found]:
    """What the rules find in a stream."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.duckdb"
        create_database(path)
        with open_database(path) as store:
            with store.transaction():
                put_in_force(store, rules)
            consume(store, frames)
            return [*_episodes(store), *_on_tables(store, rules)]


def _episodes(store: Store) -> Iterator[Found]:
    for rule, at, key in store.rows("SELECT rule, fired_at, key FROM alert_episodes WHERE fired_at IS NOT NULL"):
        yield Found(rule, at.replace(tzinfo=UTC), json.loads(key))


def _on_tables(store: Store, rules: Sequence[Rule]) -> Iterator[Found]:
    from coupon_ledger.questions.alerts.offenders import offenders_of

    cursor = store.cursor()
    try:
        for rule in rules:
            if rule.expr.kind in ("violation", "sql", "guardrail", "reconciliation"):
                cursor.begin()
                for offender in offenders_of(cursor, rule):
                    yield Found(rule.name, offender.since.replace(tzinfo=UTC), offender.key)
                cursor.end()
    finally:
        cursor.close()


def belongs(found: Found, label: Label) -> bool:
    """Whether the alert is about the fault."""
    if not label.start <= found.fired_at <= label.end + _SLACK:
        return False
    named = {value for values in label.keys.values() for value in values}
    campaign = {label.campaign_id} if label.campaign_id else set()
    return not found.key or bool(set(found.key.values()) & (named | campaign))


@dataclass(frozen=True, slots=True)
class Score:
    """How one fault did. `delay`: from its start to the first alert that is about it; None if there was none."""

    kind: str
    seed: int
    delay: timedelta | None
    money_minor: int
    rules: tuple[str, ...]
    others: tuple[str, ...]


def scored(frames: Frames, label: Label, seed: int, rules: Sequence[Rule], quiet: Iterable[Found]) -> Score:
    """`quiet`: what the rules find in the stream without the fault."""
    found = alerts_of(frames, rules)
    mine = [f for f in found if belongs(f, label)]
    known = {(f.rule, tuple(f.key.items())) for f in quiet}
    others = [f.rule for f in found if not belongs(f, label) and (f.rule, tuple(f.key.items())) not in known]
    first = min((f.fired_at for f in mine), default=None)
    return Score(
        label.kind,
        seed,
        None if first is None else first - label.start,
        label.money_minor,
        tuple(sorted({f.rule for f in mine})),
        tuple(sorted(others)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--events", type=int, default=8_000, help="per day")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--faults", nargs="*", default=list(KINDS))
    parser.add_argument("--rules", default="", help="a file of rules; by default the defaults")
    options = parser.parse_args()
    loaded = load(options.rules)
    rules = [r for r in loaded.rule_set.in_force() if r.expr.kind not in ("health",)]
    scores: list[Score] = []
    false: list[str] = []
    for seed in options.seeds:
        clean = quiet_days(QuietWorld(seed=seed, days=options.days, events_per_day=options.events))
        started = time.perf_counter()
        quiet = alerts_of(clean, rules)
        false += [f.rule for f in quiet]
        print(f"seed {seed}: {len(quiet)} alerts on {options.days} quiet days: {sorted(f.rule for f in quiet)}"
              f" ({time.perf_counter() - started:.0f} s)", flush=True)  # fmt: skip
        for kind in options.faults:
            frames, [label] = inject(clean, [kind], seed)
            score = scored(frames, label, seed, rules, quiet)
            scores.append(score)
            told: Any = "MISSED" if score.delay is None else score.delay
            print(f"  {kind:20} {told!s:28} {score.money_minor / 100:12,.2f}  {', '.join(score.rules)}"
                  f"{'  | others: ' + ', '.join(score.others) if score.others else ''}", flush=True)  # fmt: skip
    _summary(scores, false, options.days * len(options.seeds))


def _summary(scores: Sequence[Score], false: Sequence[str], days: int) -> None:
    found = [s for s in scores if s.delay is not None]
    money = sum(s.money_minor for s in scores)
    caught = sum(s.money_minor for s in found)
    others = sum(len(s.others) for s in scores)
    about = sum(len(s.rules) for s in found)
    delays = [s.delay / timedelta(minutes=1) for s in found if s.delay is not None]
    print(f"\nfound {len(found)} of {len(scores)} faults; false alerts per quiet day {len(false) / days:.2f};"
          f" median delay {statistics.median(delays) if delays else float('nan'):.0f} min;"
          f" money caught {caught / max(money, 1):.1%}; precision beside faults {about / max(about + others, 1):.1%}"
          f" ({len(rules_of(scores))} rules fired)")  # fmt: skip


def rules_of(scores: Iterable[Score]) -> set[str]:
    return {rule for score in scores for rule in score.rules}


if __name__ == "__main__":
    main()
