"""The generations of a database: the files to which the database's name points, or has pointed.

    DATABASE            the database file; after the first rebuild, a link to the live generation
    DATABASE.previous   a link to the previous generation, to which `rebuild --rollback` returns
    DATABASE.gen2       a generation
    DATABASE.rebuild    the file in which a rebuild is made
    DATABASE.rebuild.copied     exists if the rebuild began as a copy of the live database

Always true:
- `DATABASE` names a complete database at every moment: the link is replaced atomically.
- The file of a generation is never renamed, since DuckDB finds the write-ahead log by the file's name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from coupon_ledger.ledger.errors import StoreError

SLICES: Final = ".slices"
"""Suffix of the folder beside a database with the temporary files of a bulk load."""


def file_of(database: Path) -> Path:
    """The file of the live generation. Before the first rebuild, this is the database's own file."""
    return database.parent / database.readlink() if database.is_symlink() else database


def wal_file(file: Path) -> Path:
    return file.with_name(file.name + ".wal")


def rebuilt_file(database: Path) -> Path:
    """The file in which a rebuild is made, until it is complete."""
    return database.with_name(database.name + ".rebuild")


def copied_mark(file: Path) -> Path:
    """The path of a marker file. It exists if the rebuild in `file` began as a copy of the live database, of which only
    some projections are rebuilt."""
    return file.with_name(file.name + ".copied")


def previous(database: Path) -> Path | None:
    """The file of the previous generation. None if there is none."""
    file = file_of(_previous_link(database))
    return file if file.exists() and not (database.exists() and file.samefile(database)) else None


def add(database: Path, built: Path) -> Path:
    """Rename a finished rebuild (`built`), which must not be open, to the next generation. Returns its new path."""
    file = _next(database)
    built.rename(file)
    _move_mark(built, file)
    return file


def take_back(database: Path, file: Path) -> None:
    """Undo `add`. `file`: the path that it returned."""
    _move_mark(file, rebuilt_file(database))
    file.rename(rebuilt_file(database))


def _move_mark(file: Path, to: Path) -> None:
    if copied_mark(file).exists():
        copied_mark(file).replace(copied_mark(to))


def make_live(database: Path, file: Path, reached: Callable[[str], None] = lambda _: None) -> None:
    """Point the database's name to the generation `file`. The generation that was live becomes the previous one, and
    older ones are removed.

    The generation that was live may still be open. If the process is killed, the name points to either the old or the
    new generation. Raises `StoreError`. `reached`: called after each step with the step's name (named, kept, linked,
    cleared).
    """
    try:
        before = file_of(database)
        if not database.is_symlink():
            before = _named(database)
        reached("named")
        _link(_previous_link(database), before)
        reached("kept")
        _link(database, file)
        reached("linked")
        copied_mark(file).unlink(missing_ok=True)
        # Keep a generation to which the user has made a link with a name of their own.
        named = {link.readlink().name for link in database.parent.iterdir() if link.is_symlink()}
        for old in _all(database).keys() - named:
            remove(database.with_name(old))
        reached("cleared")
    except OSError as error:
        raise StoreError(
            f"database {database}: the other generation cannot take its place ({error.strerror or error}); the folder"
            " must allow links, and its user to write; the database is as it was"
        ) from error


def remove(file: Path) -> None:
    """Remove a database's file, its write-ahead log, and the temporary folders of DuckDB and of bulk loads."""
    wal_file(file).unlink(missing_ok=True)
    for folder in (".tmp", SLICES):
        shutil.rmtree(file.with_name(file.name + folder), ignore_errors=True)
    file.unlink(missing_ok=True)
    copied_mark(file).unlink(missing_ok=True)


def make_room(database: Path) -> None:
    """Rename a write-ahead log that an earlier database of this name left, if there is no database now. Otherwise
    DuckDB would use it for a new database of the name, since it finds a log by the file's name. Call before the new
    database gets the name."""
    left = wal_file(database)
    if left.exists() and not database.exists():
        left.replace(left.with_name(left.name + ".left"))


def settle(database: Path) -> None:
    """Remove the write-ahead log under the database's name if it is obsolete. Call when a generation is opened for
    writing."""
    if database.is_symlink():
        # The log is from the time when the database's name was a file. `_named` made a hard link to it for the first
        # generation.
        wal_file(database).unlink(missing_ok=True)


def _named(database: Path) -> Path:
    """Give the database's file and its write-ahead log a second name, that of a generation. Afterwards, a link can
    replace the database's name. Returns the path of the generation."""
    file = _numbered(database, 1)
    file = _next(database) if file.exists() else file
    os.link(database, file)
    if wal_file(database).exists():
        os.link(wal_file(database), wal_file(file))
    return file


def _previous_link(database: Path) -> Path:
    return database.with_name(database.name + ".previous")


def _link(name: Path, file: Path) -> None:
    """Replace `name` by a link to `file`, atomically."""
    fresh = name.with_name(name.name + ".link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(file.name)
    fresh.replace(name)


def _all(database: Path) -> dict[str, int]:
    """The file names of all generations, with their numbers."""
    pattern = re.compile(re.escape(database.name) + r"\.gen([0-9]+)")
    matches = ((file.name, pattern.fullmatch(file.name)) for file in database.parent.iterdir())
    return {name: int(match[1]) for name, match in matches if match}


def _next(database: Path) -> Path:
    return _numbered(database, max(_all(database).values(), default=1) + 1)


def _numbered(database: Path, number: int) -> Path:
    return database.with_name(f"{database.name}.gen{number}")
