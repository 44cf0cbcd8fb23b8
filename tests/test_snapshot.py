"""Several questions of one committed state: of the database itself, and of its owner, while a consumer commits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest

from coupon_ledger.api import client, snapshots
from coupon_ledger.api.client import asking
from coupon_ledger.api.contact import SNAPSHOT
from coupon_ledger.cli.asking import together
from coupon_ledger.ledger.errors import LedgerError, NoSnapshot, StoreError, WrongQuestion
from coupon_ledger.ledger.progress import ignore
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.past import Past
from coupon_ledger.projections.readers import Readers
from coupon_ledger.questions import looking_back
from coupon_ledger.questions.asking import Source
from coupon_ledger.questions.local import Local
from tests.command_line import DATABASE, coupon_event, done, ledger, ndjson, wait_until
from tests.owners import Owner, owning
from tests.test_cli import shop_events

pytestmark = pytest.mark.long


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    done("init")
    done("publish", "-", stdin=ndjson(shop_events()))
    done("consume")
    return tmp_path


@contextmanager
def owned() -> Iterator[tuple[Owner, Source]]:
    with owning() as owner, asking(Path(DATABASE)) as source:
        yield owner, source


def coupons(source: Source) -> int:
    return sum(frame.height for frame in source.ask("coupons").frames)


def tell(number: int) -> None:
    """A further coupon, consumed by whoever does."""
    done("publish", "-", stdin=ndjson([coupon_event("created", f"late-{number}", coupon_id=f"late-{number}")]))


def test_what_is_committed_meanwhile_is_in_no_answer(shop: Path) -> None:
    """Parts of one report would be of different commits, and their totals contradict each other."""
    with owned() as (_, source), source.snapshot() as same:
        before, first = coupons(same), same.ask("summary").as_of
        tell(1)
        wait_until(lambda: coupons(source) == before + 1, "the new coupon")
        assert coupons(same) == before
        again = same.ask("totals")
        assert again.as_of == first != source.ask("summary").as_of
        assert again.row()["coupons"] == before


def test_the_database_itself_holds_a_state_too(shop: Path) -> None:
    with open_database(Path(DATABASE)) as store:
        local = Local(store)
        with local.snapshot() as same:
            before = coupons(same)
            with store.transaction():
                store.execute("DELETE FROM coupons WHERE coupon_id = (SELECT min(coupon_id) FROM coupons)")
            assert coupons(local) == before - 1
            assert coupons(same) == before
        local.close()


def test_a_report_says_one_commit_while_others_come(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each part would say another state, and only the last one's would be printed."""
    with owned() as (_, source):
        settings = Settings.load({"database": DATABASE})
        with together(settings) as same:
            before = same.ask("summary").as_of.commits
            tell(2)
            wait_until(lambda: source.ask("summary").as_of.commits > before, "a later commit")
            seen = {same.ask(name).as_of.commits for name in ("finance-split", "finance-doubts", "campaigns")}
        assert seen == {before}


QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("attribution", {"models": "last"}),
    ("customers", {}),
    ("restated", {"known_from": "2026-11-12T00:00:00"}),
    ("diff", {"from_at": "2026-11-11T00:00:00"}),
    ("finance-split", {"by": "category"}),
    ("digest", {}),
    ("campaigns", {"at": "2026-11-11T12:00:00"}),
    ("coupons", {"at": "2026-11-11T12:00:00"}),
    ("coupons", {}),
    ("violations", {"known_at": "2026-11-11T12:00:00"}),
    ("history", {"coupon": "c-1"}),
    ("attribution", {"models": "last", "at": "2026-11-11T12:00:00"}),
]


def test_answers_are_those_of_questions_by_themselves(shop: Path) -> None:
    """What one question puts in place would stand in the way of the next."""

    def given(parameters: dict[str, Any]) -> dict[str, Any]:
        return {n: datetime.fromisoformat(v) if n.endswith(("at", "from")) else v for n, v in parameters.items()}

    with open_database(Path(DATABASE)) as store:
        with store.transaction():  # paths that are not settled are made for the question
            store.execute("INSERT INTO stale_users SELECT DISTINCT owner FROM coupons WHERE owner IS NOT NULL")
        local = Local(store)
        with local.snapshot() as same:
            for name, parameters in [*QUESTIONS, *reversed(QUESTIONS)]:
                wanted, got = (source.ask(name, **given(parameters)) for source in (local, same))
                assert got.as_of == wanted.as_of, (name, parameters)
                rows = [pl.concat(answer.frames).to_dicts() for answer in (wanted, got)]
                assert rows[0] == rows[1], (name, parameters)
        local.close()


