"""`rebuild`: what a company would lose if the tables that it trusts could not be thrown away and made again, beside the
ones in use, proven equal and swapped with nobody noticing."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pytest

from coupon_ledger.projections import generations, tables, versions
from tests.command_line import (
    ALL_EQUAL,
    DATABASE,
    LOG,
    coupon_event,
    done,
    facts,
    finish,
    ledger,
    ndjson,
    one_sentence,
    opened_log,
    wait_until,
)
from tests.owners import owning

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
TOUCH = {
    "topic": "user.events",
    "type": "touched",
    "event_id": "t-1",
    "source": "ads",
    "occurred_at": "2026-11-10T00:00:00Z",
    "user_id": "u-1",
    "kind": "click",
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with repeats, late events, conflicts and dead letters, and a database that was filled in many batches."""
    folder = tmp_path_factory.mktemp("filled")
    before = Path.cwd()
    os.chdir(folder)
    try:
        done("init")
        done("simulate", "--events", "3000", "--seed", "5")
        publish_broken_records()
        done("publish", ROOT / "docs" / "flash-sale.ndjson")
        done("publish", "-", stdin=ndjson([TOUCH]))
        done("consume", "--batch-size", "700")
    finally:
        os.chdir(before)
    return folder


def publish_broken_records() -> None:
    from coupon_ledger.ledger.log import Record
    from coupon_ledger.ledger.topics import COUPON

    log = opened_log()
    try:
        log.append([Record(COUPON, b"c-broken", b"no event"), Record(COUPON, b"c-broken", b"")])
    finally:
        log.close()


@pytest.fixture
def shop(filled: Path, home: Path) -> Path:
    for file in filled.iterdir():
        shutil.copy(file, home / file.name)
    return home


def state(coupon: str = "c-1") -> str:
    found: str = done("state", coupon, "--output", "json").json["state"]
    return found


def digests() -> list[dict[str, object]]:
    found: list[dict[str, object]] = done("digest", "--output", "ndjson").rows
    return found


def accounts() -> list[dict[str, int]]:
    found: list[dict[str, int]] = done("status", "--output", "json").json["partitions"]
    return found


def corrupt(statement: str, file: Path | str = DATABASE) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.execute(statement)


@pytest.mark.long
def test_what_the_log_gives_again_is_equal_in_every_table_and_takes_the_place(shop: Path) -> None:
    """Else nobody could throw the tables away."""
    before = digests()
    told = done("rebuild", "--output", "json").json
    assert told["different"] == [] and set(told["equal"]) == {t for tables in tables.TABLES.values() for t in tables}
    assert told["records"] == sum(account["read"] for account in accounts())
    assert digests() == before
    assert generations.file_of(shop / DATABASE).name == told["swap"]["file"]
    assert generations.previous(shop / DATABASE) is not None


@pytest.mark.slow
def test_dead_letters_are_not_appended_once_more_by_a_rebuild(shop: Path) -> None:
    """Else every rebuild would raise the alarm for what was settled long ago."""
    from tests.command_line import dead_letters_told

    told = dead_letters_told()
    assert told == 2
    done("rebuild")
    done("consume")
    assert dead_letters_told() == told


@pytest.mark.slow
def test_a_table_that_is_not_what_the_log_gives_is_found_and_nothing_is_swapped(shop: Path) -> None:
    """Else a rebuild would hide that the live tables were wrong, or make them wrong."""
    corrupt("UPDATE coupons SET discount_minor = 17 WHERE coupon_id = (SELECT min(coupon_id) FROM coupons)")
    corrupt("DELETE FROM uses WHERE rowid = (SELECT min(rowid) FROM uses)")
    before = digests()
    ran = ledger("rebuild")
    assert ran.code == 5 and "2 of its tables" in ran.err and "--accept-differences" in ran.err
    assert "discount_minor 17 → " in ran.out and "only in the rebuilt one" in ran.out
    assert digests() == before and not (shop / DATABASE).is_symlink()


