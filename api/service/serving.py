"""The process of the service: its sockets, TLS, and a graceful stop."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coupon_ledger.api.service.alerting import Alerting
from coupon_ledger.api.service.appending import Appender
from coupon_ledger.api.service.auditing import Audit
from coupon_ledger.api.service.jobs import Jobs
from coupon_ledger.api.service.openid import Provider
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.settings_store import SettingsStore, settings_file
from coupon_ledger.ledger.errors import PortTaken, SettingsError
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.reports.view import View

if TYPE_CHECKING:
    from types import FrameType

    from uvicorn import Server

    from coupon_ledger.api.service.live import Live

_LEAVE_S: Final = 10
"""Seconds in which requests may end when the service stops."""
_KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 1_024
_logger = logging.getLogger("coupon_ledger.service")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service listens. `certificate`, `key`: the files of its TLS certificate; None without TLS. `names`: the
    host names by which clients address it, besides those of loopback. `insecure`: whether it may listen on a public
    address without TLS, as behind a proxy that has it."""

    host: str = "127.0.0.1"
    port: int = 8642
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    insecure: bool = False

    @property
    def tls(self) -> bool:
        return self.certificate is not None

    @property
    def loopback(self) -> bool:
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def check(self) -> None:
        """Raises `SettingsError` if this would send passwords and tokens over a network in plain text, or if the
        certificate cannot be used."""
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("TLS: needs both --tls-certificate and --tls-key; name both files")
        if not self.loopback and not self.tls and not self.insecure:
            raise SettingsError(
                f"address {self.host}: others can reach it, and without TLS they could read passwords and tokens; give"
                " --tls-certificate and --tls-key, or --insecure if a proxy in front of it has TLS"
            )
        if self.tls:
            _tls(self)

    def hosts(self, port: int) -> frozenset[str]:
        """The values of the header `Host` that are answered."""
        names = {"127.0.0.1", "localhost", "[::1]", *(name.lower() for name in self.names)}
        if not self.loopback:
            names.add(socket.gethostname().lower())
            with suppress(ValueError):
                if not ipaddress.ip_address(self.host).is_unspecified:
                    names.add(f"[{self.host.lower()}]" if ":" in self.host else self.host.lower())
        usual = 443 if self.tls else 80
        with_port = {f"{name}:{port}" for name in names}
        # Behind a proxy, clients use the proxy's port.
        return frozenset(with_port | set(self.names) | (names if port == usual else set()))

    def origins(self, port: int) -> frozenset[str]:
        schemes = ("https",) if self.tls else ("http", "https") if self.insecure else ("http",)
        return frozenset(f"{scheme}://{host}" for scheme in schemes for host in self.hosts(port))


def listening(address: Address) -> socket.socket:
    """Raises `PortTaken`, `SettingsError`."""
    address.check()
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
        listener.set_inheritable(True)
    except (OSError, UnicodeError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise PortTaken(
            f"address {address.host}, port {address.port}: cannot be used ({why}); name another with --host or --port"
        ) from error
    return listener


@dataclass(frozen=True, slots=True)
class Work:
    """What the service does, and with what. `publish`: whether events are published. `rules`: the file with alert
    rules. `environment`: variables that give commands which the service starts the same settings. `default_view`:
    language and zone of pages, for whoever has chosen none. `openid`: another way to sign in."""

    database: Path
    log: LogSettings
    publish: bool
    rules: Path | None
    environment: Mapping[str, str]
    default_view: View
    openid: Provider | None = None


def serve(work: Work, address: Address, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT. `listener`: from `listening`; closed at the end. Raises `SettingsError` if a
    certificate cannot be used."""
    from uvicorn import Config, Server

    from coupon_ledger.api.service.application import Parts, application
    from coupon_ledger.api.service.connections import Patient

    port = listener.getsockname()[1]
    tls = _tls(address) if address.tls else None  # before anything is started that would have to be stopped again
    with ExitStack() as stack:
        stack.callback(listener.close)
        store = stack.enter_context(SettingsStore(settings_file(work.database)))
        link = OwnerLink(work.database)
        appender = Appender(open_log(work.log))
        parts = Parts(
            link,
            store,
            appender,
            work.publish,
            work.log,
            Alerting(link, work.log, work.rules),
            Audit(appender.append),
            Jobs(work.environment),
            address.hosts(port),
            address.origins(port),
            address.tls,
            work.default_view,
            work.openid,
        )
        app, live = application(parts)
        config = Config(
            app,
            loop=_loop(),
            http=Patient,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LEAVE_S,
        )
        config.load()
        config.ssl = tls
        _run(Server(config), live, listener)


def _run(server: Server, live: Live, listener: socket.socket) -> None:
    """Run the server. At the first signal, those who follow are let go, so that they do not hold up the end."""
    handle = server.handle_exit

    def leaving(number: int, frame: FrameType | None) -> None:
        live.leave()
        handle(number, frame)

    server.handle_exit = leaving  # type: ignore[method-assign, assignment]
    with _signals_kept():
        server.run(sockets=[listener])


class _signals_kept:
    """The server raises the signal that stopped it once more. It is ignored then: the process ends as after any other
    work."""

    def __enter__(self) -> None:
        self._before = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _loop() -> str:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return "asyncio"
    return "uvloop"


def _tls(address: Address) -> ssl.SSLContext:
    assert address.certificate is not None and address.key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(address.certificate, address.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"certificate {address.certificate}: cannot be used with the key {address.key}"
            f" ({error.strerror or error}); both must be PEM, and belong together"
        ) from error
    return context


def url_of(address: Address, port: int) -> str:
    host = "127.0.0.1" if address.host in ("0.0.0.0", "::") else address.host
    return f"{'https' if address.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def names_of(values: Iterable[str]) -> tuple[str, ...]:
    """Host names from `--name`. Raises `SettingsError`."""
    for value in values:
        if not value or any(c in value for c in "/@ ") or "://" in value:
            raise SettingsError(f"name {value}: is no host name; write it as coupons.example.com, or with a port")
    return tuple(value.lower() for value in values)
