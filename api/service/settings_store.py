"""The settings store: people, tokens, sessions, saved views and the service's own secrets, in a SQLite file beside the
database (`<database>.settings`), which only its owner may read.

It cannot be made again from the log. `backup` does not copy it (docs/deploy/ says how to), and no rebuild touches it.
Commands and the service may use it at the same time; each connection is for one thread.

Always true:
- It holds no password and no token, only hashes from which neither can be found.
- A person who is disabled, or whose role, scope or password changes, has no session any more.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

from coupon_ledger.api.service import credentials
from coupon_ledger.ledger.errors import SettingsStoreError, UnknownAccount

IDLE_S: Final = 12 * 3600.0
LONGEST_S: Final = 7 * 86_400.0
"""A session ends when it was not used for `IDLE_S`, and at the latest `LONGEST_S` after the sign-in."""
_NOTE_EVERY_S: Final = 60.0
"""The last use of a session or token is written at most this often."""
_WAIT_S: Final = 10.0
_VERSION: Final = 1

Scope = Mapping[str, Sequence[str]]
"""Which rows may be seen: names by kind (`campaign`, `channel`, `store`). A kind that is missing does not narrow."""


@dataclass(frozen=True, slots=True)
class Person:
    """`has_password`: False for somebody who can sign in with OpenID Connect only. `language`, `zone`: None: that of
    the service."""

    name: str
    display_name: str
    role: str
    scope: Scope
    has_password: bool
    language: str | None
    zone: str | None
    created_at: float
    disabled_at: float | None


@dataclass(frozen=True, slots=True)
class Token:
    """`sources`: the values that events which this token publishes may have in `source`."""

    id: str
    name: str
    role: str
    scope: Scope
    sources: tuple[str, ...]
    created_at: float
    expires_at: float
    revoked_at: float | None
    used_at: float | None

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. `csrf`: what its forms must bring."""

    person: Person
    csrf: str


@dataclass(frozen=True, slots=True)
class SavedView:
    id: str
    person: str
    name: str
    address: str
    shared: bool
    created_at: float = field(compare=False)


def settings_file(database: Path) -> Path:
    return database.with_name(database.name + ".settings")


