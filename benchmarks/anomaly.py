"""How early the metric detector sees labelled anomalies, and how often it cries wolf.

    python -m benchmarks.anomaly FOLDER [--threshold 0.5] [--series]

FOLDER holds `data/<group>/<name>.csv` (timestamp, value) and `windows.json`, which maps `<group>/<name>.csv` to its
list of [first, last] instants: the format of the Numenta Anomaly Benchmark (NAB, github.com/numenta/NAB, `data` and
`labels/combined_windows.json`).

Scored as NAB v1.1's standard profile (Lavin and Ahmad 2015, arXiv:1510.03336; section III and `nab/sweeper.py`):

- The first 15% of a series, at most 750 rows, are not scored.
- In a window only the earliest alert counts, by its position: 1 at the start, 0 at the end. A missed window costs 1.
- An alert outside a window costs up to 0.11, less shortly after one.
- One threshold for the whole corpus; no alert at all is 0, every window's start and nothing else is 100.

Prints the score of each group and of all series at the detector's own threshold, at the best one, and where the
threshold for each group is the best one of the other groups; beside them what NAB publishes of other detectors on all
58 series. The processor time is of one process.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from coupon_ledger.analysis.detector import THRESHOLD, Detector

Array = npt.NDArray[Any]

FALSE_ALERT: Final = 0.11
PROBATION: Final = 0.15
MOST_PROBATION: Final = 750
PUBLISHED: Final = {
    "windowed Gaussian": 39.6,
    "KNN-CAD": 58.0,
    "CAD OSE": 69.9,
    "Numenta HTM": 70.0,
    "ARTime": 74.9,
}
"""NAB's scoreboard, standard profile, with thresholds optimised on the same 58 series."""


@dataclass(frozen=True)
class Labelled:
    """A series with a score per row. `windows`: first and last row of each, in order, not overlapping."""

    name: str
    scores: Array
    windows: Sequence[tuple[int, int]]

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


def sigmoid(position: float) -> float:
    """NAB's scaled sigmoid: 0.987 at -1, 0 at 0, -1 from 3 on."""
    return -1.0 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1


