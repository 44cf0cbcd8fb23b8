"""`coupon-ledger run` as a real process: consumer and service over an embedded log in their own folder, with a token
for each role; and asking it by hand, as another system would."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from coupon_ledger.api.service.callers import RIGHTS
from coupon_ledger.api.service.settings_store import SettingsStore, settings_file
from coupon_ledger.projections.ownership import owner
from tests.command_line import DATABASE, LOG, PATIENCE_S, finish, start, wait_until
from tests.owners import Reply

SOURCE: Final = "shop"
"""What the publisher's token may publish."""


@dataclass
class Service:
    """A running `coupon-ledger run`. `tokens`: by role. `said`: its lines on standard error so far."""

    folder: Path
    process: subprocess.Popen[bytes]
    port: int
    tokens: Mapping[str, str]
    said: list[str] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / DATABASE

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        role: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> Reply:
        """`role`: whose token is sent; None for no token."""
        token = {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}
        query = f"?{urlencode(parameters)}" if parameters else ""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path + query, body, {**token, **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Reply:
        return self.ask("GET", path, **options)

    def publish(
        self, events: Any, *, kind: str = "application/json", role: str | None = "publisher", **options: Any
    ) -> Reply:
        """`events`: a JSON value, or the bytes of a body."""
        body = events if isinstance(events, bytes) else json.dumps(events).encode()
        headers = {"Content-Type": kind, **options.pop("headers", {})}
        return self.ask("POST", "/v1/events", body, role=role, headers=headers, **options)

    def usable(self, coupon: str, **parameters: Any) -> Reply:
        return self.get(f"/v1/coupons/{quote(coupon, safe='')}/usable", role="publisher", **parameters)

    def send(self, raw: bytes, timeout_s: float = 20.0) -> bytes:
        """What the service answers to these bytes until it closes the connection, or says nothing more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as connection:
            connection.sendall(raw)
            return received(connection)

    def part(self, name: str) -> int:
        """The process id of `consumer` or `service`."""
        command = {"consumer": b"consume", "service": b"serve"}[name]
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            if command in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return int(pid)
        raise LookupError(name)

    def kill(self, name: str) -> int:
        pid = self.part(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def ready(self) -> bool:
        try:
            return self.get("/ready", role=None).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def answers(self) -> bool:
        """Whether both parts run."""
        announced = owner(self.database)
        return "url" in announced and self.ready()


def received(connection: socket.socket) -> bytes:
    found = bytearray()
    try:
        while piece := connection.recv(65_536):
            found += piece
    except (TimeoutError, ConnectionError):
        pass
    return bytes(found)


@contextmanager
def serving(folder: Path, *arguments: str, port: int = 0, wait: bool = True) -> Iterator[Service]:
    """`coupon-ledger run` in this folder until the end of the block. It must end well unless it was killed.

    A folder may be served again later: log, database and tokens stay.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COUPON_LEDGER_")}
    environment |= {"COUPON_LEDGER_LOG": f"sqlite:///{folder / LOG}", "COUPON_LEDGER_ALERT_RULES": "none"}
    environment |= {"COUPON_LEDGER_DATABASE": str(folder / DATABASE), "LC_ALL": "C.UTF-8"}
    process = start("run", "--port", str(port), *arguments, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    said: list[str] = []
    reader = threading.Thread(target=_collect, args=(process, said))
    reader.start()
    try:
        wait_until(lambda: process.poll() is not None or any("pages and API: " in line for line in said), "the address")
        assert process.poll() is None, said
        [line] = [line for line in said if "pages and API: " in line]
        found = urlsplit(line.partition("pages and API: ")[2].strip()).port
        assert found is not None
        service = Service(folder, process, found, _tokens(folder), said)
        if wait:
            wait_until(service.ready, "the service")
        yield service
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, said
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


def refused(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and message of a `run` that must not start."""
    ran = finish(start("run", "--port", "0", *arguments, cwd=folder))
    return ran.code, ran.err


def _collect(process: subprocess.Popen[bytes], said: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line.decode())


def _tokens(folder: Path) -> dict[str, str]:
    """A new token for each role."""
    with SettingsStore(settings_file(folder / DATABASE)) as store:
        for token in store.tokens():
            store.revoke_token(token.name)
        made = len(store.tokens())
        return {
            role: store.add_token(
                f"{role}-{made}", role=role, valid_s=3600, sources=[SOURCE] if role == "publisher" else []
            )
            for role in RIGHTS
        }
