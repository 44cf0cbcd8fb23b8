"""Anomalies of a metric: what is an alert and what is none, and the scorer of the benchmark."""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.anomaly import Labelled, alert_values, best_threshold, corpus_score, false_alerts, sigmoid
from coupon_ledger.analysis.detector import THRESHOLD, WARM_UP, Detector, Floor, Reading
from coupon_ledger.analysis.detector.floors import binomial_surprise, poisson_surprise
from coupon_ledger.analysis.detector.shapes import Nearest
from coupon_ledger.analysis.detector.tail import Tail
from tests.command_line import done, ledger, one_sentence

START = datetime(2026, 11, 2)
A_DAY = 96
"""Rows of a day: one per quarter of an hour."""


FALSE_IN_2000 = 8
"""The most alerts in 2,000 rows of pure noise, at the detector's own threshold."""


def instants(rows: int) -> list[datetime]:
    return [START + timedelta(minutes=15) * row for row in range(rows)]


def readings(values: Sequence[float], floor: Floor = "none", announced: Iterable[int] = ()) -> list[Reading]:
    detector, quiet = Detector(floor=floor), set(announced)
    return [
        detector.step(at, value, announced=row in quiet)
        for row, (at, value) in enumerate(zip(instants(len(values)), values, strict=True))
    ]


def alerts(values: Sequence[float], floor: Floor = "none", announced: Iterable[int] = ()) -> list[int]:
    return [row for row, one in enumerate(readings(values, floor, announced)) if one.score >= THRESHOLD]


def noise(rows: int, seed: int, width: float = 1.0) -> list[float]:
    made = random.Random(f"detector {seed}")
    return [made.gauss(0, width) for _ in range(rows)]


def days(count: int, seed: int) -> list[float]:
    """A peak a day around noon, with noise."""
    shape = [100 + 80 * math.exp(-(((row % A_DAY) - 48) ** 2) / 72) for row in range(count * A_DAY)]
    return [a + b for a, b in zip(shape, noise(len(shape), seed), strict=True)]


def counts(rows: int, mean: float, seed: int) -> list[float]:
    return [float(n) for n in np.random.default_rng(seed).poisson(mean, rows)]


# ── What is an alert ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_spike_in_a_flat_series_is_one_alert_at_its_row() -> None:
    """Else the simplest of incidents is missed, or told over and over."""
    values = noise(1000, 1)
    values[700] = 15.0
    assert [row for row in alerts(values) if 690 <= row < 800] == [700]
    assert max(one.score for one in readings(values)) == readings(values)[700].score


def test_a_days_missing_peak_is_an_alert_on_that_day() -> None:
    """Else nobody learns that the noon coupons were not issued: every value is one that was there before."""
    values = days(14, 2)
    noon = 12 * A_DAY + 48
    values[noon - 20 : noon + 20] = [100 + one for one in noise(40, 3)]
    found = alerts(values)
    assert found and all(noon - 20 <= row < noon + 20 for row in found)


def test_a_level_shift_alarms_and_then_settles() -> None:
    """Else a new, lasting level is an alert for ever, and people switch the detector off."""
    values = [one + (10 if row >= 1000 else 0) for row, one in enumerate(noise(3000, 4))]
    found = [row for row in alerts(values) if row >= 1000]
    assert found and found[0] in (1000, 1001)
    assert len([row for row in found if row < 1100]) <= 3
    assert len([row for row in found if row >= 1100]) <= FALSE_IN_2000


@pytest.mark.parametrize("seed", range(3))
def test_noise_a_daily_season_and_a_slow_trend_are_rarely_alerts(seed: int) -> None:
    """Else a growing business is one long incident."""
    assert len(alerts(noise(2000, seed))) <= FALSE_IN_2000
    assert len(alerts(days(20, seed))) <= FALSE_IN_2000
    assert len(alerts([one + row / 500 for row, one in enumerate(noise(2000, seed))])) <= FALSE_IN_2000


def test_a_constant_series_is_quiet_and_its_first_change_is_not() -> None:
    """Else a metric that stands still divides by its spread of zero."""
    values = [5.0] * 600
    assert alerts(values) == []
    assert alerts([*values, 6.0]) == [600]