class SettingsStore:
    """An open settings store. `clock`: the time in seconds since the epoch."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the store, and create it if it is missing. Raises `SettingsStoreError`."""
        self.file = file
        self._clock = clock
        with self._failing_clearly():
            if not file.exists():
                os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        # In this order: another process may be creating the store, in one transaction with its version.
        [(tables,)] = self._connection.execute("SELECT count(*) FROM sqlite_schema")
        [(version,)] = self._connection.execute("PRAGMA user_version")
        if not version and tables:
            raise SettingsStoreError(
                f"settings store {self.file}: is another program's database; move it away, or restore the store from a"
                " backup"
            )
        if version not in (0, _VERSION):
            raise SettingsStoreError(
                f"settings store {self.file}: was written by another version of coupon-ledger ({version}); use that one"
            )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if version == _VERSION:
            return
        schema = files(__package__).joinpath("settings.sql").read_text(encoding="utf-8")
        self._connection.executescript(f"BEGIN IMMEDIATE; {schema}; PRAGMA user_version = {_VERSION}; COMMIT")

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise SettingsStoreError(
                f"settings store {self.file}: cannot be used ({error}); check the folder's rights and space, or restore"
                " it from a backup"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._failing_clearly():
            return self._connection.execute(query, values).fetchall()

    def _change(self, query: str, *values: object) -> int:
        with self._failing_clearly():
            return self._connection.execute(query, values).rowcount

    def _note(self, query: str, *values: object) -> None:
        """Write a last use. If another process is writing, or the disk is full, it is left out: the request that it is
        about can be answered all the same."""
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            with suppress(SettingsStoreError):
                self._change(query, *values)
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {int(_WAIT_S * 1000)}")

    # ── People ───────────────────────────────────────────────────────────────────────────────────────────────

    def people(self) -> list[Person]:
        return [_person(row) for row in self._rows("SELECT * FROM people ORDER BY name")]

    def person(self, name: str) -> Person:
        """Raises `UnknownAccount`."""
        rows = self._rows("SELECT * FROM people WHERE name = ?", name)
        if not rows:
            raise UnknownAccount(f"person {name}: there is none of that name; see `coupon-ledger people list`")
        return _person(rows[0])

    def add_person(
        self,
        name: str,
        *,
        role: str,
        display_name: str = "",
        scope: Scope | None = None,
        password: str | None = None,
        language: str | None = None,
        zone: str | None = None,
    ) -> Person:
        """`password`: None if the person signs in with OpenID Connect. Raises `SettingsStoreError` if there is one of
        that name already."""
        values = {
            "name": name,
            "display_name": display_name or name,
            "role": role,
            "scope": _scope_text(scope),
            "password_hash": None if password is None else credentials.hashed_password(password),
            "language": language,
            "zone": zone,
            "created_at": self._clock(),
        }
        try:
            self._insert("people", values)
        except sqlite3.IntegrityError:
            raise SettingsStoreError(
                f"person {name}: exists already; change it with `coupon-ledger people change`"
            ) from None
        return self.person(name)

    def change_person(self, name: str, **changes: Any) -> Person:
        """`changes`: `role`, `scope`, `display_name`, `language`, `zone`, `password` or `disabled` (a bool). Whatever
        concerns what the person may do ends all sessions. Raises `UnknownAccount`."""
        self.person(name)
        columns: dict[str, object] = {}
        for key, value in changes.items():
            if key == "scope":
                columns["scope"] = _scope_text(value)
            elif key == "password":
                columns["password_hash"] = credentials.hashed_password(value)
            elif key == "disabled":
                columns["disabled_at"] = self._clock() if value else None
            else:
                columns[key] = value
        setting = ", ".join(f"{column} = ?" for column in columns)
        with self._transaction():
            self._change(f"UPDATE people SET {setting} WHERE name = ?", *columns.values(), name)
            if changes.keys() & {"role", "scope", "password", "disabled"}:
                self._change("DELETE FROM sessions WHERE person = ?", name)
        return self.person(name)

    def remove_person(self, name: str) -> None:
        """Raises `UnknownAccount`."""
        self.person(name)
        self._change("DELETE FROM people WHERE name = ?", name)

    def has_admin(self) -> bool:
        return bool(self._rows("SELECT 1 FROM people WHERE role = 'admin' AND disabled_at IS NULL LIMIT 1"))

    def with_password(self, name: str, password: str) -> Person | None:
        """The person who has this name and password. None if there is none, or the person is disabled. Takes as long
        either way."""
        rows = self._rows("SELECT * FROM people WHERE name = ?", name)
        right = credentials.is_password(password, rows[0]["password_hash"] if rows else None)
        return _person(rows[0]) if right and rows[0]["disabled_at"] is None else None

    def of_subject(self, subject: str) -> Person | None:
        """The person with this id at the OpenID provider; None if there is none, or the person is disabled."""
        rows = self._rows("SELECT * FROM people WHERE subject = ? AND disabled_at IS NULL", subject)
        return _person(rows[0]) if rows else None

    def use_subject(self, name: str, subject: str) -> bool:
        """Note the person's id at the OpenID provider. False if the person has another one already."""
        return self._change("UPDATE people SET subject = ? WHERE name = ? AND subject IS NULL", subject, name) == 1

    # ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────────

    def begin_session(self, person: str) -> str:
        """Returns the value of the session's cookie."""
        value, now = secrets.token_urlsafe(32), self._clock()
        self._change("DELETE FROM sessions WHERE used_at < ? OR created_at < ?", now - IDLE_S, now - LONGEST_S)
        self._insert(
            "sessions",
            {
                "hash": credentials.digest(value),
                "person": person,
                "csrf": secrets.token_urlsafe(24),
                "created_at": now,
                "used_at": now,
            },
        )
        return value

    def session(self, value: str) -> Session | None:
        """The session with this cookie; None if there is none, or it has ended."""
        now, hashed = self._clock(), credentials.digest(value)
        rows = self._rows(
            "SELECT people.*, csrf, sessions.created_at AS began_at, used_at FROM sessions JOIN people"
            " ON people.name = sessions.person WHERE hash = ? AND disabled_at IS NULL",
            hashed,
        )
        if not rows or rows[0]["used_at"] < now - IDLE_S or rows[0]["began_at"] < now - LONGEST_S:
            return None
        if rows[0]["used_at"] < now - _NOTE_EVERY_S:
            self._note("UPDATE sessions SET used_at = ? WHERE hash = ?", now, hashed)
        return Session(_person(rows[0]), rows[0]["csrf"])

    def end_session(self, value: str) -> None:
        self._change("DELETE FROM sessions WHERE hash = ?", credentials.digest(value))

    # ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────

    def tokens(self) -> list[Token]:
        return [_token(row) for row in self._rows("SELECT * FROM tokens ORDER BY name")]

    def token(self, name: str) -> Token:
        """Raises `UnknownAccount`."""
        rows = self._rows("SELECT * FROM tokens WHERE name = ?", name)
        if not rows:
            raise UnknownAccount(f"token {name}: there is none of that name; see `coupon-ledger tokens list`")
        return _token(rows[0])

    def add_token(
        self, name: str, *, role: str, valid_s: float, scope: Scope | None = None, sources: Iterable[str] = ()
    ) -> str:
        """Returns the token, which can never be shown again. Raises `SettingsStoreError` if there is one of that name
        already."""
        made, now = credentials.new_token(), self._clock()
        values = {
            "id": made.id,
            "name": name,
            "role": role,
            "scope": _scope_text(scope),
            "sources": json.dumps(sorted(set(sources)), ensure_ascii=False),
            "hash": made.hash,
            "created_at": now,
            "expires_at": now + valid_s,
        }
        try:
            self._insert("tokens", values)
        except sqlite3.IntegrityError:
            raise SettingsStoreError(
                f"token {name}: exists already; `coupon-ledger tokens rotate` gives it another secret"
            ) from None
        return made.text

    def rotate_token(self, name: str, *, valid_s: float, overlap_s: float) -> str:
        """Give the token another secret. The former one works for `overlap_s` more. Returns the token. Raises
        `UnknownAccount`, and `SettingsStoreError` if the token was revoked."""
        token, now = self.token(name), self._clock()
        if token.revoked_at is not None:
            raise SettingsStoreError(f"token {name}: was revoked; create another with `coupon-ledger tokens add`")
        made = credentials.new_token(token.id)
        until = min(now + overlap_s, token.expires_at)
        self._change(
            "UPDATE tokens SET previous_hash = hash, previous_until = ?, hash = ?, expires_at = ? WHERE id = ?",
            until,
            made.hash,
            now + valid_s,
            token.id,
        )
        return made.text

    def revoke_token(self, name: str) -> None:
        """Raises `UnknownAccount`."""
        token = self.token(name)
        self._change("UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", self._clock(), token.id)

    def of_token(self, text: str) -> Token | None:
        """The active token that this text is; None if there is none."""
        parsed = credentials.parsed_token(text)
        rows = self._rows("SELECT * FROM tokens WHERE id = ? AND revoked_at IS NULL", parsed[0]) if parsed else []
        if not rows:
            return None
        assert parsed is not None
        row, now, given = rows[0], self._clock(), parsed[1]
        current = credentials.same(row["hash"], given) and row["expires_at"] > now
        previous = row["previous_hash"] is not None and credentials.same(row["previous_hash"], given)
        if not current and not (previous and row["previous_until"] > now):
            return None
        if row["used_at"] is None or row["used_at"] < now - _NOTE_EVERY_S:
            self._note("UPDATE tokens SET used_at = ? WHERE id = ?", now, row["id"])
        return _token(row)

    # ── Saved views and secrets ──────────────────────────────────────────────────────────────────────────────

    def saved_views(self, person: str) -> list[SavedView]:
        """The views of this person and those that others share."""
        rows = self._rows("SELECT * FROM saved_views WHERE person = ? OR shared ORDER BY name, person", person)
        return [_view(row) for row in rows]

    def save_view(self, person: str, name: str, address: str, *, shared: bool) -> None:
        """Save a view, in place of this person's view of that name, if any."""
        self._change(
            "INSERT INTO saved_views (id, person, name, address, shared, created_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (person, name) DO UPDATE SET address = excluded.address, shared = excluded.shared",
            secrets.token_hex(8),
            person,
            name,
            address,
            shared,
            self._clock(),
        )

    def remove_view(self, person: str, view_id: str) -> None:
        self._change("DELETE FROM saved_views WHERE id = ? AND person = ?", view_id, person)

    def secret(self, name: str) -> bytes:
        """The secret of this name: 32 random bytes, made when it is first asked for."""
        self._change("INSERT OR IGNORE INTO secrets VALUES (?, ?)", name, secrets.token_bytes(32))
        value: bytes = self._rows("SELECT value FROM secrets WHERE name = ?", name)[0]["value"]
        return value

    def copy_to(self, file: Path) -> None:
        """Copy the store to a new file that only its owner may read."""
        with self._failing_clearly():
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(file)) as copy:
                self._connection.backup(copy)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._change("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._change("COMMIT")

    def _insert(self, table: str, values: Mapping[str, object]) -> None:
        places = ", ".join("?" * len(values))
        self._change(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", *values.values())


def _scope_text(scope: Scope | None) -> str:
    return json.dumps({kind: sorted(set(names)) for kind, names in (scope or {}).items()}, ensure_ascii=False)


def _scope(text: str) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(names) for kind, names in json.loads(text).items()}


def _person(row: sqlite3.Row) -> Person:
    return Person(
        row["name"],
        row["display_name"],
        row["role"],
        _scope(row["scope"]),
        row["password_hash"] is not None,
        row["language"],
        row["zone"],
        row["created_at"],
        row["disabled_at"],
    )


def _token(row: sqlite3.Row) -> Token:
    return Token(
        row["id"],
        row["name"],
        row["role"],
        _scope(row["scope"]),
        tuple(json.loads(row["sources"])),
        row["created_at"],
        row["expires_at"],
        row["revoked_at"],
        row["used_at"],
    )


def _view(row: sqlite3.Row) -> SavedView:
    return SavedView(row["id"], row["person"], row["name"], row["address"], bool(row["shared"]), row["created_at"])
