"""Producers and a consumer at once, as on a sale day: real processes on one log."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from coupon_ledger.ledger.settings import LogSettings
from tests.command_line import done, facts, finish, start

EVENTS = 20_000


@pytest.mark.slow
def test_two_producers_and_a_consumer_at_once(
    log_settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else events of one shop would be lost or counted twice while another one publishes, or while they are folded."""
    monkeypatch.setenv("COUPON_LEDGER_LOG", log_settings.url)
    monkeypatch.setenv("COUPON_LEDGER_TOPIC_PREFIX", log_settings.topic_prefix)
    live, again = tmp_path / "live.duckdb", tmp_path / "again.duckdb"
    done("init", "--database", live)
    consumer = start("consume", "--follow", "--database", live, "--batch-size", "3000")
    # The same world twice: every event comes from both, so that each one's first delivery is a race.
    producers = [start("simulate", "--events", str(EVENTS), "--seed", "1") for _ in range(2)]
    producers.append(start("simulate", "--events", str(EVENTS), "--seed", "2"))
    for producer in producers:
        assert finish(producer).code == 0
    consumer.send_signal(signal.SIGTERM)
    stopped = finish(consumer)
    assert stopped.code == 0, stopped.err
    done("consume", "--database", live)

    status = done("status", "--database", live, "--output", "json").json
    assert status["lag"] == 0
    assert status["read"] == status["applied"] + status["repeats"] + status["conflicts"] + status["dead_letters"]
    assert status["read"] == sum(p["end"] for p in status["partitions"]) > 2.9 * EVENTS
    assert status["repeats"] > 0.9 * EVENTS
    done("init", "--database", again)
    done("consume", "--database", again)
    assert facts(live) == facts(again)
