"""How others find the owner of a database and prove that they may ask: two files beside it.

- `<database>.owner`: who owns it and at which address it answers; for all to read, holds no secret.
- `<database>.token`: a random token for this run of the owner, for its user alone to read (0600). Gone with the owner;
  one that a killed owner left opens nothing, since the next owner makes its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from coupon_ledger.ledger.errors import StoreError

INTERFACE: Final = 2
"""Of questions and answers between the command line and an owner. Another number is not asked."""

ARROW: Final = "application/vnd.apache.arrow.stream"
FOLLOWED: Final = "x-progress"
"""A header of a question: lines of JSON tell how far it is, and the answer comes behind them."""
LIMIT: Final = "x-limit-s"
"""Another one: how long it may take."""
SNAPSHOT: Final = "x-snapshot"
"""Another one: the name of the snapshot that is asked."""


def token_file(database: Path) -> Path:
    return database.with_name(database.name + ".token")


def write_token(database: Path) -> str:
    """Make a token and its file, in place of one that a killed owner left. Only for the owner. Raises `StoreError`."""
    token, file = secrets.token_urlsafe(32), token_file(database)
    try:
        file.unlink(missing_ok=True)
        # Never into a file that somebody else made here, nor through a link.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="ascii") as opened:  # noqa: PTH123
            os.fchmod(descriptor, 0o600)
            opened.write(token)
    except OSError as error:
        raise StoreError(
            f"token file {file}: cannot be written ({error.strerror}); check the folder's rights"
        ) from error
    return token


def read_token(database: Path) -> str:
    """Raises `StoreError` where this user may not read it, `FileNotFoundError` where there is none."""
    file = token_file(database)
    try:
        return file.read_text(encoding="ascii")
    except PermissionError as error:
        raise StoreError(
            f"token file {file}: only the user who runs `consume` may read it; run this command as that user"
        ) from error


def remove_token(database: Path) -> None:
    with contextlib.suppress(OSError):
        token_file(database).unlink(missing_ok=True)