@pytest.mark.slow
def test_an_intended_change_is_swapped_with_its_reason(shop: Path) -> None:
    right = digests()
    corrupt("UPDATE coupons SET discount_minor = 1 WHERE coupon_id = (SELECT min(coupon_id) FROM coupons)")
    done("rebuild", "--accept-differences", "somebody wrote into the table by hand")
    assert digests() == right
    [operation] = done("operations", "--output", "ndjson").rows
    assert (operation["action"], operation["reason"]) == (
        "differences_accepted",
        "somebody wrote into the table by hand",
    )


@pytest.mark.slow
def test_rolled_back_to_the_generation_before_and_on_from_there(shop: Path) -> None:
    """Else a rebuild by wrong code could not be undone in a second."""
    corrupt("UPDATE coupons SET discount_minor = 1 WHERE coupon_id = (SELECT min(coupon_id) FROM coupons)")
    wrong = digests()
    done("rebuild", "--accept-differences", "a test")
    right = digests()
    done("rebuild", "--rollback", "--why", "a test")
    assert digests() == wrong
    done("rebuild", "--rollback", "--why", "a test")
    assert digests() == right
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-new")]))
    done("consume")
    assert state() == "created"
    done("rebuild", "--rollback", "--why", "a test")
    assert state() == "created", "what came since is folded into the generation that comes back"


def test_without_a_generation_to_go_back_to_it_says_so(shop: Path) -> None:
    one_sentence(ledger("rebuild", "--rollback", "--why", "a test"), 5, DATABASE, "no previous generation")


@pytest.mark.slow
def test_a_lost_database_is_made_again(shop: Path) -> None:
    before = facts()
    (shop / DATABASE).unlink()
    done("rebuild")
    assert facts() == before and not (shop / DATABASE).is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["half", "a byte less", "other bytes", "more bytes", "nothing", "of another database"])
def test_a_torn_write_ahead_log_is_recovered_from_the_log(home: Path, how: str) -> None:
    """Else a power cut at a bad moment would cost numbers, or the night of whoever is on call."""
    done("init")
    done("simulate", "--events", "2000", "--seed", "5")
    with owning("--batch-size", "500") as owner:
        wait_until(lambda: done("status", "--output", "json").json["lag"] == 0, "the log's end")
        owner.process.kill()
        finish(owner.process)
    wal = home / f"{DATABASE}.wal"
    written = wal.read_bytes()
    middle = len(written) // 2
    torn = {
        "half": written[:middle],
        "a byte less": written[:-1],
        "other bytes": written[:middle]
        + bytes(byte ^ 255 for byte in written[middle : middle + 8])
        + written[middle + 8 :],
        "more bytes": written + b"\x01" * 5000,
        "nothing": b"",
        "of another database": written,
    }
    wal.write_bytes(torn[how])
    if how == "of another database":
        (home / DATABASE).unlink()
    if how in ("other bytes", "of another database"):
        if how == "other bytes":
            one_sentence(ledger("consume"), 5, "damaged on disk", "coupon-ledger rebuild")
            (home / DATABASE).rename(home / "damaged")
        done("rebuild")
    done("consume")
    done("init", "--database", "again.duckdb")
    done("consume", "--database", "again.duckdb")
    assert facts() == facts("again.duckdb")


@pytest.mark.slow
def test_only_one_generation_before_the_live_one_is_kept(shop: Path) -> None:
    """Else every rebuild would take the disk space of a database for ever."""
    for _ in range(3):
        done("rebuild")
    assert len(list(shop.glob(f"{DATABASE}.gen*"))) == 2