def test_a_refused_question_leaves_the_state_in_place(shop: Path) -> None:
    """One part that the data do not carry would take all others with it."""
    with owned() as (_, source), source.snapshot() as same:
        before = coupons(same)
        with pytest.raises((WrongQuestion, LedgerError)):
            same.ask("finance-split", by="nonsense")
        assert coupons(same) == before


def test_as_many_as_there_may_be(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots keep checkpoints from being written: whoever opens many would fill the disk."""
    monkeypatch.setattr(client, "SNAPSHOT_PATIENCE_S", 0.0)
    with owned() as (owner, source), ExitStack() as held:
        for _ in range(snapshots.MOST):
            held.enter_context(source.snapshot())
        with pytest.raises(LedgerError, match="too many snapshots"), source.snapshot():
            pass
        assert coupons(source) > 0, "others are answered"
        held.close()
        with source.snapshot() as again:
            assert coupons(again) > 0
        assert owner.get("/v1/coupons", {SNAPSHOT: "none"} | owner.headers).status == 404


def test_one_that_nobody_asks_any_more_is_let_go(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was killed would hold it for ever."""
    with open_database(Path(DATABASE)) as store:
        monkeypatch.setattr(snapshots, "IDLE_S", 0.1)
        monkeypatch.setattr(snapshots, "_LOOK_S", 0.05)
        readers = Readers(store, 2)
        held = snapshots.Snapshots(readers)
        name = held.hold()
        of = held.of(name)
        with of.asking(ignore, 60.0) as snapshot:
            assert snapshot.ask("summary").row()["coupons"] > 0
        time.sleep(0.5)  # longer than it may be idle: a question on its way keeps it
        assert held.of(name) is of
        of.answered()
        of.answered()

        wait_until(lambda: name not in held._held, "the snapshot's end")
        held.close()
        readers.close()


def test_a_consumer_that_stops_does_not_wait_for_them(shop: Path) -> None:
    """A restart would hang until a report is done."""
    with owned() as (_, source), source.snapshot() as same:
        assert coupons(same) > 0
    # `owning` has ended the owner, and asserts that it ended well.


def test_report_through_an_owner_says_what_it_says_without(shop: Path) -> None:
    alone = json.loads(done("report", "finance", "--output", "json").out)
    with owning():
        assert json.loads(done("report", "finance", "--output", "json").out) == alone
        ran = ledger("review", "k-1", "--format", "json")
        assert ran.code == 0, ran.err


def test_a_past_that_failed_half_way_is_not_taken_for_one(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A review of the past would print what stands now, because a disk was full for a moment."""
    at = datetime(2026, 11, 11, 0, 0, 30)
    with open_database(Path(DATABASE)) as store:
        local = Local(store)
        wanted = pl.concat(local.ask("coupons", at=at).frames).to_dicts()
        assert wanted != pl.concat(local.ask("coupons").frames).to_dicts()
        with local.snapshot() as same:
            with monkeypatch.context() as full:
                full.setattr(looking_back, "everything", fails_half_way)
                with pytest.raises(StoreError, match="no room"):
                    same.ask("coupons", at=at)
            assert pl.concat(same.ask("coupons", at=at).frames).to_dicts() == wanted
        local.close()


def fails_half_way(past: Past, _: object) -> None:
    past.stand_in(COUPON)
    raise StoreError("no room")


def test_what_went_wrong_is_what_is_raised(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C would become an error of the database, and the rest of a review go on."""
    with open_database(Path(DATABASE)) as store:
        local = Local(store)
        with local.snapshot() as same, monkeypatch.context() as broken:

            def interrupted(*_: object) -> None:
                store_error = patch.object(Past, "undo", side_effect=StoreError("aborted"))
                store_error.start()
                raise KeyboardInterrupt

            broken.setattr("coupon_ledger.questions.snapshot.frames_of", interrupted)
            try:
                with pytest.raises(KeyboardInterrupt):
                    same.ask("campaigns", at=datetime(2026, 11, 12))
            finally:
                patch.stopall()
        local.close()


def test_closing_while_one_is_being_made_ends(shop: Path) -> None:
    """The consumer would not stop any more."""
    with open_database(Path(DATABASE)) as store:
        readers = Readers(store, 2)
        readers._held_until = time.monotonic() + 1.0
        held = snapshots.Snapshots(readers)
        with ThreadPoolExecutor(1) as pool:
            making = pool.submit(held.hold)
            time.sleep(0.2)
            begun = time.monotonic()
            with pytest.raises(NoSnapshot):
                held.of("x")
            assert time.monotonic() - begun < 0.5, "whoever asks waits for it"
            held.close()
            with pytest.raises(LedgerError):
                making.result()
        readers.close()