def test_missing_values_and_gaps_are_no_evidence() -> None:
    """Else an outage of the collector looks like one of the shop, or one NaN makes all later scores NaN."""
    values = days(14, 5)
    values[900:930] = [math.nan] * 30
    told = readings(values)
    assert all(one.score == 0 for one in told[900:930])
    assert not any(math.isnan(one.score) for one in told)
    assert len([one for one in told if one.score >= THRESHOLD]) <= 1
    detector, scores = Detector(), []
    for row, (at, value) in enumerate(zip(instants(len(values)), days(14, 5), strict=True)):
        if not 500 <= row < 700:
            scores.append(detector.step(at, value).score)
    assert sum(score >= THRESHOLD for score in scores) <= 1


def test_few_events_are_no_evidence_with_the_poisson_floor() -> None:
    """Else three uses of a coupon that has none on most days wake somebody up."""
    values = [0.0] * 1000
    values[700] = 3.0
    assert alerts(values)[0] == 700
    assert alerts(values, "poisson") == []
    values[700] = 40.0
    assert alerts(values, "poisson") == [700]


def test_counts_with_the_poisson_floor_are_quiet_until_they_double() -> None:
    """Else the floor hides what is no chance."""
    values = counts(1500, 50, 6)
    assert alerts(values, "poisson") == []
    values[1200] = 150.0
    assert alerts(values, "poisson") == [1200]


def test_a_rate_from_three_events_is_no_evidence() -> None:
    """Else a rate of 100% from three orders is an incident."""
    for trials, expected in ((3.0, []), (300.0, [800])):
        detector = Detector(floor="binomial")
        scores = [
            detector.step(at, 1.0 if row == 800 else 0.2 + 0.001 * (row % 7), trials if row == 800 else 300).score
            for row, at in enumerate(instants(1000))
        ]
        assert [row for row, score in enumerate(scores) if score >= THRESHOLD] == expected


def test_an_announced_period_has_no_alert_and_teaches_nothing() -> None:
    """Else a sale that everybody knows of is an incident, and the day after it another one."""
    values = noise(1200, 7)
    values[700:800] = [50.0] * 100
    assert alerts(values)[0] == 700
    told = readings(values, announced=range(700, 800))
    assert all(one.score == 0 for one in told[700:800])
    assert not any(one.score >= THRESHOLD for one in told)
    values[900] = 50.0
    assert alerts(values, announced=range(700, 800)) == [900]


# ── What always holds ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("floor", ["none", "poisson"])
def test_the_readings_of_a_prefix_are_the_prefix_of_the_readings(floor: Floor) -> None:
    """Else a score has seen the future, and what an evaluation promises is not what is had live."""
    values = [*days(5, 8), *counts(200, 3, 8), *days(3, 9)]
    values[500] = math.nan
    whole = readings(values, floor)
    for rows in (1, 151, 500, 777):
        assert repr(readings(values[:rows], floor)) == repr(whole[:rows])


def test_scores_are_between_zero_and_one_and_bands_are_in_order() -> None:
    """Else no threshold suits all series: extreme values, the tiniest and none at all are among them."""
    made = random.Random("detector extremes")
    values = [made.choice((0.0, 1e-300, -1e15, 1e15, math.nan, math.inf, made.random())) for _ in range(800)]
    for one in readings(values):
        assert 0 <= one.score <= 1
        assert one.low <= one.high or (math.isnan(one.low) and math.isnan(one.high))


def test_the_band_holds_most_values() -> None:
    """Else what is shown as expected is not."""
    values = days(14, 10)
    told = readings(values)[4 * A_DAY :]
    inside = [one.low <= value <= one.high for one, value in zip(told, values[4 * A_DAY :], strict=True)]
    assert 0.95 < sum(inside) / len(inside) <= 1


def test_the_scale_of_a_series_does_not_change_its_alerts() -> None:
    """Else the same metric in cents has other alerts than in yuan."""
    values = days(10, 11)
    values[800] = 400.0
    assert alerts(values) == alerts([1e4 * value for value in values]) == [800]


def test_the_nearest_stretch_is_that_of_a_search_over_all() -> None:
    """Else the fast distances drift away from what they stand for."""
    values = noise(300, 12)
    nearest = Nearest(4, kept=1000)
    for row, value in enumerate(values):
        distance = nearest.step(value)
        ends = range(3, row - 3)
        if len(ends) >= 6:
            last = values[row - 3 : row + 1]
            assert distance == pytest.approx(min(math.dist(values[end - 3 : end + 1], last) for end in ends))


def test_a_long_series_forgets_its_oldest_rows() -> None:
    """Else memory grows for ever, or the reading fails when the past is cut."""
    nearest, tail = Nearest(4, kept=50), Tail(kept=50, late=0)
    values = noise(400, 13)
    for row, value in enumerate(values):
        distance = nearest.step(value)
        tail.add(value)
        assert row < 20 or distance > 0
    assert tail.quantile(1) == max(values[-50:])


