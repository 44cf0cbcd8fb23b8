"""Doing things over HTTP, with a real service and a real consumer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from coupon_ledger.api.service.settings_store import SettingsStore, settings_file
from coupon_ledger.ledger import operations
from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import Condition
from coupon_ledger.ledger.alert_events import record_of
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings

pytestmark = pytest.mark.long
_PATIENCE_S = 60.0


class Reply(NamedTuple):
    status: int
    body: Any
    headers: Any


class Service:
    """A running service. `tokens`: by role."""

    def __init__(self, folder: Path, url: str, tokens: dict[str, str]) -> None:
        self.folder, self.url, self.tokens = folder, url, tokens

    def send(self, method: str, path: str, role: str, body: object = None, **headers: str) -> Reply:
        data = None if body is None else json.dumps(body).encode()
        told = {"Authorization": f"Bearer {self.tokens[role]}", "Content-Type": "application/json", **headers}
        try:
            with urlopen(Request(self.url + path, data, told, method=method), timeout=_PATIENCE_S) as response:
                return Reply(response.status, json.loads(response.read()), response.headers)
        except HTTPError as error:
            return Reply(error.code, json.loads(error.read()), error.headers)

    def ended(self, job: str) -> dict[str, Any]:
        """The job, once it has ended."""

        def look() -> dict[str, Any] | None:
            found = self.send("GET", job, "ops").body
            return None if found["state"] == "running" else cast("dict[str, Any]", found)

        return cast("dict[str, Any]", waited(look))

    @property
    def log(self) -> LogSettings:
        return LogSettings(url=f"sqlite:///{self.folder}/log.db")

    def recorded_operations(self) -> list[operations.Operation]:
        with closing(open_log(self.log)) as log:
            return [one.operation for one in operations.read(log)]

    def recorded(self, action: str) -> list[operations.Operation]:
        """All operations, once there is one with this action; before, none."""
        known = self.recorded_operations()
        return known if action in [one.action for one in known] else []


def waited(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    database = folder / "c.duckdb"
    command = [sys.executable, "-m", "coupon_ledger.cli", "run", "--port", "0", "--alert-rules", "none"]
    settings = {"COUPON_LEDGER_LOG": f"sqlite:///{folder}/log.db", "COUPON_LEDGER_DATABASE": str(database)}
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(command, cwd=folder, stderr=said, env=os.environ | settings) as process,
    ):
        try:
            url = waited(
                lambda: next((s for s in (folder / "said").read_text().split() if s.startswith("http:")), None)
            )
            with SettingsStore(settings_file(database)) as store:
                tokens = {
                    name: store.add_token(name, role=name.partition("-")[0], valid_s=600)
                    for name in ("ops", "risk", "risk-2", "manager", "admin")
                }
            served = Service(folder, url, tokens)
            waited(lambda: served.send("GET", "/ready", "ops").status == 200)
            yield served
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(_PATIENCE_S) == 0


@pytest.fixture
def alert(service: Service) -> str:
    """The id of an alert that has just fired."""
    now = datetime.now(UTC)
    alert_id = os.urandom(8).hex()
    condition = Condition(
        rule="device_farm", labels={"device_id": alert_id}, outcome="holds", at=now, now=now, alert_id=alert_id
    )
    with closing(open_log(service.log)) as log:
        log.append([record_of(event) for event in AlertBook().decide(condition)])
    return alert_id


def test_an_alert_is_taken_by_one_person_and_the_other_is_told_by_whom_and_when(service: Service, alert: str) -> None:
    """Otherwise two people work on the same alert, or nobody."""
    taken = service.send("POST", f"/v1/alerts/{alert}/acknowledge", "risk", {"why": "calling the shop"})
    assert (taken.status, taken.body["events"][0]["operator"]) == (200, "token:risk")
    assert taken.body["wait_for"].startswith("coupon.alerts:")
    second = service.send("POST", f"/v1/alerts/{alert}/acknowledge", "risk-2")
    assert (second.status, second.body["who"]) == (409, "token:risk")
    assert datetime.fromisoformat(second.body["at"]) <= datetime.now(UTC)
    over = service.send("POST", f"/v1/alerts/{alert}/acknowledge", "risk-2", {"take_over": True})
    assert over.status == 200


def test_an_alert_is_noted_assigned_and_closed(service: Service, alert: str) -> None:
    assert service.send("POST", f"/v1/alerts/{alert}/note", "risk", {"text": "a test device"}).status == 200
    assert service.send("POST", f"/v1/alerts/{alert}/assign", "risk", {"assignee": "li"}).status == 200
    closed = service.send("POST", f"/v1/alerts/{alert}/resolve", "risk", {"outcome": "false"})
    assert (closed.status, closed.body["events"][0]["type"]) == (200, "resolved")
    again = service.send("POST", f"/v1/alerts/{alert}/resolve", "risk", {"outcome": "false"})
    assert (again.status, again.body["events"]) == (200, [])
    other = service.send("POST", f"/v1/alerts/{alert}/resolve", "risk-2", {"outcome": "true"})
    assert (other.status, other.body["who"]) == (409, "token:risk")
    late = service.send("POST", f"/v1/alerts/{alert}/acknowledge", "risk-2")
    assert (late.status, late.body["who"]) == (409, "token:risk")


def test_a_silence_begins_and_ends(service: Service, alert: str) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = service.send("POST", "/v1/alerts/silences", "risk", {"alert": alert, "until": until, "why": "known"})
    assert (made.status, made.body["silenced"]) == (201, 1)
    path = f"/v1/alerts/silences/{made.body['silence_id']}"
    assert service.send("DELETE", path, "risk").status == 200
    assert service.send("DELETE", path, "risk-2").status == 409


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/alerts/nothing/note", {"text": "x"}, 404),
        ("/v1/alerts/nothing/note", {}, 422),
        ("/v1/alerts/nothing/note", {"text": "x", "by": "mei"}, 422),
        ("/v1/alerts/nothing/note", [], 422),
        ("/v1/alerts/nothing/act", {"dry_run": False}, 422),
        ("/v1/alerts/silences", {"until": "2020-01-01", "why": "x"}, 422),
        ("/v1/alerts/missed", {"rule": "nothing", "since": "2020-01-01T00:00:00Z"}, 422),
        ("/v1/ops/backup", {"name": "../x"}, 422),
        ("/v1/ops/dead-letters/replay", {}, 422),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason(service: Service, path: str, body: object, status: int) -> None:
    refused = service.send("POST", path, "ops", body)
    assert (refused.status, bool(refused.body["detail"])) == (status, True), refused.body


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/alerts/x/note"), ("POST", "/v1/ops/verify"), ("GET", "/v1/ops/status"), ("GET", "/v1/people")],
)
def test_a_role_without_the_right_can_do_nothing(service: Service, method: str, path: str) -> None:
    """Otherwise whoever may look may also change."""
    assert service.send(method, path, "manager", None if method == "GET" else {}).status == 403


def test_the_status_says_how_the_ledger_is(service: Service) -> None:
    status = service.send("GET", "/v1/ops/status", "ops").body
    assert (status["lag"], status["log_problem"]) == (0, None)
    assert status["disk"]["free_bytes"] > 0 and status["memory"]["consumer_bytes"] > 0


def test_a_job_runs_beside_the_service_and_tells_its_result(service: Service) -> None:
    begun = service.send("POST", "/v1/ops/verify", "ops", {"without_log": True})
    assert begun.status == 202
    second = service.send("POST", "/v1/ops/verify", "ops", {})
    assert (second.status, second.body["who"]) == (409, "token:ops")
    done = service.ended(begun.headers["Location"])
    assert (done["state"], done["error"]) == ("done", None)
    assert done["result"]["checks"] and all(check["offenders"] == 0 for check in done["result"]["checks"])


def test_a_backup_and_a_rebuild_are_made_and_rolled_back(service: Service) -> None:
    backup = service.send("POST", "/v1/ops/backup", "ops", {"name": "monday.duckdb"})
    assert service.ended(backup.headers["Location"])["state"] == "done"
    assert (service.folder / "backups" / "monday.duckdb").exists()
    rebuilt = service.send("POST", "/v1/ops/rebuild", "ops", {"why": "new disks"})
    done = service.ended(rebuilt.headers["Location"])
    assert (done["state"], done["error"]) == ("done", None)
    back = service.send("POST", "/v1/ops/rollback", "ops", {"why": "once more"})
    assert service.ended(back.headers["Location"])["state"] == "done"
    told = [(one.action, one.operator) for one in service.recorded_operations()]
    assert ("rebuild_swapped", "token:ops") in told and ("rebuild_rolled_back", "token:ops") in told


def test_a_job_is_stopped(service: Service) -> None:
    begun = service.send("POST", "/v1/ops/sweep", "ops", {"dry_run": True}).headers["Location"]
    stopped = service.send("DELETE", begun, "ops")
    assert stopped.status in (200, 409)
    if stopped.status == 200:
        assert waited(lambda: service.send("GET", begun, "ops").body["ended_at"])
        assert service.send("GET", begun, "ops").body["state"] == "stopped"


def test_people_and_tokens_follow_the_rules_of_the_commands(service: Service) -> None:
    """A secret is shown once, and somebody can always administer the service."""
    added = service.send("POST", "/v1/people", "admin", {"name": "mei", "role": "admin"})
    assert added.status == 201 and len(added.body["password"]) >= 12
    assert service.send("POST", "/v1/people", "admin", {"name": "Mei", "role": "risk"}).status == 409
    weak = {"name": "li", "role": "risk", "password": "short"}
    refused = service.send("POST", "/v1/people", "admin", weak)
    assert refused.status == 422 and "short" not in json.dumps(refused.body)
    last = service.send("DELETE", "/v1/people/mei", "admin")
    assert (last.status, "only admin" in last.body["detail"]) == (409, True)
    assert service.send("PATCH", "/v1/people/mei", "admin", {"display_name": "Mei W."}).body["display_name"] == "Mei W."
    made = service.send("POST", "/v1/tokens", "admin", {"name": "till", "role": "manager"})
    service.tokens["till"] = made.body["token"]
    assert service.send("GET", "/v1/questions/states", "till").status == 200
    listed = service.send("GET", "/v1/tokens", "admin").body["tokens"]
    assert "till" in [one["name"] for one in listed] and "cl_" not in json.dumps(listed)
    assert service.send("DELETE", "/v1/tokens/till", "admin").status == 200
    assert service.send("GET", "/v1/questions/states", "till").status == 401
    told = [one.action for one in waited(lambda: service.recorded("token_revoked"))]
    assert {"person_added", "person_changed", "token_created"} <= set(told)
    assert added.body["password"] not in str(service.recorded_operations())


def test_who_asked_and_exported_is_recorded_without_naming_customers(service: Service) -> None:
    service.send("GET", "/v1/questions/state?coupon=c-secret", "risk")
    for _ in range(3):
        service.send("GET", "/v1/questions/campaigns", "risk-2")
    told = {"Authorization": f"Bearer {service.tokens['risk']}"}
    with urlopen(Request(service.url + "/v1/questions/campaigns?format=csv", headers=told)):
        pass
    seen = waited(lambda: service.recorded("exported"))
    asked = [o for o in seen if o.action == "asked" and o.operator == "token:risk-2"]
    assert [o.subject for o in asked] == ["campaigns"]  # three views, one record
    assert "c-secret" not in str(seen) and any(o.subject == "state" for o in seen)


def test_what_was_done_can_be_asked(service: Service) -> None:
    """Otherwise an auditor has to read the log."""
    service.send("POST", "/v1/tokens", "admin", {"name": "asked-about", "role": "manager"})

    def rows() -> Any:
        path = "/v1/questions/operations?action=token_created&subject=asked-about&limit=5"
        return service.send("GET", path, "ops").body["rows"]

    [row] = waited(rows)
    assert (row["operator"], row["details"]) == ("token:admin", {"role": "manager"})
