"""The service as clients meet it: in a thread, publishing alone, or all of `coupon-ledger run` as real processes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uvicorn import Config, Server

from coupon_ledger.api.service.alerting import Alerting
from coupon_ledger.api.service.appending import Appender
from coupon_ledger.api.service.application import Parts, application
from coupon_ledger.api.service.auditing import Audit
from coupon_ledger.api.service.connections import Patient
from coupon_ledger.api.service.jobs import Jobs
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.serving import Address, listening, url_of
from coupon_ledger.api.service.settings_store import SettingsStore, settings_file
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from tests.command_line import DATABASE, PATIENCE_S, finish, start, wait_until

DAY_S = 86_400.0


@dataclass(frozen=True)
class Running:
    """`token`: a publisher's, for the source `shop`. `admin`: one for everything."""

    url: str
    token: str
    admin: str
    store: SettingsStore


@contextmanager
def publishing(log: LogSettings, folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[Running]:
    """A service that publishes to the log, in a thread; nobody answers questions behind it. `certificate`: its chain
    and key."""
    address = Address(port=0, certificate=certificate and certificate[0], key=certificate and certificate[1])
    listener = listening(address)
    port = listener.getsockname()[1]
    with SettingsStore(settings_file(folder / DATABASE)) as store, listener:
        link = OwnerLink(folder / DATABASE)
        appender = Appender(open_log(log))
        parts = Parts(
            link,
            store,
            appender,
            True,
            log,
            Alerting(link, log, None),
            Audit(appender.append),
            Jobs({}),
            address.hosts(port),
            address.origins(port),
            address.tls,
        )
        app, _ = application(parts)
        chain, key = certificate or (None, None)
        config = Config(app, http=Patient, ws="none", log_config=None, ssl_certfile=chain, ssl_keyfile=key)
        server = Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), "the service")
            yield Running(url_of(address, port), *_tokens(store), store)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def _tokens(store: SettingsStore, sources: Sequence[str] = ("shop",)) -> tuple[str, str]:
    return (
        store.add_token("shop", role="publisher", valid_s=DAY_S, sources=sources),
        store.add_token("admin", role="admin", valid_s=DAY_S),
    )


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Running]:
    """`coupon-ledger run` over a log and a database in the folder."""
    error = folder / "run.err"
    with error.open("wb") as stderr:
        process = start(
            "run",
            *("--port", "0", "--log", f"sqlite:///{folder / 'log.db'}", "--database", folder / DATABASE),
            *options,
            stderr=stderr,
            cwd=folder,
        )
    try:
        wait_until(lambda: _url(error) is not None or process.poll() is not None, "the service")
        url = _url(error)
        assert url, error.read_text()
        with SettingsStore(settings_file(folder / DATABASE)) as store:
            yield Running(url, *_tokens(store), store)
    finally:
        process.terminate()
        finish(process)


def _url(error: Path) -> str | None:
    found = re.search(r"pages and API: (\S+)", error.read_text())
    return found[1] if found else None