def alert_values(rows: int, windows: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
    """What an alert on each row is worth, and the number of the window that the row is in (-1: none)."""
    value, inside = np.zeros(rows), np.full(rows, -1)
    before: tuple[int, int] | None = None
    begin = 0
    for number, (first, last) in enumerate([*windows, (rows, rows)]):
        for row in range(begin, min(first, rows)):
            wide = (before[1] - before[0]) or 1 if before else 1
            value[row] = FALSE_ALERT * (-1.0 if before is None else sigmoid((row - before[1]) / wide))
        for row in range(first, min(last + 1, rows)):
            value[row] = sigmoid(-(last - row + 1) / (last - first + 1)) / sigmoid(-1.0)
            inside[row] = number
        before, begin = (first, last), last + 1
    return value, inside


def gains(series: Labelled) -> Array:
    """How the series' net value changes as the threshold falls: rows of (threshold, change). The sum of the changes at
    or above a threshold, less the number of windows, is the net value at that threshold."""
    rows = len(series.scores)
    start = min(int(PROBATION * rows), MOST_PROBATION)
    value, inside = alert_values(rows, series.windows)
    scored = np.arange(rows) >= start
    changes = [np.column_stack((series.scores, value))[scored & (inside < 0)]]
    for number in range(len(series.windows)):
        here = scored & (inside == number)
        firsts, most = [], -math.inf
        for score, worth in zip(series.scores[here], value[here], strict=True):
            if score > most:
                firsts.append((score, worth))
                most = score
        now = -1.0
        for score, worth in reversed(firsts):
            changes.append(np.array([[score, worth - now]]))
            now = worth
    return np.concatenate(changes)


def corpus_score(corpus: Sequence[Labelled], threshold: float) -> float:
    """NAB's normalised score, 100 at best; NaN without a window."""
    windows = sum(len(series.windows) for series in corpus)
    if not windows:
        return math.nan
    net = sum(float(change[change[:, 0] >= threshold, 1].sum()) for change in map(gains, corpus))
    return 100 * net / (2 * windows)


def best_threshold(corpus: Sequence[Labelled]) -> float:
    """The threshold with the highest score of the corpus; infinite if none is better than no alert."""
    changes = np.concatenate([gains(series) for series in corpus])
    changes = changes[np.argsort(-changes[:, 0], kind="stable")]
    last = np.append(np.diff(changes[:, 0]) != 0, True)
    net = np.cumsum(changes[:, 1])[last]
    best = int(np.argmax(net))
    return float(changes[last, 0][best]) if net[best] > 0 else math.inf


def false_alerts(series: Labelled, threshold: float) -> int:
    """Alerts outside windows and after the probation."""
    start = min(int(PROBATION * len(series.scores)), MOST_PROBATION)
    _, inside = alert_values(len(series.scores), series.windows)
    return int(((series.scores >= threshold) & (inside < 0))[start:].sum())


def read_series(file: Path) -> tuple[list[datetime], list[float]]:
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [datetime.fromisoformat(row["timestamp"]) for row in rows], [float(row["value"]) for row in rows]


def detected(name: str, file: Path, windows: Sequence[Sequence[str]]) -> Labelled:
    """Run the detector over the series with its own settings."""
    instants, values = read_series(file)
    detector = Detector()
    scores = [detector.step(at, value).score for at, value in zip(instants, values, strict=True)]
    limits = [(datetime.fromisoformat(first[:19]), datetime.fromisoformat(last[:19])) for first, last in windows]
    rows = [[row for row, at in enumerate(instants) if first <= at <= last] for first, last in limits]
    return Labelled(name, np.array(scores), [(inside[0], inside[-1]) for inside in rows])


def by_group(corpus: Sequence[Labelled]) -> Mapping[str, list[Labelled]]:
    groups: dict[str, list[Labelled]] = {}
    for series in corpus:
        groups.setdefault(series.group, []).append(series)
    return groups


def cross_validated(corpus: Sequence[Labelled]) -> float:
    """The score where each group's alerts are those at the best threshold of the other groups."""
    net = 0.0
    for name, group in by_group(corpus).items():
        threshold = best_threshold([series for series in corpus if series.group != name])
        net += sum(float(change[change[:, 0] >= threshold, 1].sum()) for change in map(gains, group))
    return 100 * net / (2 * sum(len(series.windows) for series in corpus))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--series", action="store_true", help="print every series")
    args = parser.parse_args()
    labels = json.loads((args.folder / "windows.json").read_text(encoding="utf-8"))
    before = time.process_time()
    corpus = [detected(name, args.folder / "data" / name, windows) for name, windows in labels.items()]
    seconds = time.process_time() - before
    rows = sum(len(series.scores) for series in corpus)
    print(f"{len(corpus)} series, {rows:,} rows, {seconds:.1f} s of processor time")
    print(f"{'':28} windows  score  false alerts")
    for name, group in [*by_group(corpus).items(), ("all", corpus)]:
        windows = sum(len(series.windows) for series in group)
        wrong = sum(false_alerts(series, args.threshold) for series in group)
        print(f"{name:28} {windows:7} {corpus_score(group, args.threshold):6.1f} {wrong:9}")
        for series in group if args.series and name != "all" else ():
            score, wrong = corpus_score([series], args.threshold), false_alerts(series, args.threshold)
            print(f"  {series.name.partition('/')[2][:44]:44} {len(series.windows)} {score:6.1f} {wrong:4}")
    best = best_threshold(corpus)
    print(f"{'all, best threshold':28} {'':7} {corpus_score(corpus, best):6.1f}  at {best:.3f}")
    print(f"{'all, threshold from others':28} {'':7} {cross_validated(corpus):6.1f}")
    for name, published in PUBLISHED.items():
        print(f"{name + ', published':28} {'':7} {published:6.1f}  on 58 series")


if __name__ == "__main__":
    main()