def test_surprises_of_chance_are_bounds() -> None:
    """Else a floor claims more evidence than there is: P(X >= 3 | 1) is 0.080, P(X >= 30 | 10) is 3e-7."""
    assert poisson_surprise(1, 1) == 0
    assert 0 < poisson_surprise(3, 1) < -math.log10(0.0803)
    assert 5 < poisson_surprise(30, 10) < 6.8
    assert poisson_surprise(0, 10) == pytest.approx(10 / math.log(10))
    assert binomial_surprise(1, 0.5, 3) == pytest.approx(3 * math.log10(2))
    assert binomial_surprise(0.3, 0.3, 1000) == pytest.approx(0, abs=1e-9)


# ── The benchmark's scorer ───────────────────────────────────────────────────────────────────────────────────


def labelled(rows: int, windows: Sequence[tuple[int, int]], alerts: Iterable[int]) -> Labelled:
    scores = np.zeros(rows)
    scores[list(alerts)] = 1.0
    return Labelled("group/name.csv", scores, windows)


@pytest.mark.long
def test_a_perfect_detector_scores_100_and_none_0() -> None:
    """Else figures do not stand beside the published ones."""
    windows = [(200, 299), (600, 699)]
    assert corpus_score([labelled(1000, windows, [200, 600])], 0.5) == pytest.approx(100)
    assert corpus_score([labelled(1000, windows, [])], 0.5) == 0
    assert math.isnan(corpus_score([labelled(1000, [], [500])], 0.5))


def test_alerts_are_worth_what_the_sigmoid_says() -> None:
    """Else early and late, near and far are all one. By hand: the middle of a window of 100 is at -0.5; 99 rows after
    a window of 100 rows is position 1."""
    assert sigmoid(-1) == pytest.approx(0.9866, abs=1e-4)
    assert sigmoid(0) == 0
    assert sigmoid(3.1) == -1
    value, inside = alert_values(1000, [(200, 299)])
    assert value[199] == -0.11
    assert value[200] == pytest.approx(1)
    assert value[250] == pytest.approx((2 / (1 + math.exp(-2.5)) - 1) / sigmoid(-1))
    assert value[398] == pytest.approx(0.11 * (2 / (1 + math.exp(5)) - 1))
    assert value[999] == -0.11
    assert (inside == 0).sum() == 100


def test_only_the_earliest_alert_of_a_window_counts_and_false_ones_cost() -> None:
    """Else a detector that alarms all the time is the best. By hand: 1 window found at its start is 1 + 1; an alert
    before it costs 0.11; the probation is free."""
    windows = [(200, 299)]
    assert corpus_score([labelled(1000, windows, [200, 250, 299])], 0.5) == pytest.approx(100)
    assert corpus_score([labelled(1000, windows, [160, 200])], 0.5) == pytest.approx(100 * (2 - 0.11) / 2)
    assert corpus_score([labelled(1000, windows, [*range(150), 200])], 0.5) == pytest.approx(100)
    assert false_alerts(labelled(1000, windows, [100, 160, 250, 999]), 0.5) == 2


def test_the_best_threshold_weighs_windows_against_false_alerts() -> None:
    """Else the threshold that is reported is not the best one."""
    scores = np.zeros(1000)
    scores[[200, 250, 600, 160]] = 0.4, 0.9, 0.8, 0.5
    series = Labelled("group/name.csv", scores, [(200, 299), (600, 699)])
    threshold = best_threshold([series])
    assert threshold == pytest.approx(0.4)
    assert corpus_score([series], threshold) == pytest.approx(100 * (4 - 0.11) / 4)
    assert best_threshold([Labelled("group/name.csv", np.ones(1000), [])]) == math.inf


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────


def text(values: Sequence[float | str], header: str = "timestamp,value") -> str:
    rows = [f"{at:%Y-%m-%d %H:%M:%S},{value}" for at, value in zip(instants(len(values)), values, strict=True)]
    return "\n".join([header, *rows, ""])


@pytest.fixture
def spiky() -> list[float]:
    values = noise(400, 14)
    values[300] = 20.0
    return values


