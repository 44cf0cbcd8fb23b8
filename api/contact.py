"""Two files beside a database, by which clients find the owner and prove that they may ask it.

- `<database>.owner`: which process the owner is, and the address at which it answers. Everyone may read this file; it
  contains no secret.
- `<database>.token`: a random token, new with each start of the owner. Only the owner's user may read this file (0600).
  The owner removes it when it stops. If the owner is killed, the token stays, but is useless, since the next owner
  creates another.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from coupon_ledger.ledger.errors import StoreError

INTERFACE: Final = 3
"""Version of the protocol between the command line and an owner. Clients refuse an owner of another version."""

ARROW: Final = "application/vnd.apache.arrow.stream"
FOLLOWED: Final = "x-progress"
"""Request header: send progress as lines of JSON, followed by the answer."""
LIMIT: Final = "x-limit-s"
"""Request header: time limit of the question, in seconds."""
SNAPSHOT: Final = "x-snapshot"
"""Request header: name of the snapshot that answers."""
ACCESS: Final = "x-access"
"""Request header: the caller's access rights, as `Access.dumps` writes them. Without it, all rights: the client
is the command line. Only holders of the owner's token can send either."""


def token_file(database: Path) -> Path:
    return database.with_name(database.name + ".token")


def write_token(database: Path) -> str:
    """Create a token, write it to the token file, and return it. A file that a killed owner left behind is replaced.
    Only the owner calls this. Raises `StoreError` if the file cannot be written."""
    token, file = secrets.token_urlsafe(32), token_file(database)
    try:
        file.unlink(missing_ok=True)
        # Never write to a file that somebody else created here, nor follow a link.
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
    """The token in the token file. Raises `StoreError` if this user may not read the file, and `FileNotFoundError` if
    there is none."""
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
