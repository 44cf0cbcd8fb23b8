"""`run`: consumer and service as processes under one supervisor. `serve`: the service alone."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from coupon_ledger.cli.consume import on_signal
from coupon_ledger.cli.logs import log_format_option, logging_as
from coupon_ledger.cli.options import LOG, duration_option, settings_options
from coupon_ledger.ledger.extras import absent, missing
from coupon_ledger.ledger.settings import ENVIRONMENT_PREFIX, Settings
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.view import View, view

if TYPE_CHECKING:
    from datetime import timedelta

    from coupon_ledger.api.service.openid import Provider
    from coupon_ledger.api.service.serving import Address
    from coupon_ledger.api.supervisor import Part

Command = TypeVar("Command", bound=Callable[..., Any])
_CONSUMING: Final = ("batch-size", "grace-minutes", "instant-skew-days", "skewed-events", "alert-rules")
_SERVING: Final = (*LOG, "database", "alert-rules")
_SWEEP_S: Final = 60


def _address_options(command: Command) -> Command:
    """Add the options that say where the service listens; the command gets `address`."""
    options = (
        click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
        click.option(
            "--port", type=click.IntRange(0, 65535), default=8642, show_default=True, help="Port of the service."
        ),
        click.option(
            "--tls-certificate", type=click.Path(path_type=Path), help="File with the TLS certificate chain (PEM)."
        ),
        click.option(
            "--tls-key", type=click.Path(path_type=Path), help="File with the certificate's private key (PEM)."
        ),
        click.option(
            "--name",
            "names",
            multiple=True,
            help="Host name by which clients address it, with a port if a proxy has one.",
        ),
        click.option(
            "--insecure", is_flag=True, help="Allow a public address without TLS, as behind a proxy that has TLS."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _openid_options(command: Command) -> Command:
    """Add the options of OpenID Connect; the command gets them by their names."""
    options = (
        click.option("--openid-issuer", help="Let people sign in with OpenID Connect at this provider."),
        click.option("--openid-client", help="Id under which the provider knows this service."),
        click.option(
            "--openid-secret-file", type=click.Path(path_type=Path), help="File with the secret that goes with it."
        ),
        click.option(
            "--openid-claim",
            default="preferred_username",
            show_default=True,
            help="Claim that has a person's name here.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _provider(
    openid_issuer: str | None, openid_client: str | None, openid_secret_file: Path | None, openid_claim: str
) -> Provider | None:
    from coupon_ledger.api.service.openid import Provider

    if openid_issuer is None:
        return None
    return Provider.of_settings(openid_issuer, openid_client, openid_secret_file, openid_claim)


def _address(
    host: str, port: int, tls_certificate: Path | None, tls_key: Path | None, names: Sequence[str], insecure: bool
) -> Address:
    if lacking := absent("service"):
        raise missing(lacking[0])
    from coupon_ledger.api.service.serving import Address, names_of

    address = Address(host, port, tls_certificate, tls_key, names_of(names), insecure)
    address.check()
    return address


@click.command()
@_address_options
@_openid_options
@click.option("--consume/--no-consume", default=True, show_default=True, help="Run the consumer, sweeps and alerts.")
@click.option("--serve/--no-serve", default=True, show_default=True, help="Run the API and the pages.")
@click.option("--publish/--no-publish", default=True, show_default=True, help="Let events be published over HTTP.")
@duration_option("--sweep-every", "How often to expire coupons and release holds that are due. [default: 60s]")
@log_format_option
@settings_options(*LOG, "database", *_CONSUMING)
def run(
    host: str,
    port: int,
    tls_certificate: Path | None,
    tls_key: Path | None,
    names: Sequence[str],
    insecure: bool,
    consume: bool,
    serve: bool,
    publish: bool,
    sweep_every: timedelta | None,
    log_format: str,
    settings: Settings,
    **openid: Any,
) -> None:
    """Run everything over one database: the consumer with sweeps and alerts, and the service with API and pages.

    Each is a process of its own. One that ends is started again, after a pause that grows. On SIGTERM or Ctrl-C, both
    finish what they have begun. The consumer creates log and database if they are missing and the log is embedded.

    The service listens on 127.0.0.1 only, unless --host says otherwise. A public address needs TLS, or --insecure if a
    proxy in front of it has TLS (docs/deploy/). People sign in: `coupon-ledger people add NAME --role admin` adds the
    first one. Systems send tokens: `coupon-ledger tokens add NAME --role publisher --source NAME`.

    \b
    coupon-ledger run
    coupon-ledger run --log kafka://localhost:9092 --port 8000
    coupon-ledger run --host 0.0.0.0 --tls-certificate chain.pem --tls-key key.pem --name coupons.example.com
    coupon-ledger run --no-serve
    """
    if not consume and not serve:
        raise click.UsageError("--no-consume and --no-serve leave nothing to run; leave one of them out")
    from coupon_ledger.api.supervisor import Supervisor

    address = _address(host, port, tls_certificate, tls_key, names, insecure)
    _provider(**openid)  # so that wrong options are refused before anything starts
    with logging_as(log_format):
        if consume:
            _create(settings)
        listener = _listen(address) if serve else None
        try:
            parts = []
            if consume:
                parts.append(_consumer(settings, sweep_every, log_format))
            if listener is not None:
                parts.append(_service(settings, address, listener, publish, log_format, openid))
                _say_where(settings, address, listener.getsockname()[1])
            supervisor = Supervisor(parts)
            with on_signal(supervisor.stop):
                code = supervisor.run()
        finally:
            if listener is not None:
                listener.close()
    if code:
        sys.exit(code)


@click.command()
@_address_options
@_openid_options
@click.option("--publish/--no-publish", default=True, show_default=True, help="Let events be published over HTTP.")
@click.option("--inherited", type=int, hidden=True, help="File descriptor of the listening socket, from `run`.")
@log_format_option
@settings_options(*_SERVING)
def serve(
    host: str,
    port: int,
    tls_certificate: Path | None,
    tls_key: Path | None,
    names: Sequence[str],
    insecure: bool,
    publish: bool,
    inherited: int | None,
    log_format: str,
    settings: Settings,
    **openid: Any,
) -> None:
    """Run the service alone: the HTTP API and the pages, beside a consumer that runs elsewhere on this machine.

    It asks the process that owns the database (`coupon-ledger consume --follow`, or `run --no-serve`), and waits for it
    where there is none yet.

    \b
    coupon-ledger serve
    coupon-ledger serve --port 8000 --no-publish
    """
    from coupon_ledger.api.service.serving import Work
    from coupon_ledger.api.service.serving import serve as serving

    address = _address(host, port, tls_certificate, tls_key, names, insecure)
    with logging_as(log_format):
        if inherited is None:
            listener = _listen(address)
            _say_where(settings, address, listener.getsockname()[1])
        else:
            listener = socket.socket(fileno=inherited)
        work = Work(
            settings.database,
            settings.log,
            publish,
            settings.alert_rules,
            _environment(settings),
            View(view().lang, view().zone),
            _provider(**openid),
        )
        serving(work, address, listener)


def _listen(address: Address) -> socket.socket:
    from coupon_ledger.api.service.serving import listening

    return listening(address)


def _create(settings: Settings) -> None:
    """Create the embedded log and the database where they are missing."""
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.projections.database import create_database

    if settings.log.url.startswith("sqlite:"):
        log = open_log(settings.log, create=True)
        try:
            log.create_topics()
        finally:
            log.close()
    if not settings.database.exists():
        create_database(settings.database)


def _consumer(settings: Settings, sweep_every: timedelta | None, log_format: str) -> Part:
    from coupon_ledger.api.supervisor import Part

    sweep_s = _SWEEP_S if sweep_every is None else int(sweep_every.total_seconds())
    options = ["--follow", "--sweep-every", f"{sweep_s}s", "--log-format", log_format]
    return Part("consumer", [*_command("consume"), *options, *_flags(settings, (*LOG, "database", *_CONSUMING))])


def _service(
    settings: Settings,
    address: Address,
    listener: socket.socket,
    publish: bool,
    log_format: str,
    openid: Mapping[str, Any],
) -> Part:
    from coupon_ledger.api.supervisor import Part

    options = ["--host", address.host, "--port", str(address.port), "--log-format", log_format]
    options += ["--inherited", str(listener.fileno()), "--publish" if publish else "--no-publish"]
    if address.tls:
        options += ["--tls-certificate", str(address.certificate), "--tls-key", str(address.key)]
    for name in address.names:
        options += ["--name", name]
    if address.insecure:
        options.append("--insecure")
    for name, value in openid.items():
        options += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    command = [*_command("serve"), *options, *_flags(settings, _SERVING)]
    return Part("service", command, pass_fds=(listener.fileno(),))


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "coupon_ledger.cli", "--lang", view().lang, "--zone", view().zone, name]


def _flags(settings: Settings, names: Sequence[str]) -> list[str]:
    """The command's flags for a part, so that it has the same settings. Variables reach it by themselves."""
    file = click.get_current_context().params.get("config_file")
    flags = ["--config", str(file)] if file is not None else []
    given = [settings.values[name] for name in names if settings.values[name].origin == "flag"]
    return flags + [part for one in given for part in (f"--{one.name}", str(one.value))]


def _environment(settings: Settings) -> dict[str, str]:
    """Variables that give a command which the service starts the same settings. What variables say reaches it by
    itself."""
    file = click.get_current_context().params.get("config_file")
    variables = {ENVIRONMENT_PREFIX + "CONFIG": str(Path(file).absolute())} if file is not None else {}
    given = [one for one in settings.values.values() if one.origin == "flag"]
    return variables | {ENVIRONMENT_PREFIX + one.name.replace("-", "_").upper(): str(one.value) for one in given}


def _say_where(settings: Settings, address: Address, port: int) -> None:
    from coupon_ledger.api.service.serving import url_of
    from coupon_ledger.api.service.settings_store import SettingsStore, settings_file

    click.echo(say("pages and API: {url}", url=url_of(address, port)), err=True)
    with SettingsStore(settings_file(settings.database)) as store:
        if not store.has_admin():
            click.echo(
                say("nobody can sign in yet; in another terminal: `coupon-ledger people add NAME --role admin`"),
                err=True,
            )
