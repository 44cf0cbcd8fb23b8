"""The settings store: people and tokens are kept safe, and whatever is wrong with the file is said."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coupon_ledger.api.service.settings_store import IDLE_S, LONGEST_S, SettingsStore, settings_file
from coupon_ledger.ledger.errors import SettingsStoreError, UnknownAccount
from tests.command_line import DATABASE, done, ledger, one_sentence

_OPENING = """
import sys
from pathlib import Path
from coupon_ledger.api.service.settings_store import SettingsStore
sys.stdin.readline()
for n in range(20):
    with SettingsStore(Path(sys.argv[1])) as store:
        store.add_token(f"{sys.argv[2]}-{n}", role="manager", valid_s=60)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "c.duckdb.settings"


def test_only_its_user_may_read_it(file: Path) -> None:
    """Else others on the machine could try the hashes of passwords."""
    before = os.umask(0)
    try:
        with SettingsStore(file) as store:
            store.add_token("t", role="manager", valid_s=60)
            store.copy_to(file.with_name("copy"))
            beside = [file, *file.parent.glob("*-wal"), *file.parent.glob("*-shm"), file.with_name("copy")]
            assert {stat.S_IMODE(one.stat().st_mode) for one in beside} == {0o600}
    finally:
        os.umask(before)


def test_it_holds_no_password_and_no_token(file: Path) -> None:
    """Else a copy of the file would be a key to the ledger."""
    with SettingsStore(file) as store:
        token = store.add_token("t", role="manager", valid_s=60)
        store.add_person("mei", role="admin", password="correct horse battery")
        session = store.begin_session("mei")
    content = b"".join(one.read_bytes() for one in file.parent.iterdir())
    for secret in (token, token.split("_", 2)[2], "correct horse battery", session):
        assert secret.encode() not in content


@pytest.mark.parametrize("fault", ["text", "torn", "foreign", "newer", "folder"])
def test_a_file_that_cannot_be_used_is_said(file: Path, fault: str) -> None:
    """Else people would be written into another program's file, or all of them would be gone without a word."""
    if fault == "folder":
        file.mkdir()
    elif fault == "text":
        file.write_text("people:\n  - mei\n" * 100)
    elif fault == "torn":
        with SettingsStore(file) as store:
            store.add_person("mei", role="admin")
        file.write_bytes(file.read_bytes()[:5_000])
    else:
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE theirs (a)" if fault == "foreign" else "PRAGMA user_version = 99")
        other.close()
    with pytest.raises(SettingsStoreError, match=str(file)), SettingsStore(file) as store:
        store.people()
    if fault == "foreign":
        with sqlite3.connect(file) as other:
            assert [*other.execute("SELECT name FROM sqlite_schema")] == [("theirs",)]
        other.close()


