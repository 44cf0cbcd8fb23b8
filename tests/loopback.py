"""Servers on loopback to deliver to: HTTP, HTTPS in the name of any service, and SMTP. Each does as it is told: accept,
refuse, hang, answer late, ask to wait."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Answer:
    """What an HTTP server does with a request: wait, then answer; with status 0, close the connection. `drip`: answer
    a byte at a time, and never finish."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    drip: bool = False


@dataclass(frozen=True)
class Request:
    host: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


class Http:
    """An HTTP server. `answers`: the next ones; afterwards, `then`. `proxied`: with TLS inside of CONNECT."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: deque[Answer] = deque()
        self.then = Answer()
        self.requests: list[Request] = []
        self.ending = threading.Event()
        self._tls = tls

    def serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            host = ""
            if self._tls is not None:
                file = connection.makefile("rb")
                line = _head(file)[0]
                if not line:
                    return
                host = line.split()[1].rpartition(":")[0]
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self._answer(host, connection)

    def _answer(self, host: str, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            line, headers = _head(file)
            if not line:
                return
            body = file.read(int(headers.get("content-length", 0)))
        self.requests.append(Request(host or headers["host"], line.split()[1], headers, body, time.monotonic()))
        answer = self.answers.popleft() if self.answers else self.then
        if answer.wait_s:
            self.ending.wait(answer.wait_s)
        if not answer.status or self.ending.is_set():
            return
        head = {"Content-Length": str(len(answer.body)), "Connection": "close", **answer.headers}
        text = f"HTTP/1.1 {answer.status} X\r\n" + "".join(f"{n}: {v}\r\n" for n, v in head.items()) + "\r\n"
        whole = text.encode() + answer.body
        if not answer.drip:
            connection.sendall(whole)
            return
        for byte in whole[:-1] + b" " * 10_000:
            connection.sendall(bytes([byte]))
            if self.ending.wait(0.05):
                return


def _head(file: IO[bytes]) -> tuple[str, dict[str, str]]:
    line = file.readline().decode()
    headers = {}
    while header := file.readline().decode().strip():
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return line, headers


@dataclass
class Smtp:
    """An SMTP server. `replies`: for a command (`RCPT a@b`, or `DATA`, `AUTH`, `connect`), the reply in place of the
    usual one; `hang`: a command after which nothing more is answered."""

    replies: dict[str, str] = field(default_factory=dict)
    hang: str | None = None
    mails: list[tuple[list[str], bytes]] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as file:
            recipients: list[str] = []

            def reply(text: str, *commands: str) -> None:
                if self.hang in commands:
                    self.ending.wait(60)
                    raise OSError("ending")
                for command in commands:
                    text = self.replies.get(command, text)
                connection.sendall(text.encode() + b"\r\n")

            reply("220 here", "connect")
            while line := file.readline().decode().strip():
                command, _, rest = line.partition(" ")
                match command.upper():
                    case "EHLO" | "HELO":
                        reply("250 here", "EHLO")
                    case "RCPT":
                        address = rest.partition("<")[2].partition(">")[0]
                        if not self.replies.get(f"RCPT {address}", "").startswith(("4", "5")):
                            recipients.append(address)
                        reply("250 ok", f"RCPT {address}")
                    case "DATA":
                        reply("354 go on", "DATA")
                        body = b""
                        while (part := file.readline()) != b".\r\n":
                            body += part
                        reply_to_body = self.replies.get("body", "250 ok")
                        if reply_to_body.startswith("2"):
                            self.mails.append((recipients, body))
                        recipients = []
                        reply("250 ok", "body")
                    case "QUIT":
                        reply("221 bye")
                        return
                    case _:
                        reply("250 ok", command.upper())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def handle_error(self, *_: Any) -> None:
        """A client that was ended is no error of the test."""


@contextmanager
def serving(serve: Callable[[socket.socket], None], ending: threading.Event, port: int = 0) -> Iterator[int]:
    """Serve connections to loopback; yields the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            serve(self.request)

    with _Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            ending.set()
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def certificate(folder: Path, names: list[str]) -> tuple[Path, ssl.SSLContext]:
    """A certificate that vouches for itself, for these names: its file, and the context of a server that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait until the condition holds; fail if it does not within the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