@pytest.mark.long
def test_the_command_scores_every_row_and_shows_the_alerts(home: Path, spiky: list[float]) -> None:
    """Else there is nothing to act on."""
    Path("m.csv").write_text(text(spiky), encoding="utf-8")
    made = done("detect", "m.csv", "--output", "csv").out
    rows = list(csv.DictReader(io.StringIO(made)))
    assert list(rows[0]) == ["timestamp", "value", "expected_low", "expected_high", "score", "alert"]
    assert len(rows) == 400
    assert [row["timestamp"] for row in rows if row["alert"] == "True"] == ["2026-11-05 03:00:00"]
    assert rows[300]["value"] == "20.0"
    assert float(rows[300]["expected_low"]) < float(rows[300]["expected_high"]) < 20
    assert done("detect", "-", "--output", "csv", stdin=text(spiky).encode()).out == made
    shown = done("detect", "m.csv").out
    assert "2026-11-05 03:00:00" in shown and "2026-11-05 03:15:00" not in shown
    assert [row["alert"] for row in done("detect", "m.csv", "-o", "ndjson").rows].count(True) == 1
    assert len(done("detect", "m.csv", "-o", "json").json) == 400


def test_the_options_of_the_command_reach_the_detector(home: Path, spiky: list[float]) -> None:
    """Else an announced sale, or three events, alarm all the same."""
    Path("m.csv").write_text(text(spiky), encoding="utf-8")
    Path("sales.csv").write_text("start,end\n2026-11-05 03:00:00,2026-11-05 03:15:00\n", encoding="utf-8")
    assert "nothing found" in done("detect", "m.csv", "--calendar", "sales.csv").out
    assert "nothing found" in done("detect", "m.csv", "--threshold", "1").out
    few = text([3.0 if row == 300 else 0.0 for row in range(400)])
    assert "2026-11-05" in done("detect", "-", stdin=few.encode()).out
    assert "nothing found" in done("detect", "-", "--floor", "poisson", stdin=few.encode()).out


def test_an_hour_that_comes_twice_in_autumn_is_in_order(home: Path) -> None:
    """Else a whole series is refused because of one night's clock."""
    rows = [*instants(200), *(at - timedelta(hours=1) for at in instants(400)[200:])]
    lines = ["timestamp,value", *(f"{at},{row % 7}" for row, at in enumerate(rows))]
    done("detect", "-", stdin="\n".join(lines).encode())


GOOD = text([1.0, 2.0] * 100)
UNUSABLE = {
    "empty": ("", "is empty"),
    "no such column": (text([1.0], "at,value"), "has no column timestamp"),
    "no number": (text([1.0, "x"]), "line 3: value 'x' is no number"),
    "infinite": (text([1.0, "inf"]), "line 3: value 'inf' is no number"),
    "no timestamp": ("timestamp,value\nyesterday,1\n", "line 2: 'yesterday' is no timestamp"),
    "a cell too few": ("timestamp,value\n2026-11-02,1\n2026-11-03\n", "line 3: has 1 cells instead of 2"),
    "not in order": ("timestamp,value\n2026-11-03,1\n2026-11-02,1\n", "line 3: 2026-11-02 comes after 2026-11-03"),
    "out of range": ("timestamp,value\n0001-01-01T00:00:00+14:00,1\n", "line 2"),
    "header alone": ("timestamp,value\n", "has 0 values"),
    "too short": (text([1.0] * WARM_UP), f"has {WARM_UP} values, and the first {WARM_UP} are only learned from"),
    "no trials": (GOOD, "has no column trials"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_is_refused_in_one_sentence(home: Path, case: str) -> None:
    """Else a user reads a traceback, or half of the rows."""
    content, why = UNUSABLE[case]
    Path("m.csv").write_text(content, encoding="utf-8")
    floor = ("--floor", "binomial") if case == "no trials" else ()
    one_sentence(ledger("detect", "m.csv", *floor), 2, "file m.csv", why)


@pytest.mark.long
def test_a_file_or_calendar_that_is_not_there_or_no_text_is_refused(home: Path) -> None:
    """Else a user reads a traceback."""
    one_sentence(ledger("detect", "none.csv"), 2, "none.csv", "not there")
    one_sentence(ledger("detect", "."), 2, "cannot be read")
    Path("m.csv").write_bytes(b"timestamp,value\n\xff\xfe,1\n")
    one_sentence(ledger("detect", "m.csv"), 2, "m.csv", "UTF-8")
    Path("m.csv").write_text(GOOD, encoding="utf-8")
    one_sentence(ledger("detect", "m.csv", "--calendar", "none.csv"), 2, "none.csv")
    Path("c.csv").write_text("start,end\n2026-11-03,2026-11-02\n", encoding="utf-8")
    one_sentence(ledger("detect", "m.csv", "--calendar", "c.csv"), 2, "c.csv, line 2", "not after")
