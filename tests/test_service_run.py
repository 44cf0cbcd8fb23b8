"""`coupon-ledger run`: its parts are started again, stop together, and the live feed says what happens."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.api import supervisor as supervising
from coupon_ledger.api.service.settings_store import SettingsStore, settings_file
from coupon_ledger.api.supervisor import Part, Supervisor
from tests.command_line import PATIENCE_S, alive, coupon_event, wait_until
from tests.services import Service, serving

Event = tuple[str, str, dict[str, Any]]


@contextmanager
def following(service: Service, last_id: str | None = None, token: str | None = None) -> Iterator[Iterator[Event]]:
    """The events of the live feed: kind, id, data. The iterator ends with the stream."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {token or service.tokens['manager']}"}
    connection.request("GET", "/v1/live", headers=headers | ({"Last-Event-ID": last_id} if last_id else {}))
    response = connection.getresponse()
    assert response.status == 200

    def events() -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in response:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                fields = {}

    try:
        yield events()
    finally:
        response.close()
        connection.close()


def until(events: Iterator[Event], kind: str) -> Event:
    return next(event for event in events if event[0] == kind)


@pytest.mark.long
def test_a_commit_is_told(service: Service) -> None:
    """Else a page would show old numbers until somebody reloads it."""
    with following(service) as events:
        _, first, before = until(events, "commit")
        reply = service.publish(coupon_event("created", "e-live", coupon_id=f"c-live-{time.time_ns()}"))
        _, second, after = until(events, "commit")
    assert reply.status == 201
    assert (after["commits"], first != second) == (before["commits"] + 1, True)
    topic, partition, offset = reply.json["wait_for"].split(":")
    positions = {at: int(after_it) for at, _, after_it in (one.rpartition(":") for one in after["positions"])}
    assert positions[f"{topic}:{partition}"] >= int(offset)


@pytest.mark.long
def test_a_revoked_token_follows_no_longer(service: Service) -> None:
    """Else somebody who was shut out would see all that happens, as long as the connection holds."""
    with SettingsStore(settings_file(service.database)) as store:
        token = store.add_token("follower", role="manager", valid_s=3600)
        with following(service, token=token) as events:
            until(events, "commit")
            store.revoke_token("follower")
            service.publish(coupon_event("created", "e-revoked", coupon_id=f"c-revoked-{time.time_ns()}"))
            assert list(events) == []


@pytest.mark.long
def test_followers_that_vanish_leave_nothing(service: Service) -> None:
    """Else a page that is opened and closed often enough would use up all sockets."""
    pid = service.part("service")

    def sockets() -> int:
        found = 0
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # just closed
                found += str(one.readlink()).startswith("socket:")
        return found

    before = sockets()
    request = (
        f"GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n"
        f"Authorization: Bearer {service.tokens['manager']}\r\n\r\n"
    ).encode()
    connections = []
    for _ in range(200):
        connections.append(socket.create_connection(("127.0.0.1", service.port), PATIENCE_S))
        connections[-1].sendall(request)
    for connection in connections:
        assert connection.recv(20).startswith(b"HTTP/1.1 200 ")
    assert sockets() >= before + 200
    for connection in connections:
        connection.close()
    wait_until(lambda: sockets() <= before + 2, "the end of the connections")
    with following(service) as events:
        until(events, "commit")


@pytest.mark.long
def test_parts_that_are_killed_come_again(tmp_path: Path) -> None:
    """Else a crash at night would stop publishing and alerts until the morning."""
    with serving(tmp_path) as service:
        with following(service) as events:
            until(events, "commit")
            consumer = service.kill("consumer")
            until(events, "away")
            assert service.get("/ready", role=None).status in (200, 503)
            until(events, "commit")  # the next consumer
        wait_until(service.answers, "both parts")
        assert service.part("consumer") != consumer
        first = service.kill("service")
        # The listening socket outlives the service, so that whoever comes meanwhile waits, and is answered.
        assert service.get("/health", role=None).status == 200
        assert service.part("service") != first
        assert any("consumer: ended (SIGKILL); starting it again in 0.5 s" in line for line in service.said)
        parts = service.part("consumer"), service.part("service")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE_S) == 0
        assert [alive(pid) for pid in parts] == [False, False]


@pytest.mark.slow
def test_without_a_consumer_it_is_not_ready(tmp_path: Path) -> None:
    """Else a load balancer would send requests that nobody can answer. Publishing needs no consumer."""
    with serving(tmp_path) as service:
        os.kill(consumer := service.part("consumer"), signal.SIGSTOP)
        try:
            reply = service.publish(coupon_event("created", "e-1"))
            assert reply.status == 201
        finally:
            os.kill(consumer, signal.SIGCONT)
        service.kill("consumer")
        seen: set[int] = set()

        def not_ready() -> bool:
            seen.add(service.get("/ready", role=None).status)
            return 503 in seen

        wait_until(not_ready, "503")
        wait_until(service.ready, "the next consumer")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent is gone")
def test_no_part_outlives_the_supervisor(tmp_path: Path) -> None:
    """Else a supervisor that was killed could not be started again: port and database would be taken."""
    with serving(tmp_path) as service:
        parts = service.part("consumer"), service.part("service")
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(_runs(pid) for pid in parts), "the end of the parts")
    with serving(tmp_path, port=service.port) as again:
        assert again.ready()


def _runs(pid: int) -> bool:
    """Whether the process runs: what ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _part(name: str, code: str) -> Part:
    return Part(name, [sys.executable, "-c", code])


@pytest.mark.long
def test_the_pause_grows_and_the_end_is_graceful(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a part that cannot run would be started hundreds of times a minute."""
    monkeypatch.setattr(supervising, "SLOWEST_S", 0.04)
    failing, steady = _part("failing", "raise SystemExit(5)"), _part("steady", "import time; time.sleep(600)")
    failing._pause_s = 0.01
    supervisor = Supervisor([steady, failing])
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    codes: list[int] = []
    with caplog.at_level("WARNING", logger="coupon_ledger.run"):
        thread.start()
        wait_until(lambda: failing.restarts >= 4, "restarts")
        process = steady.process
        supervisor.stop()
        thread.join(PATIENCE_S)
    assert codes == [0]
    assert process is not None and process.returncode == -signal.SIGTERM
    pauses = [record.__dict__["again_in_s"] for record in caplog.records]
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.04]


@pytest.mark.long
def test_wrong_settings_stop_everything(caplog: pytest.LogCaptureFixture) -> None:
    """Else a slip in the settings would look like a service that is about to start."""
    steady = _part("steady", "import time; time.sleep(600)")
    with caplog.at_level("ERROR", logger="coupon_ledger.run"):
        assert Supervisor([steady, _part("wrong", "raise SystemExit(2)")]).run() == 2
    assert steady.process is not None and steady.process.returncode == -signal.SIGTERM
    assert "wrong: refuses to start" in caplog.text


@pytest.mark.long
def test_a_part_that_does_not_end_is_killed() -> None:
    """Else stopping the ledger could take forever."""
    deaf = _part(
        "deaf", "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    supervisor = Supervisor([deaf], leave_s=0.2)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    wait_until(lambda: deaf.process is not None and _ignores_sigterm(deaf.process.pid), "the part")
    supervisor.stop()
    thread.join(PATIENCE_S)
    assert deaf.process is not None and deaf.process.returncode == -signal.SIGKILL


def _ignores_sigterm(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [ignored] = [line.split()[1] for line in lines if line.startswith("SigIgn:")]
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)
