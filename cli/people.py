"""`people`: who may sign in to the pages, with which role. `tokens`: which systems may use the HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from coupon_ledger.cli.options import duration_option, output_option, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.ledger.errors import StoreNotInitialised
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from coupon_ledger.api.service.settings_store import Scope, SettingsStore

Command = TypeVar("Command", bound=Callable[..., Any])
ROLES: Final = ("publisher", "marketing", "finance", "manager", "risk", "ops", "admin")
"""Those of `questions/access/roles.toml`; a test compares them."""
_OF_PEOPLE: Final = tuple(role for role in ROLES if role != "publisher")


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
    from coupon_ledger.api.service.accounts import person_row

    with _store(settings) as store:
        print_rows([person_row(person) for person in store.people()], output)


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
    from coupon_ledger.api.service import accounts

    with _store(settings) as store:
        accounts.check_new_person(store, name, role)
        password = None if no_password else _password(name, stdin=password_stdin, generate=generate_password)
        scope = _scope(campaigns, channels, stores)
        accounts.add_person(store, name, role=role, password=password, display_name=display_name, scope=scope)
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
    from coupon_ledger.api.service import accounts

    with _store(settings) as store:
        person = store.person(name)
        if new_password or password_stdin:
            changes["password"] = _password(person.name, stdin=password_stdin, generate=False)
        if not changes:
            raise click.UsageError("nothing to change is named; see --help")
        accounts.change_person(store, name, changes)
    click.echo(say("changed {name}; all sessions of this person have ended", name=name))


@people.command("remove")
@click.argument("name")
@settings_options("database")
def remove_person(name: str, settings: Settings) -> None:
    """Remove a person, with the saved views. What the person did stays in `coupon.operations`.

    \b
    coupon-ledger people remove li
    """
    from coupon_ledger.api.service import accounts

    with _store(settings) as store:
        accounts.remove_person(store, name)
    click.echo(say("removed {name}", name=name))


def _password(name: str, *, stdin: bool, generate: bool) -> str:
    from coupon_ledger.api.service.accounts import check_password, made_password

    if generate:
        return made_password()
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt(say("password"), hide_input=True, confirmation_prompt=True)
    check_password(password, name)
    return password


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
    from coupon_ledger.api.service.accounts import token_row

    with _store(settings) as store:
        print_rows([token_row(token) for token in store.tokens()], output)


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
    if role == "publisher" and not sources:
        raise click.UsageError("a publisher needs --source: the value of `source` in its events")
    from coupon_ledger.api.service import accounts

    with _store(settings) as store:
        scope = _scope(campaigns, channels, stores)
        text = accounts.add_token(store, name, role=role, sources=sources, valid=valid, scope=scope)
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
    from coupon_ledger.api.service import accounts

    with _store(settings) as store:
        text = accounts.rotate_token(store, name, valid, overlap)
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
