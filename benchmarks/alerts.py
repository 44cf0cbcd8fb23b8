"""The alert suite: are injected faults found, how soon, and how often is a quiet day accused?

    python -m benchmarks.alerts [--worlds quiet few …] [--days 14] [--events 8000] [--seeds 1 2] [--faults KIND …]

For each world and seed, one stream of ordinary days is played to the default rules (`alert_stream.py`), and some more
with faults mixed in, each with several kinds. A fault is *found* if people are told of an alert between its start and a
day after its end that names one of its keys or its campaign, or that names nothing; alerts for information do not
count, nor do those that are in the stream without faults too. What people are told beside that is a false alert.

The worlds: `quiet` (`cli/sources/quiet`); `few`, with 2,000 events a day; `sale`, with an announced day of five times
as many events; `crowd`, with few people, large families, and half of all claims behind a few addresses; `retail`, the
real year of a retailer, whose alerts without faults are listed by rule.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks.alert_scores import Stream, by_kind, scored, summary
from benchmarks.alert_stream import STEPS, Found, alerts_of
from coupon_ledger.cli.sources.arrival import Frames, with_arrivals
from coupon_ledger.cli.sources.complete_journey import load as retail_tables
from coupon_ledger.cli.sources.complete_journey import translate
from coupon_ledger.cli.sources.faults import KINDS, inject
from coupon_ledger.cli.sources.quiet import QuietWorld, quiet_days
from coupon_ledger.projections.alerts.rules import RuleSet, Sale
from coupon_ledger.projections.alerts.rules_file import load

RESULTS: Final = Path(__file__).with_name("latest-alerts.json")
_RETAIL_STEPS: Final = (timedelta(days=30), timedelta(days=2))
_SHORT: Final = timedelta(hours=12)
_SALE_DAY: Final = 10
_SALE_TIMES: Final = 5
_START: Final = QuietWorld().start

World = Callable[[int, int, int], tuple[Frames, tuple[Sale, ...]]]
"""Makes a stream of a seed, a number of days and of events a day, and the calendar of its sales."""


def _quiet(seed: int, days: int, events: int) -> tuple[Frames, tuple[Sale, ...]]:
    return quiet_days(QuietWorld(seed=seed, days=days, events_per_day=events)), ()


def _few(seed: int, days: int, events: int) -> tuple[Frames, tuple[Sale, ...]]:
    return _quiet(seed, days, events // 4)


def _crowd(seed: int, days: int, events: int) -> tuple[Frames, tuple[Sale, ...]]:
    people = {"people": events // 5, "family_share": 0.25, "office_share": 0.8, "mobile_share": 0.8}
    world = QuietWorld(seed=seed, days=days, events_per_day=events, experiment=False, **people)  # type: ignore[arg-type]
    return quiet_days(world), ()


def _sale(seed: int, days: int, events: int) -> tuple[Frames, tuple[Sale, ...]]:
    """The quiet days, and beside them another world of one day in which the same people claim much more."""
    starts = _START + timedelta(days=min(_SALE_DAY, days - 2))
    extra = QuietWorld(
        seed=seed + 1_000,
        days=1,
        events_per_day=(_SALE_TIMES - 1) * events,
        start=starts,
        people=events,
        flash_sales=False,
        experiment=False,
    )
    ordinary, _ = _quiet(seed, days, events)
    sale = quiet_days(extra)
    frames = {topic: pl.concat([frame, sale[topic]], how="diagonal") for topic, frame in ordinary.items()}
    return frames, (Sale(name="sale day", starts=starts, ends=starts + timedelta(days=1)),)


def _retail(seed: int, _days: int, _events: int) -> tuple[Frames, tuple[Sale, ...]]:
    return with_arrivals(translate(retail_tables()), seed), ()


WORLDS: Final[Mapping[str, World]] = {"quiet": _quiet, "few": _few, "sale": _sale, "crowd": _crowd, "retail": _retail}


def main() -> None:
    options = _options()
    rule_set = load(options.rules).rule_set
    streams: list[Stream] = []
    quiet: dict[str, tuple[list[Found], int]] = {}
    for world in options.worlds:
        for seed in options.seeds[:1] if world == "retail" else options.seeds:
            found, days, of_world = _played(world, seed, options, rule_set)
            before, days_before = quiet.get(world, ([], 0))
            quiet[world] = [*before, *found], days_before + days
            streams += of_world
    results = {
        "conditions": _conditions(options),
        "summary": summary(streams, quiet),
        "kinds": list(by_kind([score for stream in streams for score in stream.scores])),
        "quiet_alerts": {world: _counted(found) for world, (found, _) in quiet.items()},
        "other_alerts": _counted([alert for stream in streams for alert in stream.others]),
    }
    _print(results)
    if options.save:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="*", choices=WORLDS, default=["quiet"])
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--events", type=int, default=8_000, help="per day")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--faults", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--streams", type=int, default=2, help="among how many streams the faults are dealt")
    parser.add_argument("--rules", default="", help="a file of rules; by default the defaults")
    parser.add_argument("--save", action="store_true", help=f"write the figures to {RESULTS.name}")
    return parser.parse_args()


def _played(
    world: str, seed: int, options: argparse.Namespace, rule_set: RuleSet
) -> tuple[list[Found], int, list[Stream]]:
    """What is found without faults, the number of days, and what is found with them."""
    clean, calendar = WORLDS[world](seed, options.days, options.events)
    rules = rule_set.model_copy(update={"calendar": calendar}).in_force()
    started = time.process_time()
    steps = _RETAIL_STEPS if world == "retail" else STEPS
    quiet = alerts_of(clean, rules, steps=steps)
    days = _days(clean) if world == "retail" else options.days
    told = _counted(quiet)
    print(f"{world}, seed {seed}: {sum(told.values())} alerts on {days} days without faults"
          f" ({time.process_time() - started:.0f} s): {told}", flush=True)  # fmt: skip
    streams = []
    for number in range(options.streams):
        kinds = options.faults[number :: options.streams]
        if kinds:
            frames, labels = inject(clean, kinds, seed)
            short = [(label.start, label.end) for label in labels if label.end - label.start <= _SHORT]
            stream = scored(world, seed, frames, labels, alerts_of(frames, rules, short, steps), quiet)
            streams.append(stream)
            _print_stream(stream)
    return quiet, days, streams


def _days(frames: Frames) -> int:
    times = pl.concat([frame["occurred_at"] for topic, frame in frames.items() if topic == "order.events"])
    span = times.dt.date().n_unique()
    return span


def _counted(found: Sequence[Found]) -> dict[str, int]:
    """By rule, the alerts that people are told, most first."""
    return dict(Counter(alert.name for alert in found if not alert.held).most_common())


def _print_stream(stream: Stream) -> None:
    for score in stream.scores:
        delay = "MISSED" if score.delay is None else str(score.delay).partition(".")[0]
        rules = ", ".join(f"{name} {n}" if n > 1 else name for name, n in Counter(score.alerts).items())
        print(f"  {score.kind:20}{delay:>18}{score.caught:>6.0%} to come   {rules} ({score.held} held)", flush=True)
    for alert in stream.others:
        print(f"    about none: {alert.name} {dict(alert.labels)} {alert.fired_at:%m-%d %H:%M}", flush=True)


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: getattr(options, name) for name in ("worlds", "seeds", "days", "events", "faults")},
    }


def _print(results: Mapping[str, Any]) -> None:
    print(
        f"\n{'kind':20}{'found':>8}{'median':>9}{'worst':>9}{'alerts':>8}{'held':>6}{'money':>7}{'to come':>9}   rules"
    )
    for row in results["kinds"]:
        median, worst = (_minutes(row[name]) for name in ("median_delay_minutes", "worst_delay_minutes"))
        found = f"{row['found']}/{row['faults']}"
        print(f"{row['kind']:20}{found:>8}{median:>9}{worst:>9}{row['alerts_per_fault']:>8}{row['held_per_fault']:>6}"
              f"{row['money_found']:>7.0%}{row['money_before_harm']:>9.0%}   {', '.join(row['rules'])}")  # fmt: skip
    print(f"\n{json.dumps(results['summary'])}\nalerts about no fault: {results['other_alerts']}")
    for world, rules in results["quiet_alerts"].items():
        print(f"alerts without faults, {world}: {rules}")


def _minutes(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f} min" if value < 600 else f"{value / 1440:.1f} d"


if __name__ == "__main__":
    main()
