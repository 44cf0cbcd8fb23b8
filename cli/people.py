"""`people`: who may sign in to the pages, with which role. `tokens`: which systems may use the HTTP API."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from coupon_ledger.cli.options import duration_option, output_option, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.ledger.errors import SettingsStoreError, StoreNotInitialised
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from coupon_ledger.api.service.settings_store import Person, Scope, SettingsStore, Token

Command = TypeVar("Command", bound=Callable[..., Any])
ROLES: Final = ("publisher", "marketing", "finance", "manager", "risk", "ops", "admin")
"""Those of `questions/access/roles.toml`; a test compares them."""
_OF_PEOPLE: Final = tuple(role for role in ROLES if role != "publisher")
_VALID: Final = timedelta(days=90)
_OVERLAP: Final = timedelta(hours=24)


@contextmanager
def _store(settings: Settings) -> Iterator[SettingsStore]:
    from coupon_ledger.api.service.settings_store import SettingsStore, settings_file

    if not settings.database.exists():
        raise StoreNotInitialised(f"database {settings.database}: not there; make it with `coupon-ledger init`")
    with SettingsStore(settings_file(settings.database)) as store:
        yield store


def _scope_options(command: Command) -> Command:
    for kind in ("store", "channel", "campaign"):
        command = click.option(
            f"--{kind}", f"{kind}s", multiple=True, help=f"Only what concerns this {kind}. Repeat it for several."
        )(command)
    return command


def _scope(campaigns: Sequence[str], channels: Sequence[str], stores: Sequence[str]) -> Scope:
    scope = {"campaign": campaigns, "channel": channels, "store": stores}
    return {kind: names for kind, names in scope.items() if names}


@click.group()
def people() -> None:
    """Show and change who may sign in to the pages.

    People are kept in a file beside the database (<database>.settings), with their roles and hashes of their passwords.
    `backup` does not copy it; docs/deploy/ says how to.

    \b
    coupon-ledger people add mei --role admin
    coupon-ledger people list
    """


@people.command("list")
@settings_options("database")
@output_option
def list_people(settings: Settings, output: str) -> None:
    """List the people: role, scope, and whether they can sign in.

    \b
    coupon-ledger people list
    coupon-ledger people list --output json
    """
    with _store(settings) as store:
        print_rows([_person_row(person) for person in store.people()], output)


@people.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(_OF_PEOPLE), required=True, help="What the person may see and do.")
@click.option("--display-name", default="", help="Name that others see. [default: NAME]")
@_scope_options
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--generate-password", is_flag=True, help="Make a password, and print it once.")
@click.option("--no-password", is_flag=True, help="The person signs in with OpenID Connect only.")
@settings_options("database")
def add_person(
    name: str,
    role: str,
    display_name: str,
    campaigns: Sequence[str],
    channels: Sequence[str],
    stores: Sequence[str],
    password_stdin: bool,
    generate_password: bool,
    no_password: bool,
    settings: Settings,
) -> None:
    """Add a person, who can then sign in at the pages of `coupon-ledger run`. Asks for the password, without showing
    it. There is no default password.

    With --campaign, --channel or --store, the person sees only what concerns these.

    \b
    coupon-ledger people add mei --role admin
    coupon-ledger people add li --role marketing --campaign spring-sale --campaign summer-sale
    coupon-ledger people add wang --role finance --generate-password
    """
    _check_name(name)
    with _store(settings) as store:
        if any(person.name.casefold() == name.casefold() for person in store.people()):
            raise SettingsStoreError(f"person {name}: exists already; `coupon-ledger people change` changes one")
        password = None if no_password else _password(name, stdin=password_stdin, generate=generate_password)
        scope = _scope(campaigns, channels, stores)
        store.add_person(name, role=role, display_name=display_name, scope=scope, password=password)
    click.echo(say("added {name}, with the role {role}", name=name, role=role))
    if generate_password:
        click.echo(say("password (shown only now): {password}", password=password))


@people.command("change")
@click.argument("name")
@click.option("--role", type=click.Choice(_OF_PEOPLE), help="Give the person this role.")
@_scope_options
@click.option("--all-rows", is_flag=True, help="Remove the person's scope: show all campaigns, channels and stores.")
@click.option("--password", "new_password", is_flag=True, help="Ask for a new password.")
@click.option("--password-stdin", is_flag=True, help="Read a new password from standard input.")
@click.option(
    "--disable/--enable", "disabled", default=None, help="Keep the person from signing in, or allow it again."
)
@settings_options("database")
def change_person(
    name: str,
    role: str | None,
    campaigns: Sequence[str],
    channels: Sequence[str],
    stores: Sequence[str],
    all_rows: bool,
    new_password: bool,
    password_stdin: bool,
    disabled: bool | None,
    settings: Settings,
) -> None:
    """Change a person's role, scope or password, or keep the person from signing in. Ends all sessions of the person.

    \b
    coupon-ledger people change li --role risk
    coupon-ledger people change li --all-rows
    coupon-ledger people change li --password
    coupon-ledger people change li --disable
    """
    scope = _scope(campaigns, channels, stores)
    if scope and all_rows:
        raise click.UsageError("--all-rows contradicts --campaign, --channel and --store; leave one out")
    changes: dict[str, Any] = {} if role is None else {"role": role}
    if scope or all_rows:
        changes["scope"] = scope
    if disabled is not None:
        changes["disabled"] = disabled
    with _store(settings) as store:
        person = store.person(name)
        if new_password or password_stdin:
            changes["password"] = _password(person.name, stdin=password_stdin, generate=False)
        if not changes:
            raise click.UsageError("nothing to change is named; see --help")
        _keep_an_admin(store, person, changes)
        store.change_person(name, **changes)
    click.echo(say("changed {name}; all sessions of this person have ended", name=name))


@people.command("remove")
@click.argument("name")
@settings_options("database")
def remove_person(name: str, settings: Settings) -> None:
    """Remove a person, with the saved views. What the person did stays in `coupon.operations`.

    \b
    coupon-ledger people remove li
    """
    with _store(settings) as store:
        _keep_an_admin(store, store.person(name), {"disabled": True})
        store.remove_person(name)
    click.echo(say("removed {name}", name=name))


def _keep_an_admin(store: SettingsStore, person: Person, changes: dict[str, Any]) -> None:
    """Raises `SettingsStoreError` if nobody could administer the service afterwards."""
    loses = changes.get("disabled") or changes.get("role", person.role) != "admin"
    others = [one for one in store.people() if one.role == "admin" and one.disabled_at is None and one != person]
    if person.role == "admin" and person.disabled_at is None and loses and not others:
        raise SettingsStoreError(f"person {person.name}: is the only admin; add another one first")


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= 100 or name != name.strip() or any(ord(c) < 32 or c in ':/"' for c in name):
        raise click.UsageError('a name has 1 to 100 characters, without : / " and control characters')


def _password(name: str, *, stdin: bool, generate: bool) -> str:
    from coupon_ledger.api.service.credentials import password_problem

    if generate:
        return secrets.token_urlsafe(15)
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt(say("password"), hide_input=True, confirmation_prompt=True)
    if why := password_problem(password, name):
        raise SettingsStoreError(f"password of {name}: {why}")
    return password


def _person_row(person: Person) -> dict[str, Any]:
    return {
        "name": person.name,
        "display_name": person.display_name,
        "role": person.role,
        "scope": _scope_text(person.scope),
        "state": "disabled" if person.disabled_at is not None else "active",
        "signs_in_with": "password" if person.has_password else "openid",
        "created_at": _instant(person.created_at),
    }


@click.group()
def tokens() -> None:
    """Show and change which systems may use the HTTP API.

    A token is shown once, when it is made; only a hash of it is kept.

    \b
    coupon-ledger tokens add shop --role publisher --source shop
    coupon-ledger tokens list
    """


@tokens.command("list")
@settings_options("database")
@output_option
def list_tokens(settings: Settings, output: str) -> None:
    """List the tokens: role, sources, when they expire, when they were last used.

    \b
    coupon-ledger tokens list
    """
    with _store(settings) as store:
        print_rows([_token_row(token) for token in store.tokens()], output)


@tokens.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the system may see and do.")
@click.option("--source", "sources", multiple=True, help="Value of `source` that it may publish. Repeat for several.")
@_scope_options
@duration_option("--valid", "How long the token is valid. [default: 90d]")
@settings_options("database")
def add_token(
    name: str,
    role: str,
    sources: Sequence[str],
    campaigns: Sequence[str],
    channels: Sequence[str],
    stores: Sequence[str],
    valid: timedelta | None,
    settings: Settings,
) -> None:
    """Make a token for a system, and print it. A publisher may publish only events whose `source` is one of --source.

    \b
    coupon-ledger tokens add shop --role publisher --source shop
    coupon-ledger tokens add warehouse --role finance --valid 365d
    """
    _check_name(name)
    if role == "publisher" and not sources:
        raise click.UsageError("a publisher needs --source: the value of `source` in its events")
    with _store(settings) as store:
        text = store.add_token(
            name,
            role=role,
            valid_s=(valid or _VALID).total_seconds(),
            scope=_scope(campaigns, channels, stores),
            sources=sources,
        )
        expires_at = store.token(name).expires_at
    _say_token(text, expires_at)


@tokens.command("rotate")
@click.argument("name")
@duration_option("--valid", "How long the new token is valid. [default: 90d]")
@duration_option("--overlap", "How long the former one still works. [default: 24h]")
@settings_options("database")
def rotate_token(name: str, valid: timedelta | None, overlap: timedelta | None, settings: Settings) -> None:
    """Replace a token by a new one with the same rights. The former one works a while longer, so that the system can
    be changed without a gap.

    \b
    coupon-ledger tokens rotate shop
    coupon-ledger tokens rotate shop --overlap 5m
    """
    with _store(settings) as store:
        overlap_s = (_OVERLAP if overlap is None else overlap).total_seconds()
        text = store.rotate_token(name, valid_s=(valid or _VALID).total_seconds(), overlap_s=overlap_s)
        expires_at = store.token(name).expires_at
    _say_token(text, expires_at)


@tokens.command("revoke")
@click.argument("name")
@settings_options("database")
def revoke_token(name: str, settings: Settings) -> None:
    """Make a token invalid at once, for good.

    \b
    coupon-ledger tokens revoke shop
    """
    with _store(settings) as store:
        store.revoke_token(name)
    click.echo(say("revoked the token {name}", name=name))


def _say_token(text: str, expires_at: float) -> None:
    click.echo(text)
    said = say("shown only now; valid until {until:instant}", until=datetime.fromtimestamp(expires_at, UTC))
    click.echo(said, err=True)


def _token_row(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "role": token.role,
        "scope": _scope_text(token.scope),
        "sources": list(token.sources),
        "state": token.state(datetime.now(UTC).timestamp()),
        "expires_at": _instant(token.expires_at),
        "last_used_at": _instant(token.used_at),
        "created_at": _instant(token.created_at),
    }


def _scope_text(scope: Scope) -> str | None:
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in scope.items()) or None


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC).replace(tzinfo=None)
