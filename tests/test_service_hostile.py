"""Clients that are slow, broken or hostile: refused or let go, never an error of the program, and the others still get
their answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.command_line import PATIENCE_S, wait_until
from tests.services import Service, received

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def still_answers(service: Service) -> Iterator[None]:
    """After each attack, the same process must answer, and must have met no error of its own."""
    pid = service.part("service")
    yield
    assert service.get("/v1/questions/totals").status == 200
    assert service.part("service") == pid
    assert not [line for line in service.said if "Traceback" in line or "error of the program" in line]


def head(service: Service, line: str, *headers: str) -> bytes:
    host = f"Host: 127.0.0.1:{service.port}"
    token = f"Authorization: Bearer {service.tokens['admin']}"
    return "\r\n".join([line, host, token, *headers, "", ""]).encode("latin-1")


CLOSE = "Connection: close"
RAW: dict[str, tuple[str, tuple[str, ...], bytes]] = {
    "HTTP/0.9": ("GET /health", (), b""),
    "HTTP/3.7": ("GET /health HTTP/3.7", (CLOSE,), b""),
    "no method": (" /health HTTP/1.1", (CLOSE,), b""),
    "own method": ("BREW /health HTTP/1.1", (CLOSE,), b""),
    "CONNECT": ("CONNECT evil.example:443 HTTP/1.1", (CLOSE,), b""),
    "TRACE": ("TRACE /health HTTP/1.1", (CLOSE,), b""),
    "OPTIONS": ("OPTIONS /v1/events HTTP/1.1", (CLOSE,), b""),
    "OPTIONS *": ("OPTIONS * HTTP/1.1", (CLOSE,), b""),
    "other address": ("GET http://evil.example/secret HTTP/1.1", (CLOSE,), b""),
    "zero byte": ("GET /v1/coupons/%00/usable HTTP/1.1", (CLOSE,), b""),
    "dots": ("GET /v1/../../../etc/passwd HTTP/1.1", (CLOSE,), b""),
    "packed dots": ("GET /v1/%2e%2e/%2e%2e/etc/passwd HTTP/1.1", (CLOSE,), b""),
    "no ASCII": ("GET /\xff\xfe HTTP/1.1", (CLOSE,), b""),
    "no UTF-8": ("GET /v1/questions/state?coupon=%ff%fe&at=%ff HTTP/1.1", (CLOSE,), b""),
    "surrogate": ("GET /v1/questions/coupons?state=%ed%a0%80 HTTP/1.1", (CLOSE,), b""),
    "line in a header": ("GET /v1/nothing HTTP/1.1", (CLOSE, "X-A: b\rSet-Cookie: c"), b""),
    "header without a name": ("GET /v1/nothing HTTP/1.1", (CLOSE, ": b"), b""),
    "folded header": ("GET /v1/nothing HTTP/1.1", (CLOSE, "X-A: b", " c"), b""),
    "large header": ("GET /v1/nothing HTTP/1.1", (CLOSE, "X-A: " + "b" * 1_000_000), b""),
    "many headers": ("GET /v1/nothing HTTP/1.1", (CLOSE, *["X-A: b"] * 100_000), b""),
    "long address": ("GET /" + "a" * 1_000_000 + " HTTP/1.1", (CLOSE,), b""),
    "negative length": ("POST /v1/events HTTP/1.1", (CLOSE, "Content-Length: -1"), b"{}"),
    "two lengths": ("POST /v1/events HTTP/1.1", (CLOSE, "Content-Length: 2", "Content-Length: 3"), b"{}"),
    "length and chunks": ("POST /v1/events HTTP/1.1", (CLOSE, "Content-Length: 2", "Transfer-Encoding: chunked"), b"0"),
    "broken chunks": ("POST /v1/events HTTP/1.1", (CLOSE, "Transfer-Encoding: chunked"), b"zz\r\nxx\r\n"),
    "unknown encoding": ("POST /v1/events HTTP/1.1", (CLOSE, "Transfer-Encoding: own"), b"{}"),
    "upgrade": (
        "POST /v1/events HTTP/1.1",
        ("Connection: Upgrade, close", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Content-Length: 2"),
        b"{}",
    ),
    "websocket": (
        "GET /v1/live/none HTTP/1.1",
        ("Connection: Upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Key: YQ==", "Sec-WebSocket-Version: 13"),
        b"",
    ),
    "HTTP/2": ("PRI * HTTP/2.0", ("", "SM", ""), b""),
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_request_is_refused(service: Service, name: str) -> None:
    line, headers, body = RAW[name]
    answer = service.send(head(service, line, *headers) + body, timeout_s=PATIENCE_S)
    # The oldest HTTP has no version, and half a surrogate pair is read as a character that nothing is named with.
    harmless = b"HTTP/1.1 200" if name in ("HTTP/0.9", "surrogate") else b"HTTP/1.1 4"
    assert not answer or answer.startswith((harmless, b"HTTP/1.1 4")), answer[:200]
    assert b"Set-Cookie" not in answer


@pytest.mark.parametrize("value", ["'; DROP TABLE coupons; --", '{"a": []}', "\ud800\0", "é\U0001f525" * 500])
def test_no_parameter_is_run(service: Service, value: str) -> None:
    """Else whoever may ask could read or break what is not theirs."""
    described = service.get("/v1/openapi.json").json
    asked = [
        (path, parameter["name"])
        for path, methods in described["paths"].items()
        if "get" in methods and path.startswith(("/v1/questions/coupons", "/v1/questions/state", "/v1/questions/order"))
        for parameter in methods["get"].get("parameters", ())
        if parameter["in"] == "query"
    ]
    assert len(asked) > 20
    for path, name in asked:
        reply = service.get(path, **{name: value.encode("utf-8", "surrogatepass")})
        assert reply.status < 500, (path, name, reply.body)


@pytest.mark.slow
def test_slow_headers_are_not_waited_for(service: Service) -> None:
    """Else a few hundred idle connections would keep everybody out."""
    opened = [socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) for _ in range(50)]
    for n, connection in enumerate(opened):
        connection.sendall(b"" if n % 2 else b"GET /health HTTP/1.1\r\nX-A: ")
    for connection in opened:
        assert received(connection) in (b"",)
        connection.close()


def test_the_rest_of_an_answered_body_is_not_waited_for(service: Service) -> None:
    """Else a client could hold a connection for ever by sending a body that nobody reads."""
    raw = f"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nContent-Length: 10000000\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) as connection:
        connection.sendall(raw)
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 401 ")

        def closed() -> bool:
            try:
                connection.sendall(b"x")
            except ConnectionError:
                return True
            return False

        connection.settimeout(0.2)
        wait_until(closed, "the end of the connection")


def test_trailers_are_bounded(service: Service) -> None:
    """Else they could fill the memory, since no limit of a body counts them."""
    start = f"POST /none HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".encode()
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) as connection:
        connection.sendall(start)
        sent = 0
        with pytest.raises(ConnectionError):
            while sent < 200_000_000:
                connection.sendall(b"X-A: " + b"b" * 60_000 + b"\r\n")
                sent += 60_000


def test_many_small_chunks_are_a_body(service: Service) -> None:
    """Else a client that streams its events line by line would be cut off."""
    line = b'{"topic": "coupon.events"}\n'
    body = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for _ in range(5_000)) + b"0\r\n\r\n"
    headers = ("Content-Type: application/x-ndjson", "Transfer-Encoding: chunked", CLOSE)
    answer = service.send(head(service, "POST /v1/events HTTP/1.1", *headers) + body, PATIENCE_S)
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
    assert b'"refused": 5000' in answer


def test_requests_in_a_row_are_answered_in_that_row(service: Service) -> None:
    """Else an answer would go to the wrong request."""
    paths = ["/health", "/none", "/ready", "/v1/questions/totals", "/health"]
    requests = [head(service, f"GET {path} HTTP/1.1", *([CLOSE] * (n == 4))) for n, path in enumerate(paths)]
    answer = service.send(b"".join(requests), PATIENCE_S)
    statuses = [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 404, 200, 200, 200]


@pytest.mark.slow
def test_two_thousand_connections(service: Service) -> None:
    """Those beyond the limit are closed; when they are gone, everybody is answered again."""
    opened = []
    for _ in range(2_000):
        try:
            opened.append(socket.create_connection(("127.0.0.1", service.port), PATIENCE_S))
        except OSError:
            break
    for connection in opened:
        connection.close()
    wait_until(service.ready, "an answer")
