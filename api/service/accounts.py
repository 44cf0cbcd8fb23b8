"""The rules for people and tokens, which commands and the HTTP API share: names, roles, passwords, and that somebody
can always administer the service."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from coupon_ledger.api.service.credentials import password_problem
from coupon_ledger.api.service.settings_store import Person, Scope, SettingsStore, Token
from coupon_ledger.ledger.errors import SettingsStoreError, WrongAccount

ROLES: Final = ("publisher", "marketing", "finance", "risk", "ops", "manager", "admin")
OF_PEOPLE: Final = tuple(role for role in ROLES if role != "publisher")
VALID: Final = timedelta(days=90)
OVERLAP: Final = timedelta(hours=24)
"""How long a token is valid, and how long the former one works after a rotation, unless the caller says otherwise."""


def check_name(name: str) -> None:
    """Raises `WrongAccount`."""
    if not 1 <= len(name) <= 100 or name != name.strip() or any(ord(c) < 32 or c in ':/"' for c in name):
        raise WrongAccount('a name has 1 to 100 characters, without : / " and control characters')


def check_role(role: str, roles: Sequence[str]) -> None:
    """Raises `WrongAccount`."""
    if role not in roles:
        raise WrongAccount(f"role {role[:60]}: there is none of that name; there are {', '.join(roles)}")


def check_password(password: str, name: str) -> None:
    """Raises `WrongAccount`."""
    if why := password_problem(password, name):
        raise WrongAccount(f"password of {name}: {why}")


def made_password() -> str:
    return secrets.token_urlsafe(15)


def add_person(store: SettingsStore, name: str, *, role: str, password: str | None, **further: Any) -> Person:
    """Raises `WrongAccount`, and `SettingsStoreError` if there is one of that name, however it is capitalised."""
    check_new_person(store, name, role)
    if password is not None:
        check_password(password, name)
    return store.add_person(name, role=role, password=password, **further)


def check_new_person(store: SettingsStore, name: str, role: str) -> None:
    """Raises `WrongAccount`, and `SettingsStoreError` if there is one of that name, however it is capitalised."""
    check_name(name)
    check_role(role, OF_PEOPLE)
    if any(person.name.casefold() == name.casefold() for person in store.people()):
        raise SettingsStoreError(f"person {name}: exists already; `coupon-ledger people change` changes one")


def change_person(store: SettingsStore, name: str, changes: Mapping[str, Any]) -> Person:
    """`changes`: as in `SettingsStore.change_person`. Raises `UnknownAccount`, `WrongAccount`, and `SettingsStoreError`
    if no admin would remain."""
    person = store.person(name)
    if not changes:
        raise WrongAccount("nothing to change is named; name what changes")
    if "role" in changes:
        check_role(changes["role"], OF_PEOPLE)
    if "password" in changes:
        check_password(changes["password"], person.name)
    keep_an_admin(store, person, changes)
    return store.change_person(name, **changes)


def remove_person(store: SettingsStore, name: str) -> None:
    """Raises `UnknownAccount`, and `SettingsStoreError` if no admin would remain."""
    keep_an_admin(store, store.person(name), {"disabled": True})
    store.remove_person(name)


def keep_an_admin(store: SettingsStore, person: Person, changes: Mapping[str, Any]) -> None:
    """Raises `SettingsStoreError` if no admin would be left."""
    loses = changes.get("disabled") or changes.get("role", person.role) != "admin"
    others = [one for one in store.people() if one.role == "admin" and one.disabled_at is None and one != person]
    if person.role == "admin" and person.disabled_at is None and loses and not others:
        raise SettingsStoreError(f"person {person.name}: is the only admin; add another one first")


def add_token(
    store: SettingsStore, name: str, *, role: str, sources: Sequence[str], valid: timedelta | None, scope: Scope
) -> str:
    """Returns the token, which can never be shown again. Raises `WrongAccount`, `SettingsStoreError`."""
    check_name(name)
    check_role(role, ROLES)
    if role == "publisher" and not sources:
        raise WrongAccount("a publisher needs a source: the value of `source` in its events")
    return store.add_token(name, role=role, valid_s=(valid or VALID).total_seconds(), scope=scope, sources=sources)


def rotate_token(store: SettingsStore, name: str, valid: timedelta | None, overlap: timedelta | None) -> str:
    """Returns the new token. Raises `UnknownAccount`, `SettingsStoreError`."""
    overlap_s = (OVERLAP if overlap is None else overlap).total_seconds()
    return store.rotate_token(name, valid_s=(valid or VALID).total_seconds(), overlap_s=overlap_s)


def person_row(person: Person) -> dict[str, Any]:
    """The person as lists show it."""
    return {
        "name": person.name,
        "display_name": person.display_name,
        "role": person.role,
        "scope": _scope_text(person.scope),
        "state": "disabled" if person.disabled_at is not None else "active",
        "signs_in_with": "password" if person.has_password else "openid",
        "created_at": instant(person.created_at),
    }


def token_row(token: Token) -> dict[str, Any]:
    """The token as lists show it, without its secret."""
    return {
        "name": token.name,
        "role": token.role,
        "scope": _scope_text(token.scope),
        "sources": list(token.sources),
        "state": token.state(datetime.now(UTC).timestamp()),
        "expires_at": instant(token.expires_at),
        "last_used_at": instant(token.used_at),
        "created_at": instant(token.created_at),
    }


def _scope_text(scope: Scope) -> str | None:
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in scope.items()) or None


def instant(seconds: float | None) -> datetime | None:
    """The instant, naive in UTC, to the second."""
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC).replace(tzinfo=None)