@pytest.mark.long
def test_two_processes_may_open_it_at_once(file: Path) -> None:
    """Else a command beside the running service would fail now and then, also when both create the store."""
    processes = [
        subprocess.Popen([sys.executable, "-c", _OPENING, file, str(n)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, b"")
    with SettingsStore(file) as store:
        assert len(store.tokens()) == 40


def test_a_token_is_known_while_another_process_writes(file: Path) -> None:
    """Else a command that takes long, or a full disk, would lock all systems out."""
    with SettingsStore(file) as store, sqlite3.connect(file, isolation_level=None) as other:
        text = store.add_token("t", role="manager", valid_s=60)
        other.execute("BEGIN IMMEDIATE")
        token = store.of_token(text)
        other.execute("ROLLBACK")
        assert token is not None and token.used_at is None
        store.of_token(text)
        assert store.token("t").used_at is not None
    other.close()


def test_sessions_end(file: Path) -> None:
    """Else a browser that was left open would stay signed in, or somebody who may no longer see the ledger."""
    now = [1_000_000.0]
    with SettingsStore(file, lambda: now[0]) as store:
        store.add_person("mei", role="admin", password="correct horse battery")
        idle = store.begin_session("mei")
        now[0] += IDLE_S + 1
        assert store.session(idle) is None
        used = store.begin_session("mei")
        for _ in range(int(LONGEST_S / IDLE_S)):
            assert store.session(used) is not None
            now[0] += IDLE_S
        now[0] += 1
        assert store.session(used) is None
        for changes in ({"role": "risk"}, {"scope": {"store": ["s-1"]}}, {"password": "another horse"}):
            value = store.begin_session("mei")
            store.change_person("mei", **changes)
            assert store.session(value) is None, changes
        value = store.begin_session("mei")
        store.change_person("mei", disabled=True)
        assert store.session(value) is None
        assert store.with_password("mei", "another horse") is None


def test_what_is_not_there_is_said(file: Path) -> None:
    with SettingsStore(file) as store:
        for missing in (store.person, store.token, store.remove_person, store.revoke_token):
            with pytest.raises(UnknownAccount, match="none of that name"):
                missing("nobody")
        store.add_token("t", role="manager", valid_s=60)
        store.revoke_token("t")
        with pytest.raises(SettingsStoreError, match="revoked"):
            store.rotate_token("t", valid_s=60, overlap_s=0)
        with pytest.raises(SettingsStoreError, match="exists already"):
            store.add_token("t", role="manager", valid_s=60)


@pytest.fixture
def people(home: Path) -> SettingsStore:
    done("init")
    return SettingsStore(settings_file(home / DATABASE))


def test_the_last_admin_stays(people: SettingsStore) -> None:
    """Else nobody could let anybody in any more."""
    with people:
        done("people", "add", "mei", "--role", "admin", "--password-stdin", stdin=b"correct horse battery\n")
        for arguments in (("change", "mei", "--role", "risk"), ("change", "mei", "--disable"), ("remove", "mei")):
            one_sentence(ledger("people", *arguments), 2, "mei", "only admin")
        done("people", "add", "li", "--role", "admin", "--no-password")
        done("people", "change", "mei", "--role", "risk", "--store", "s-1")
        one_sentence(ledger("people", "remove", "li"), 2, "li", "only admin")
        done("people", "remove", "mei")
        [row] = done("people", "list", "--output", "json").json
        assert (row["name"], row["role"], row["signs_in_with"], row["state"]) == ("li", "admin", "openid", "active")


def test_passwords_have_a_measure(people: SettingsStore) -> None:
    """Else the ledger would be as safe as the worst of them."""
    with people:
        for password in (b"short\n", b"a" * 300 + b"\n", b"aaaaaaaaaaaaaaaa\n", b"my-name-is-mei-ok\n", b""):
            one_sentence(ledger("people", "add", "mei", "--role", "risk", "--password-stdin", stdin=password), 2, "mei")
        assert people.people() == []
        said = done("people", "add", "mei", "--role", "risk", "--generate-password").out
        assert people.with_password("mei", said.strip().rpartition(" ")[2]) is not None


def test_tokens_are_shown_once(people: SettingsStore) -> None:
    """Else a list of tokens would be a list of keys."""
    with people:
        assert ledger("tokens", "add", "shop", "--role", "publisher").code == 2
        text = done("tokens", "add", "shop", "--role", "publisher", "--source", "shop").out.strip()
        assert people.of_token(text) is not None
        listed = done("tokens", "list", "--output", "json")
        [row] = listed.json
        assert (row["name"], row["state"], row["sources"]) == ("shop", "active", ["shop"])
        assert text.split("_", 2)[2] not in listed.out
        other = done("tokens", "rotate", "shop", "--overlap", "5m").out.strip()
        assert people.of_token(text) is not None and people.of_token(other) is not None
        done("tokens", "revoke", "shop")
        assert people.of_token(text) is None and people.of_token(other) is None
        one_sentence(ledger("tokens", "revoke", "nobody"), 1, "nobody", "none of that name")
