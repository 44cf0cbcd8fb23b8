"""The default rules on a few quiet days, without and with known faults: the alert suite (benchmarks/alerts.py) in
small."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache

import pytest

from benchmarks.alert_scores import is_about, scored, without_known
from benchmarks.alert_stream import Found, alerts_of
from coupon_ledger.cli.sources.arrival import Frames
from coupon_ledger.cli.sources.faults import inject
from coupon_ledger.cli.sources.quiet import QuietWorld, quiet_days
from coupon_ledger.projections.alerts.rules_file import defaults

FAULTS = ("device-farm", "over-issue", "double-use-ring")
STEPS = (timedelta(days=2), timedelta(days=2))


@cache
def clean() -> Frames:
    return quiet_days(QuietWorld(seed=5, days=3, events_per_day=1_000, experiment=False))


@pytest.mark.long
def test_the_defaults_find_faults_and_accuse_no_quiet_day() -> None:
    """Else a farm, a ring or an over-issue goes unseen, or drowns in alerts that say the same; or people mute the
    defaults, since they fire on ordinary days."""
    frames, labels = inject(clean(), FAULTS, 1)
    found = alerts_of(frames, defaults().in_force(), steps=STEPS)
    stream = scored("small", 1, frames, labels, found, [])
    assert [score.kind for score in stream.scores if score.delay is not None] == list(FAULTS)
    assert all(score.delay is not None and score.delay < timedelta(hours=1) for score in stream.scores)
    assert sum(len(score.alerts) for score in stream.scores) <= 6 * len(FAULTS), stream.scores
    assert [(alert.name, alert.labels) for alert in stream.others] == []


def test_an_alert_from_before_or_about_others_finds_no_fault() -> None:
    """Else the suite's recall says nothing."""
    _, [label] = inject(clean(), ["over-issue"], 1)
    [rule] = [rule for rule in defaults().rules if rule.name == "over_issue"]
    mine = Found(rule, {"campaign": str(label.campaign_id)}, label.start)
    assert is_about(mine, label) and without_known([mine], [mine]) == []
    for other in (
        replace(mine, labels={"campaign": "another"}),
        replace(mine, fired_at=label.end + timedelta(days=2)),
        replace(mine, labels={}, fired_at=label.start - timedelta(hours=1)),
    ):
        assert not is_about(other, label)
    before = replace(mine, fired_at=label.start - timedelta(hours=2))
    [score] = scored("small", 1, clean(), [label], [before], []).scores
    assert score.delay is None and score.alerts == ("over_issue",)


def test_an_alert_that_another_explains_finds_no_fault() -> None:
    """Else a fault counts as found of which nobody is told."""
    _, [label] = inject(clean(), ["over-issue"], 1)
    [rule] = [rule for rule in defaults().rules if rule.name == "over_issue"]
    held = Found(rule, {"campaign": str(label.campaign_id)}, label.start, held=True)
    [score] = scored("small", 1, clean(), [label], [held], []).scores
    assert score.delay is None and score.held == 1
