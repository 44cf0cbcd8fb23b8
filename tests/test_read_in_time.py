"""The consumer reads topics side by side, so that no rule between them is judged by what only one of them has told."""

from __future__ import annotations

from pathlib import Path

import pytest

from coupon_ledger.cli.imports import _append_frames
from coupon_ledger.cli.sources.simulate import World, sale_day
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.log import TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.projections.database import open_database
from tests.command_line import DATABASE, done

EVENTS = 30_000
BATCH = 5_000


@pytest.mark.slow
def test_catching_up_raises_no_false_alarms(home: Path, log_settings: LogSettings) -> None:
    """At a backlog there were twelve times the violations that remained at its end."""
    at = ("--log", log_settings.url, "--topic-prefix", log_settings.topic_prefix)
    done("init", *at)
    _append_frames(log_settings, sale_day(World(events=EVENTS, seed=7, orders=True, frame_rows=50)), None)
    log = open_log(log_settings)
    seen = []
    try:
        with open_database(Path(DATABASE)) as store:
            for commit in Consumer(log, store, outlet=None, batch_size=BATCH).run():
                [(violations,)] = store.rows("SELECT count(*) FROM judged_violations WHERE NOT provisional")
                seen.append((commit.lag, violations))
    finally:
        log.close()
    assert seen[-1][0] == 0 and len(seen) > EVENTS // BATCH
    # An append has orders first, of minutes: that much the log itself tells in another order.
    assert max(violations for _, violations in seen) < 2 * seen[-1][1], seen


@pytest.mark.long
def test_ends_are_those_after_the_read(home: Path, log_settings: LogSettings) -> None:
    """Else a partition could seem read to its end that got a record before those of the batch."""
    at = ("--log", log_settings.url, "--topic-prefix", log_settings.topic_prefix)
    done("init", *at)
    done("simulate", "--events", "2000", "--seed", "7", "--orders", *at)
    log = open_log(log_settings)
    try:
        ends = log.end_positions(log.partitions())
        with open_database(Path(DATABASE)) as store:
            consumer = Consumer(log, store, outlet=None, batch_size=500, follow=True)
            for commit in consumer.run():
                assert all(commit.lags[p] <= ends[p] for p in commit.lags)
                assert {p for p in ends if p.topic.endswith(".events")} == commit.lags.keys()
                if not commit.lag:
                    consumer.stop()
    finally:
        log.close()
    assert commit.lags == dict.fromkeys((TopicPartition(*p) for p in commit.lags), 0)
