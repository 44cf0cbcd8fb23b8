"""Passwords and tokens: how they are made, hashed and checked.

- Passwords are hashed with Argon2id, with the parameters of RFC 9106, section 4, for machines with little memory.
- A token is `cl_<id>_<secret>`. The secret has 256 random bits. It cannot be guessed from its SHA-256, so no slow
  hash is needed.
- The same goes for the cookies of sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST: Final = 12
LONGEST: Final = 256
"""Length of a password, in characters."""
_TOKEN: Final = re.compile(r"cl_([a-z2-7]{8})_([A-Za-z0-9_-]{43})")
_ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"


class NewToken(NamedTuple):
    """A token that was just made. `text`: what its user is given, once. `hash`: what is kept."""

    id: str
    text: str
    hash: bytes


def new_token(token_id: str | None = None) -> NewToken:
    """`token_id`: that of the token whose secret is replaced."""
    token_id = token_id or "".join(secrets.choice(_ID_ALPHABET) for _ in range(8))
    secret = secrets.token_urlsafe(32)
    return NewToken(token_id, f"cl_{token_id}_{secret}", digest(secret))


def parsed_token(text: str) -> tuple[str, bytes] | None:
    """The id of the token and the hash of its secret. None if the text is no token."""
    matched = _TOKEN.fullmatch(text)
    return (matched[1], digest(matched[2])) if matched else None


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def same(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)


def password_problem(password: str, name: str) -> str | None:
    """Why the password cannot be used; None if it can. `name`: the person's name."""
    if len(password) < SHORTEST:
        return f"has {len(password)} characters; use at least {SHORTEST}"
    if len(password) > LONGEST:
        return f"has more than {LONGEST} characters; use fewer"
    if len(set(password)) < 5:
        return "repeats few characters; use more different ones"
    if name.casefold() in password.casefold():
        return "contains the person's name; leave it out"
    return None


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher
    from argon2.profiles import RFC_9106_LOW_MEMORY

    return PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


@cache
def _of_nobody() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


def hashed_password(password: str) -> str:
    return _hasher().hash(password)


def is_password(password: str, password_hash: str | None) -> bool:
    """Whether this is the password. `password_hash`: None if there is no such person, or no password; the answer then
    takes as long."""
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(password_hash or _of_nobody(), password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False
