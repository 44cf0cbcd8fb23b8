"""`rebuild` beside the process that owns the database: what people who ask on a sale day would notice (nothing), and
what a kill at any step would leave (a whole database, the one or the other)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.ledger.settings import LogSettings
from tests.command_line import ALL_EQUAL, DATABASE, coupon_event, done, facts, finish, ledger, ndjson, start, wait_until
from tests.owners import Owner, owning

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
READERS = 12
EVENTS = 6_000


def fill(database: Path | str, *log: str) -> None:
    done("init", "--database", database, *log)
    done("simulate", "--events", str(EVENTS), "--seed", "3", *log)
    done("consume", "--batch-size", "4000", "--database", database, *log)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled log and database, to be copied."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / DATABASE, "--log", f"sqlite:///{folder / 'log.db'}")
    return folder


@pytest.fixture
def ready(home: Path, log_settings: LogSettings, embedded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COUPON_LEDGER_LOG", log_settings.url)
    monkeypatch.setenv("COUPON_LEDGER_TOPIC_PREFIX", log_settings.topic_prefix)
    if log_settings.url.startswith("sqlite:"):
        shutil.copytree(embedded, home, dirs_exist_ok=True)
    else:
        fill(DATABASE)
    return home


@contextmanager
def asked_all_the_time(owner: Owner) -> Iterator[dict[str, Any]]:
    """Many readers ask, one question after the other; yields what they saw: answers, errors, and whether any answer
    was of an earlier commit than one that the same reader had before."""
    seen: dict[str, Any] = {"answers": 0, "errors": [], "backwards": 0}
    leaving = threading.Event()
    drawn = random.Random(7)
    coupons = [row["coupon_id"] for row in owner.answer("coupons", limit=50)["rows"]]

    def read() -> None:
        reached: dict[tuple[str, int], int] = {}
        while not leaving.is_set():
            question = drawn.choice(["state", "history", "states", "summary"])
            parameters = {"coupon": drawn.choice(coupons)} if question in ("state", "history") else {}
            try:
                reply = owner.get(f"/v1/{question}", **parameters)
            except OSError as error:
                seen["errors"].append(repr(error))
                continue
            if reply.status not in (200, 503):  # 503: too many at once, and says so
                seen["errors"].append(reply.body)
                continue
            if reply.status == 200:
                seen["answers"] += 1
                for p in reply.json["as_of"]["positions"]:
                    key = (p["topic"], p["partition"])
                    seen["backwards"] += p["next_offset"] < reached.get(key, 0)
                    reached[key] = p["next_offset"]

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        leaving.set()
        for thread in threads:
            thread.join()


@contextmanager
def published_all_the_time() -> Iterator[None]:
    """Another process goes on publishing; small pieces, as an order system would."""
    leaving = threading.Event()

    def publish() -> None:
        number = 0
        while not leaving.is_set():
            events = [coupon_event("created", f"live-{number}-{n}", coupon_id=f"live-{number}-{n}") for n in range(100)]
            Path("live.ndjson").write_bytes(ndjson(events))
            assert finish(start("publish", "live.ndjson")).code == 0
            number += 1

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join()


def test_swapped_under_load_no_question_fails_and_no_answer_goes_back(ready: Path, log_settings: LogSettings) -> None:
    """Else a rebuild would have to wait until after the sale day, when it is no longer needed. There and back; where it
    is not dear, there again."""
    with owning() as owner, published_all_the_time(), asked_all_the_time(owner) as seen:
        for number in range(3 if log_settings.url.startswith("sqlite:") else 2):
            before = seen["answers"]
            ran = finish(start("rebuild", *(("--rollback", "--why", "a test") if number == 1 else ())))
            assert ran.code == 0, ran.err
            wait_until(lambda b=before: seen["answers"] > b + 2 * READERS, "answers after the swap")  # type: ignore[misc]
    assert seen["errors"] == []
    assert seen["backwards"] == 0
    done("consume")
    live = facts()
    done("init", "--database", "again.duckdb")
    done("consume", "--database", "again.duckdb")
    assert live == facts("again.duckdb")


def test_a_question_under_way_finishes_on_the_generation_that_it_began_with(ready: Path) -> None:
    """Else a long report would die, or mix two databases."""
    with owning() as owner:
        rows: list[int] = []
        thread = threading.Thread(target=lambda: rows.append(len(owner.answer("coupons")["rows"])))
        thread.start()
        ran = finish(start("rebuild"))
        assert ran.code == 0, ran.err
        thread.join()
        assert rows == [len(owner.answer("coupons")["rows"])]


def test_where_the_owner_holds_something_else_it_keeps_it(ready: Path) -> None:
    with owning() as owner:
        pass
    import duckdb

    with duckdb.connect(DATABASE) as connection:
        connection.execute(
            "UPDATE coupons SET events = events + 1 WHERE coupon_id = (SELECT min(coupon_id) FROM coupons)"
        )
    with owning() as owner:
        ran = finish(start("rebuild"))
        assert ran.code == 5 and "nothing was swapped" in ran.err
        assert owner.answer("summary")["rows"]
    assert not Path(DATABASE).is_symlink()


def test_two_rebuilds_at_once_one_is_refused_and_told_who_is_at_it(ready: Path) -> None:
    first = start("rebuild", "--batch-size", "200", "--compare-only")
    wait_until(Path(f"{DATABASE}.rebuild").exists, "the first rebuild")
    wait_until(Path(f"{DATABASE}.rebuild.owner").exists, "the first rebuild's name")
    second = ledger("rebuild")
    assert second.code == 5 and f"process {first.pid}" in second.err
    ran = finish(first)
    assert ran.code == 0, ran.err


STEPS = ("poll:2", "fold:3", "offsets:2", "commit:4", "built", "compared", "added", "caught up")
LINKS = ("named", "kept", "linked", "cleared")


@pytest.mark.parametrize(
    ("log_settings", "step"),
    [
        *(("sqlite", step) for step in (*STEPS, *LINKS)),
        *(pytest.param("kafka", step, marks=pytest.mark.kafka) for step in ("fold:3", "compared", "linked")),
    ],
    indirect=["log_settings"],
)
def test_killed_at_any_step_there_is_a_whole_database_and_the_next_rebuild_succeeds(ready: Path, step: str) -> None:
    """Else ops would not dare to begin, or to stop, a rebuild while people depend on the tables."""
    before = facts()
    ran = finish(subprocess.Popen([sys.executable, "-m", "tests.rebuild_process", step], cwd=ROOT, env=_environment()))
    assert ran.code == -signal.SIGKILL
    assert facts() == before
    assert Path(DATABASE).is_symlink() == (step in ("linked", "cleared"))
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1")]))
    done("consume")
    ran = done("rebuild")
    assert ALL_EQUAL in ran.out
    done("rebuild", "--rollback", "--why", "a test")
    assert done("state", "c-1", "--output", "json").json["state"] == "created"
    assert len(list(Path().glob(f"{DATABASE}.gen*"))) == 2


def _environment() -> dict[str, str]:
    return {**os.environ, "COUPON_LEDGER_DATABASE": str(Path(DATABASE).resolve())}
