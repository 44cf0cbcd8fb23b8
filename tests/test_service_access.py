"""Who may do what at the service: tokens, roles, sessions, the name by which it is addressed, TLS."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from coupon_ledger.api.service.callers import COOKIE, RIGHTS
from coupon_ledger.api.service.serving import Address, listening, names_of
from coupon_ledger.api.service.settings_store import SettingsStore, settings_file
from coupon_ledger.ledger.errors import PortTaken, SettingsError
from tests.command_line import coupon_event, done
from tests.services import Service, refused, serving

ASKED = "/v1/questions/totals"


@pytest.mark.long
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer cl_aaaaaaaa_" + "A" * 43,
        "Bearer cl_' OR 1=1 --",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer \xe9",
    ],
    ids=str,
)
def test_without_a_token_nothing_is_told(service: Service, authorization: str | None) -> None:
    """Else whoever reaches the port could read the ledger."""
    token = service.tokens["admin"]
    headers = {} if authorization is None else {"Authorization": authorization.format(token=token)}
    for method, path in (("GET", ASKED), ("POST", "/v1/events"), ("GET", "/v1/live"), ("GET", "/v1/coupons/c/usable")):
        reply = service.ask(method, path, role=None, headers=headers)
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer"), reply.body
        assert token not in reply.body.decode()


@pytest.mark.long
def test_each_role_may_do_what_it_is_for(service: Service) -> None:
    """Else a shop's token could read the finances, or a reader could publish."""
    event = coupon_event("created", "e-role", coupon_id="c-role")
    for role, rights in RIGHTS.items():
        asked = service.get(ASKED, role=role).status
        published = service.publish(event, role=role).status
        checked = service.get("/v1/coupons/c-role/usable", role=role).status
        assert (asked, published, checked) == (
            200 if "ask" in rights else 403,
            201 if "publish" in rights else 403,
            200 if "check" in rights else 403,
        ), role


@pytest.mark.long
def test_a_token_ends_when_it_should(service: Service) -> None:
    """Else a token that was lost would stay a key to the ledger; or a rotation would lock a shop out."""
    with SettingsStore(settings_file(service.database)) as store:

        def status(text: str) -> int:
            return service.get(ASKED, role=None, headers={"Authorization": f"Bearer {text}"}).status

        first = store.add_token("ending", role="manager", valid_s=3600)
        assert status(first) == 200
        second = store.rotate_token("ending", valid_s=3600, overlap_s=3600)
        assert (status(first), status(second)) == (200, 200)
        third = store.rotate_token("ending", valid_s=3600, overlap_s=0)
        assert (status(first), status(second), status(third)) == (401, 401, 200)
        store.revoke_token("ending")
        assert status(third) == 401
        assert status(store.add_token("expired", role="manager", valid_s=-1)) == 401


@pytest.mark.long
def test_a_page_of_another_origin_cannot_use_a_session(service: Service) -> None:
    """Else a web page that an admin visits could publish in the admin's name."""
    with SettingsStore(settings_file(service.database)) as store:
        store.add_person("mei", role="admin", password="correct horse battery")
        value = store.begin_session("mei")
        session = store.session(value)
        assert session is not None
    own = {"Origin": f"http://127.0.0.1:{service.port}", "X-CSRF-Token": session.csrf}
    event = coupon_event("created", "e-session", coupon_id="c-session")

    def published(**headers: str) -> int:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return service.publish(event, role=None, headers={"Cookie": f"{COOKIE}={value}", **named}).status

    assert service.get(ASKED, role=None, headers={"Cookie": f"{COOKIE}={value}"}).status == 200
    assert published(**own) == 201
    for headers in (
        {},
        {"Origin": own["Origin"]},
        {"X-CSRF-Token": session.csrf},
        {**own, "X-CSRF-Token": "wrong"},
        {**own, "Origin": "https://evil.example"},
        {**own, "Origin": "null"},
        {"X-CSRF-Token": session.csrf, "Referer": "https://evil.example/page"},
        {"X-CSRF-Token": session.csrf, "Referer": "http://[::1"},
    ):
        assert published(**headers) == 403, headers
    referred = {"X-CSRF-Token": session.csrf, "Referer": f"http://127.0.0.1:{service.port}/page"}
    assert published(**referred) == 201


@pytest.mark.long
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", ""])
def test_it_answers_to_its_own_name_only(service: Service, host: str) -> None:
    """Else a page whose name is made to resolve to this machine could ask with the browser's session."""
    raw = f"GET /health HTTP/1.1\r\nHost: {host.format(port=service.port)}\r\nConnection: close\r\n\r\n".encode()
    assert service.send(raw).startswith((b"HTTP/1.1 421 ", b"HTTP/1.1 400 "))
    twice = f"Host: 127.0.0.1:{service.port}\r\nHost: evil.example\r\n".encode()
    assert b" 421 " in service.send(b"GET /health HTTP/1.1\r\n" + twice + b"Connection: close\r\n\r\n")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_public_address_needs_tls(host: str) -> None:
    """Else passwords and tokens would cross the network in plain text because somebody forgot an option."""
    with pytest.raises(SettingsError, match="--tls-certificate"):
        Address(host).check()
    Address(host, insecure=True).check()
    with pytest.raises(SettingsError, match="both"):
        Address("127.0.0.1", certificate=Path("chain.pem")).check()


@pytest.mark.parametrize("host", ["no such host", "..", "a" * 70 + ".example", "192.0.2.1"])
def test_an_address_that_cannot_be_used_is_said(host: str) -> None:
    """Else a slip of the pen would end in a traceback."""
    with pytest.raises(PortTaken, match="cannot be used"):
        listening(Address(host, 0, insecure=True))


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken, match="--port"):
        listening(Address(port=taken.getsockname()[1]))


def test_names_are_those_that_clients_send() -> None:
    """Else a service on an IPv6 address would refuse everybody, or one behind a proxy all who come through it."""
    assert "[2001:db8::1]:8642" in Address("2001:DB8::1", insecure=True).hosts(8642)
    behind = Address("0.0.0.0", names=names_of(["Coupons.example.com"]), insecure=True)
    assert "coupons.example.com" in behind.hosts(8642)
    assert "https://coupons.example.com" in behind.origins(8642)
    for name in ("https://coupons.example.com", "a/b", "", "a b"):
        with pytest.raises(SettingsError, match="host name"):
            names_of([name])


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    chain, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-out", chain, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    return chain, key


@pytest.mark.long
def test_tls_with_an_own_certificate(tmp_path: Path) -> None:
    """Else a service that others reach could not be run at all."""
    chain, key = certificate(tmp_path, "own")
    options = ("--tls-certificate", str(chain), "--tls-key", str(key))
    with serving(tmp_path, *options, wait=False) as service:
        context = ssl.create_default_context(cafile=str(chain))
        connection = http.client.HTTPSConnection("localhost", service.port, timeout=60, context=context)
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["Strict-Transport-Security"]
        connection.close()
        assert not service.send(b"GET /health HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")


@pytest.mark.long
def test_a_certificate_that_cannot_be_used_is_said(tmp_path: Path, home: Path) -> None:
    """Else the service would start again and again, and nobody would know why."""
    done("init")
    chain, _ = certificate(tmp_path, "own")
    _, other = certificate(tmp_path, "other")
    for key in (other, tmp_path / "missing.pem"):
        code, said = refused(home, "--no-consume", "--tls-certificate", str(chain), "--tls-key", str(key))
        assert code == 2, said
        assert "certificate" in said and "belong together" in said
        assert "Traceback" not in said
