"""A connection to the service (`coupon-ledger run`) from another machine, for programs that publish and ask over HTTP.

Uses only the standard library. One connection is kept open. A request that the service cannot take at the moment
(status 429, 502, 503, 504, or no answer) is sent again, with growing pauses, and never before the time that the
service names in `Retry-After`. Requests of this API may be repeated without harm.

Always true: the token is sent only over TLS with a verified certificate, or over loopback. Redirects are not followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import random
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from coupon_ledger.ledger.errors import Problem, ServiceRefused, ServiceUnavailable, SettingsError

SCHEMES: Final = ("http", "https")
TIMEOUT_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_BUSY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
_MISADDRESSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.MISDIRECTED_REQUEST)


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is not JSON."""
        with suppress(ValueError, RecursionError):
            return json.loads(self.body)
        return None

    @property
    def detail(self) -> str:
        """What is wrong, in the words of the service, or else the status."""
        data = self.json
        detail = data.get("detail") if isinstance(data, dict) else None
        return detail if isinstance(detail, str) else f"status {self.status} {self.headers.get('content-type', '')}"

    @property
    def retry_after_s(self) -> float:
        text = self.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdigit() else 0.0

    @property
    def busy(self) -> bool:
        """Whether the same request may succeed a little later. A question that took too long (504 without Retry-After)
        would do so again."""
        return self.status in _BUSY or (self.status == HTTPStatus.GATEWAY_TIMEOUT and "retry-after" in self.headers)


class Service:
    """The service at an address. For one thread at a time."""

    def __init__(self, url: str, token: str, ca_file: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """`url`: `https://host[:port][/path]`, or `http://` on loopback. `ca_file`: a PEM file with the certificate
        authority of the service, if the system does not know it. `timeout_s`: how long the service may take to answer,
        and how long a request is repeated. Connects with the first request. Raises `SettingsError`."""
        self.url = url.rstrip("/")
        self._address = _address(self.url)
        self._headers = {"Authorization": f"Bearer {_token(self.url, token)}", "User-Agent": "coupon-ledger"}
        self._timeout_s = timeout_s
        self._tls = _tls(ca_file) if self._address.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None
        self._not_before = 0.0

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """The answer to a request, with a status below 400. Raises `ServiceUnavailable` if the service does not answer
        or cannot take the request for `timeout_s`, `ServiceRefused`, and `SettingsError` if address, token or
        certificate are wrong."""
        deadline, pause_s = time.monotonic() + self._timeout_s, _FIRST_PAUSE_S
        while True:
            self._await_turn(deadline)
            why, after_s = self._why_not(reply := self._tried(method, path, body, headers))
            if not why:
                assert isinstance(reply, Reply)
                return self._checked(reply)
            self._not_before = time.monotonic() + after_s
            wait_s = max(pause_s * random.uniform(0.5, 1.0), after_s)
            if time.monotonic() + wait_s >= deadline:
                raise ServiceUnavailable(f"service {self.url}: {why}; send it again later")
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @contextmanager
    def opened(self, path: str, headers: Mapping[str, str], silence_s: float) -> Iterator[http.client.HTTPResponse]:
        """Within the block, a response without end, on a connection of its own. `silence_s`: how long nothing may come.
        Raises `OSError` or `HTTPException` if the connection fails, and the errors of `request`."""
        with closing(self._connect(silence_s)) as connection:
            try:
                connection.request("GET", self._address.path + path, headers={**self._headers, **headers})
            except ssl.SSLCertVerificationError as error:
                raise self._untrusted(error) from None
            with connection.getresponse() as response:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    self._raise(Reply(response.status, response.headers, response.read()))
                yield response

    def close(self) -> None:
        """Close the connection. The next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _await_turn(self, deadline: float) -> None:
        """Wait until the service may be asked again, if it said so to an earlier request."""
        wait_s = self._not_before - time.monotonic()
        if wait_s > 0:
            if self._not_before >= deadline:
                raise ServiceUnavailable(f"service {self.url}: may be asked again in {wait_s:.0f} s; wait so long")
            time.sleep(wait_s)

    def _tried(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Reply | OSError | http.client.HTTPException:
        try:
            try:
                return self._exchanged(method, path, body, headers)
            except ConnectionError:
                if self._connection is None:
                    raise
            # The service may have closed the connection because it was idle for long.
            self.close()
            return self._exchanged(method, path, body, headers)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise self._untrusted(error) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return error

    def _exchanged(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> Reply:
        """Send the request and read its answer. After an error on a connection that was open before,
        `self._connection` is not None."""
        connection = self._connection or self._connect(self._timeout_s)
        try:
            response = self._response(connection, method, path, body, {**self._headers, **(headers or {})})
            reply = Reply(response.status, response.headers, response.read())
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return reply

    def _response(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        try:
            connection.request(method, self._address.path + path, body, headers)
        except (BrokenPipeError, ConnectionResetError) as broken:
            # A body that is too large is answered before it was read.
            try:
                return connection.getresponse()
            except (OSError, http.client.HTTPException):
                raise broken from None
        return connection.getresponse()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._address.hostname, self._address.port
        assert host is not None
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)

    def _why_not(self, reply: Reply | Exception) -> tuple[str, float]:
        """Why the request must be repeated, and how long the service wants it to wait; empty if it is answered."""
        if isinstance(reply, Exception):
            reason = getattr(reply, "strerror", None) or str(reply) or type(reply).__name__
            return f"does not answer ({reason})", 0.0
        return (reply.detail, reply.retry_after_s) if reply.busy else ("", 0.0)

    def _checked(self, reply: Reply) -> Reply:
        if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
            self._raise(reply)
        return reply

    def _raise(self, reply: Reply) -> None:
        if reply.busy:
            raise ServiceUnavailable(f"service {self.url}: {reply.detail}")
        if reply.status in _MISADDRESSED:
            raise SettingsError(f"service {self.url}: {reply.detail}")
        if reply.status < HTTPStatus.BAD_REQUEST:
            place = reply.headers.get("location", "another address")
            raise SettingsError(f"service {self.url}: redirects to {place}; name that address if you trust it")
        data = reply.json
        problems = data.get("problems") if isinstance(data, dict) else None
        raise ServiceRefused(f"service {self.url}: {reply.detail}", reply.status, problems_of(problems))

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> SettingsError:
        return SettingsError(
            f"service {self.url}: the certificate is not trusted ({error.verify_message}); if its authority is your"
            " own, name the authority's PEM file in the setting ca-file"
        )


def problems_of(data: object) -> tuple[Problem, ...]:
    """Problems of an event, as the service names them."""
    found = data if isinstance(data, list) else []
    return tuple(Problem(str(p.get("field", "")), str(p.get("rule", ""))) for p in found if isinstance(p, dict))


def _address(url: str) -> SplitResult:
    wrong = SettingsError(f"service address {url!r}: cannot be used; write it as https://host or https://host:port")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        raise wrong from None
    if not usable or parts.query or parts.fragment or parts.username is not None or not url.isprintable() or " " in url:
        raise wrong
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise SettingsError(f"service address {url!r}: would send the token unencrypted; use https://")
    return parts


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _token(url: str, token: str) -> str:
    if not token:
        raise SettingsError(
            f"service {url}: needs a token; set COUPON_LEDGER_TOKEN, or pass token=… (`coupon-ledger tokens add` makes"
            " one)"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SettingsError("setting token: holds characters that no token has; copy it again")
    return token


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"setting ca-file: {ca_file} cannot be used ({error.strerror or error}); name a PEM file of certificates"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
