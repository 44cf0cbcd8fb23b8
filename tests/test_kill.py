"""SIGKILL of the real consumer process, at every boundary, while it closes, and at random: nothing lost or repeated.

The same machinery as `make chaos`, which kills at least 200 times per log; here each place gets one kill on a short
log. The log and the draws are seeded; the seed is in the test's output.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos import SCENARIOS, Chaos, differences, prepared, state
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live.journal import JOURNAL

SEED = 20261111
EVENTS = 2_500
BATCH_SIZE = 250
# Two places a database: half the undisturbed starts, and kills of one kind upon what another kind left.
PAIRS = ["+".join(pair) for pair in zip(SCENARIOS[::2], SCENARIOS[1::2], strict=True)]

pytestmark = [pytest.mark.slow, pytest.mark.vital]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module", params=[pytest.param("embedded"), pytest.param("kafka", marks=pytest.mark.kafka)])
def chaos(request: pytest.FixtureRequest, folder: Path) -> Iterator[Chaos]:
    """A filled log, and what one undisturbed run makes of it."""
    log = LogSettings(url=f"sqlite:///{folder / 'log.db'}")
    if request.param == "kafka":
        broker = request.getfixturevalue("kafka_broker")
        # One worker may come to this module twice, with others' tests in between, and the broker stays.
        log = LogSettings(url=f"kafka://{broker.address}", topic_prefix=f"{folder.name}.")
    place = folder / request.param
    place.mkdir()
    with prepared(log, place, events=EVENTS, batch_size=BATCH_SIZE, seed=SEED) as ready:
        ready.passings = (2, 3)  # not at the very first, when there is nothing yet to spoil
        yield ready


def test_the_log_holds_all_that_can_become_of_a_record(chaos: Chaos) -> None:
    accounts = [value for name, value in chaos.expected.items() if name.startswith("account of ")]
    for outcome in ("applied", "repeats", "conflicts", "dead_letters"):
        assert sum(a[outcome] for a in accounts) > 0, outcome


@pytest.mark.parametrize("scenario", PAIRS)
def test_killed_and_started_again_nothing_differs(chaos: Chaos, scenario: str) -> None:
    chaos.draw = random.Random(f"{SEED} {scenario}")
    tally = chaos.play(scenario, kills=2)
    assert tally.problems == []
    assert tally.kills == 2


def test_a_kill_loses_the_batch_under_way_and_nothing_else(chaos: Chaos) -> None:
    """Killed before its third commit: what the first two committed is there, whole; nothing of the third is."""
    database = chaos.consumers.folder / "third.duckdb"
    create_database(database)
    assert chaos.consumers.killed_at("offsets", 3, database).killed
    with open_database(database) as store:
        commits = store.frame("SELECT commits FROM ledger").item()
        read, accounted, applied = store.frame(
            "SELECT sum(read), sum(applied + repeats + conflicts + dead_letters), sum(applied) FROM checkpoints"
        ).row(0)
        told = sum(store.frame(f"SELECT count(*) FROM {table}").item() for table in JOURNAL.values())
    assert commits == 2
    assert 0 < read == accounted <= 2 * BATCH_SIZE
    assert told == applied


def test_the_comparison_sees_one_account_and_one_dead_letter(chaos: Chaos) -> None:
    """Or equal results would mean nothing."""
    database = chaos.consumers.folder / "spoiled.duckdb"
    shutil.copy(chaos.consumers.folder / "undisturbed.duckdb", database)
    assert differences(chaos.expected, state(database)) == []
    with open_database(database) as store:
        store.execute("UPDATE checkpoints SET repeats = repeats - 1, applied = applied + 1 WHERE repeats > 0")
        store.execute("DELETE FROM dead_letters WHERE rowid = (SELECT min(rowid) FROM dead_letters)")
    spoiled = {found.partition(":")[0] for found in differences(chaos.expected, state(database))}
    assert {"checkpoints", "dead_letters", "dead letters", "account of coupon.events/0"} <= spoiled
