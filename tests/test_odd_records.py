"""Records that can be read and are not as a good producer writes them: keys, units of time, times of recording."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coupon_ledger.consumers import intake
from coupon_ledger.consumers.intake import Oddities, take_in
from coupon_ledger.ledger.codec import encode_row
from coupon_ledger.ledger.events import parse_event
from coupon_ledger.ledger.log import FIRST_RECORDED_US, LAST_RECORDED_US, Chunk, Record
from coupon_ledger.ledger.topics import COUPON
from tests.command_line import LOG, coupon_event, done, facts, ledger, ndjson, opened_log

pytestmark = pytest.mark.long

NOW_US = int(datetime(2026, 11, 11, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture(autouse=True)
def rules() -> Any:
    """They are the process's: as they were afterwards."""
    yield
    intake.RULES.skew, intake.RULES.refuse_skewed = timedelta(days=400), False


def value_of(event_id: str, **fields: Any) -> bytes:
    event = coupon_event("created", event_id, **fields)
    event.pop("topic")
    return encode_row("coupon_event", parse_event(COUPON, event).model_dump())


def append(*records: tuple[bytes, bytes]) -> None:
    with closing(opened_log()) as log:
        log.append([Record(COUPON, key, value) for key, value in records])


def dead_letters() -> list[tuple[str, str]]:
    return [(row["reason"], row["detail"]) for row in done("dead-letters", "list", "--output", "ndjson").rows]


def finding(place: str) -> dict[str, Any]:
    [found] = [f for f in ledger("doctor", "--output", "json").json if f["object"] == place]
    return dict(found)


def test_keys_that_are_not_the_events_id_are_counted(home: Path) -> None:
    """Else nobody learns that the events of one coupon lie in several partitions."""
    done("init")
    append((b"c-1", value_of("e-1")), (b"some-order", value_of("e-2", coupon_id="c-2")), (b"", value_of("e-3")))
    ran = done("consume")
    assert "2 records with another key than their event's id" in ran.err
    told = finding(f"keys of {COUPON}")
    assert told["level"] == "warning" and told["finding"].startswith("2 of 3 events (66.7%)")
    assert "coupon_id" in told["remedy"]
    done("init", "--database", "again.duckdb")
    assert facts() != facts("again.duckdb")
    done("rebuild")
    assert finding(f"keys of {COUPON}") == told  # counted anew, not twice


def test_a_producer_with_milliseconds_is_noticed(home: Path) -> None:
    """Its schema has the fingerprint of ours; before, its events were folded in 1970 without a word."""
    done("init")
    millis = datetime(1970, 1, 21, 15, 43, tzinfo=UTC)
    append((b"c-1", value_of("e-1", occurred_at=millis.isoformat())), (b"c-2", value_of("e-2", coupon_id="c-2")))
    assert "1 event that happened long before or after being recorded, 1 of them in 1970" in done("consume").err
    told = finding(f"instants of {COUPON}")
    assert told["level"] == "warning" and "1 of 2 events (50.0%)" in told["finding"]
    assert "milliseconds" in told["finding"]


def test_history_that_was_imported_is_no_alarm(home: Path) -> None:
    done("init")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1", occurred_at="2017-03-01T00:00:00Z")]))
    done("consume")
    told = finding(f"instants of {COUPON}")
    assert told["level"] == "ok" and "imported history" in told["finding"]
    assert dead_letters() == []


def test_far_instants_can_be_made_dead_letters(home: Path) -> None:
    done("init")
    append((b"c-1", value_of("e-1", occurred_at="2017-03-01T00:00:00Z")), (b"c-2", value_of("e-2", coupon_id="c-2")))
    strict = ("--skewed-events", "dead-letter", "--instant-skew-days", "2000")
    done("consume", *strict)
    [(reason, detail)] = dead_letters()
    assert reason == "instant_skewed" and "2000 days" in detail
    done("verify", "--deep", "--sample", "all", "--from-log")
    done("rebuild", *strict)
    done("dead-letters", "replay", "--why", "history after all", "--operator", "me")
    assert dead_letters() == []
    assert "count or dead-letter" in ledger("consume", "--skewed-events", "x").err


@pytest.mark.parametrize("us", [1 << 62, -(1 << 62), LAST_RECORDED_US, -1])
def test_a_time_of_recording_that_cannot_be_is_a_dead_letter(home: Path, us: int) -> None:
    """Before, `history` and `tail` ended in a traceback."""
    done("init")
    append((b"c-1", value_of("e-1")), (b"c-1", value_of("e-2", type="issued", channel="app")))
    with closing(sqlite3.connect(LOG)) as log, log:
        log.execute("DROP TRIGGER records_never_change")
        log.execute('UPDATE records SET recorded_at = ? WHERE "offset" = 1', (us,))
    done("consume")
    [(reason, _)] = dead_letters()
    assert reason == "recorded_at_out_of_range"
    assert done("state", "c-1", "--output", "json").json["state"] == "created"
    for output in ("table", "json", "ndjson", "csv"):
        assert len(done("tail", "--no-follow", "--from-start", "--output", output).out.splitlines()) >= 2
        done("history", "c-1", "--output", output)
        done("dead-letters", "list", "--output", output)
    done("rebuild")
    done("consume")  # the last record is known as the log gives it
    done("verify", "--only", "same_log")
    done("verify", "--deep", "--sample", "all", "--from-log", "--only", "digest")


def test_what_is_odd_is_counted_by_columns() -> None:
    values = [value_of(f"e-{n}", occurred_at=f"{year}-11-11T00:00:00Z") for n, year in enumerate((2026, 2017, 1970))]
    recorded = np.array([NOW_US, NOW_US, NOW_US], np.int64)
    chunk = Chunk(COUPON, 0, np.arange(3), recorded, [b"c-1", b"c-1", b"x"], values, 3)
    taken = take_in([chunk])
    assert taken.oddities == {COUPON: Oddities(other_keys=1, skewed=2, in_1970=1)}
    assert not taken.dead_letters.height
    far = Chunk(COUPON, 0, np.arange(3), np.array([FIRST_RECORDED_US] * 3), chunk.keys, values, 3)
    assert take_in([far]).dead_letters.height == 3