@pytest.mark.slow
def test_filled_by_an_older_projection_it_says_what_to_do_and_does_it_on_command(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silently: a database of older logic must not be read as if it were of this one."""
    before = versions.VERSIONS["coupons"]
    monkeypatch.setitem(versions.VERSIONS, "coupons", before + 1)
    for command in (["state", "c-1"], ["consume"], ["coupons"]):
        one_sentence(ledger(*command), 5, f"version {before} of the projection coupons", "coupon-ledger rebuild")
    told = done("rebuild", "--output", "json").json
    assert told["other_versions"] == ["coupons"]
    assert "coupons" not in told["equal"] and {"orders", "violations", "checkpoints"} <= set(told["equal"])
    done("consume")


@pytest.mark.slow
def test_filled_by_newer_code_it_is_left_alone_but_can_be_rolled_back(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad deploy is undone by the release before: it brings back its own generation, which goes on."""
    before = facts()
    with monkeypatch.context() as newer:
        newer.setitem(versions.VERSIONS, "rules", 99)
        done("rebuild")
    one_sentence(ledger("state", "c-1"), 5, "version 99 of the projection rules", "newer")
    done("rebuild", "--rollback", "--why", "a test")
    assert facts() == before


@pytest.mark.slow
def test_older_than_versions_are_kept_it_is_rebuilt_too(shop: Path) -> None:
    corrupt("DROP TABLE projections; UPDATE ledger SET version = 2")
    one_sentence(ledger("coupons"), 5, "version 2 of the tables", "coupon-ledger rebuild")
    told = done("rebuild", "--output", "json").json
    assert told["equal"] == [] and set(told["other_versions"]) == set(versions.VERSIONS)
    done("consume")


@pytest.mark.parametrize(
    ("projection", "spoiled"),
    [
        ("coupons", "UPDATE coupons SET discount_minor = 17; DELETE FROM uses; DELETE FROM acquisitions"),
        ("orders", "DELETE FROM orders; UPDATE order_events SET net_minor = 1"),
        ("campaigns", "DELETE FROM campaigns; DELETE FROM campaign_terms; DELETE FROM stock_cuts"),
        ("users", "UPDATE users SET touches = 77"),
        ("rules", "DELETE FROM violations WHERE scope = 'cross'; DELETE FROM awaited; DELETE FROM coupons_in_use"),
        ("intake", "DELETE FROM dead_letters; UPDATE checkpoints SET read = read + 1, applied = applied + 1"),
    ],
)
@pytest.mark.slow
def test_one_projection_is_rebuilt_and_the_others_are_copied(shop: Path, projection: str, spoiled: str) -> None:
    """Else a change of one rule would cost the rebuild of everything."""
    right = digests()
    corrupt(spoiled)
    assert digests() != right
    done("rebuild", "--projection", projection, "--accept-differences", "spoiled by a test")
    assert digests() == right


@pytest.mark.slow
def test_of_several_other_versions_all_must_be_rebuilt(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("users", "orders"):
        monkeypatch.setitem(versions.VERSIONS, name, versions.VERSIONS[name] + 1)
    one_sentence(ledger("rebuild", "--projection", "users"), 5, "orders", "another version too")
    done("rebuild", "--projection", "users", "--projection", "orders")
    done("consume")


@pytest.mark.slow
def test_interrupted_it_goes_on_where_it_was(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of a rebuild are not thrown away by Ctrl-C."""
    from coupon_ledger.consumers.runner import Consumer

    commit, calls = Consumer._commit, iter(range(100))

    def interrupted(self: Consumer, *arguments: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return commit(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Consumer, "_commit", interrupted)
        assert ledger("rebuild", "--batch-size", "500").code == 130
    assert (shop / f"{DATABASE}.rebuild").exists()
    ran = done("rebuild", "--batch-size", "500")
    assert re.search(r"behind the [1-9][\d,]* records", ran.out) and ALL_EQUAL in ran.out


@pytest.mark.slow
def test_from_the_archive_and_the_log_from_there_without_gap_or_overlap(shop: Path) -> None:
    """A log whose retention has passed is not the end of rebuilding."""
    done("archive", "--to", "archive")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-new")]))
    done("consume")
    forget(shop / LOG)
    one_sentence(ledger("rebuild"), 4, "nothing is skipped")
    told = done("rebuild", "--from", "archive", "--archive", "archive", "--output", "json").json
    assert told["different"] == [] and state() == "created"


@pytest.mark.slow
def test_what_neither_archive_nor_log_holds_is_a_loss_with_its_positions(shop: Path) -> None:
    done("archive", "--to", "archive")
    done("publish", "-", stdin=ndjson([coupon_event("created", f"e-{n}", coupon_id=f"c-{n}") for n in range(50)]))
    done("consume")
    forget(shop / LOG)
    ran = ledger("rebuild", "--from", "archive", "--archive", "archive")
    one_sentence(ran, 4, "neither holds", "coupon.events partition", "offsets")


@pytest.mark.slow
def test_a_live_database_that_is_ahead_of_the_log_is_told(shop: Path) -> None:
    """Else the rebuild would wait for ever for records that are lost."""
    done("archive", "--to", "a")
    done("simulate", "--events", "50", "--seed", "77")
    done("consume")
    Path(LOG).unlink()
    done("restore", "--from", "a")
    one_sentence(ledger("rebuild"), 4, "not the log that database", "and was read up to", "restore it from its archive")
    Path(DATABASE).rename("ahead.duckdb")
    done("rebuild")
    done("consume")


@pytest.mark.long
def test_an_archive_of_another_log_is_refused(shop: Path) -> None:
    done("archive", "--to", "archive")
    done("init", "--log", "sqlite:///other.db")
    ran = ledger("rebuild", "--from", "archive", "--archive", "archive", "--log", "sqlite:///other.db")
    one_sentence(ran, 4, "another log")


def forget(log: Path) -> None:
    """As retention would: of every partition only the last records are left."""
    with closing(sqlite3.connect(log)) as connection:
        connection.execute("DROP TRIGGER records_never_go")
        # A partition's last record tells where it ends, even where all are gone for its readers.
        connection.execute(
            "DELETE FROM records WHERE offset < (SELECT p.next_offset - 1 FROM partitions p"
            " WHERE p.partition_id = records.partition_id)",
        )
        connection.commit()


@pytest.mark.slow
def test_a_rebuild_of_one_projection_is_not_taken_for_one_of_all(shop: Path) -> None:
    """Else what was copied would be compared with itself, and a wrong table proven right."""
    corrupt("UPDATE coupons SET discount_minor = 17; UPDATE orders SET net_minor = 17")
    one_sentence(ledger("rebuild", "--projection", "orders"), 5, "2 of its tables", "not what the log gives")
    one_sentence(ledger("rebuild", "--compare-only"), 5, "2 of its tables", "not what the log gives")


@pytest.mark.slow
def test_a_copy_that_a_killed_rebuild_left_is_not_gone_on_with(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coupon_ledger.consumers.rebuild import Rebuild

    def killed(_: Rebuild) -> int:
        raise KeyboardInterrupt

    corrupt("UPDATE coupons SET discount_minor = 17")
    with monkeypatch.context() as patched:
        patched.setattr(Rebuild, "_fold_only", killed)
        patched.setattr(generations, "remove", lambda _: None)
        assert ledger("rebuild", "--projection", "orders").code == 130
    assert (shop / f"{DATABASE}.rebuild").exists()
    one_sentence(ledger("rebuild", "--compare-only"), 5, "1 of its tables", "not what the log gives")


@pytest.mark.parametrize("other", [["--anew"], ["--projection", "users"]])
def test_what_another_rebuild_is_building_is_not_thrown_away(shop: Path, other: list[str]) -> None:
    """Else the first of two would end hours later, without what it built."""
    building = generations.rebuilt_file(shop / DATABASE)
    building.touch()
    with locked_by_another(building):
        one_sentence(ledger("rebuild", *other), 5, "rebuild: in use by")
        assert building.exists()


@contextmanager
def locked_by_another(file: Path) -> Iterator[None]:
    """As DuckDB locks it."""
    locking = "import fcntl; held = open(0, 'rb'); file = open({!r}, 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX);"
    waiting = " print(flush=True); held.read()"
    asked = [sys.executable, "-c", locking.format(str(file)) + waiting]
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout
        other.stdout.readline()
        yield
        other.stdin.close()


@pytest.mark.slow
def test_status_is_told_of_a_database_that_was_rebuilt_from_its_whole_history(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coupon_ledger.consumers import rebuild

    monkeypatch.setattr(rebuild, "WORTH_IT", 1)
    done("rebuild")
    assert "records in a rebuild" in done("status").out


def test_where_nothing_can_be_made_anew_it_is_said(shop: Path) -> None:
    generations.copied_mark(generations.rebuilt_file(shop / DATABASE)).mkdir()
    one_sentence(ledger("rebuild"), 5, f"database {DATABASE}.rebuild: cannot be made anew", "rights")
