"""The examples in docs/http-examples, as an engineer of another team would run them, against a real service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from coupon_ledger import Client
from scripts.make_docs import DOCS
from tests.loopback import Answer, Http, serving
from tests.running_service import Running, running

pytestmark = pytest.mark.slow

FOLDER = DOCS / "http-examples"
COMMANDS = {
    "shell": ["sh", str(FOLDER / "example.sh")],
    "node": ["node", str(FOLDER / "example.mjs")],
    "java": ["java", str(FOLDER / "Example.java")],
}
NEEDS = {"shell": ["sh", "curl", "jq", "awk"], "node": ["node"], "java": ["java"]}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(params=COMMANDS)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if missing := [tool for tool in NEEDS[name] if shutil.which(tool) is None]:
        pytest.skip(f"no {', '.join(missing)} on the PATH")
    return name


def ran(language: str, url: str, publisher: str, asker: str) -> subprocess.CompletedProcess[str]:
    tokens = {"URL": url, "PUBLISH_TOKEN": publisher, "ASK_TOKEN": asker, "RUN": "1"}
    environment = {**os.environ, **tokens, "LC_ALL": "C.UTF-8", "no_proxy": "127.0.0.1"}
    return subprocess.run(COMMANDS[language], capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_an_example_does_what_it_says(language: str, service: Running) -> None:
    """Else an upstream engineer would begin with an example that does not work. It is run twice: the second time, all
    that it publishes is there already."""
    for round_ in ("first", "again"):
        ended = ran(language, service.url, service.token, service.admin)
        assert ended.returncode == 0, (round_, ended.stdout, ended.stderr)
        one, batch, *refused, usable, rows, first, resumed = ended.stdout.splitlines()
        assert re.fullmatch(r"published one at coupon\.events:\d+:\d+", one)
        assert batch == "appended 1, refused 1"
        assert refused == [f"refused {language}-1-used: user_id is needed by used events"]
        assert usable.strip() == "usable: true"
        assert re.fullmatch(r"coupons: [1-9]\d* rows", rows)
        assert (first.partition(" ")[0], resumed.partition(" ")[0]) == ("first:", "resumed:")
        assert int(first.split()[-1]) <= int(resumed.split()[-1])
    with Client(service.url, token=service.admin) as client:
        coupons = client.ask("coupons").rows
        assert int(rows.split()[1]) == len(coupons)
        [mine] = [row for row in coupons if row["coupon_id"] == f"{language}-1"]
        assert (mine["state"], mine["events"]) == ("claimed", 2)


@contextmanager
def answering(answers: Sequence[Answer]) -> Iterator[tuple[Http, str]]:
    server = Http()
    server.answers.extend(answers)
    with serving(server.serve, server.ending) as port:
        yield server, f"http://127.0.0.1:{port}"


def test_an_example_repeats_what_a_busy_service_did_not_take(language: str, service: Running) -> None:
    """Else who builds on the example would lose events at the first restart of the service."""
    troubles = [Answer(429, b'{"detail": "busy"}', {"Retry-After": "1"}), Answer(503, b'{"detail": "busy"}')]
    last = Answer(422, b'{"detail": "enough"}')
    with answering([*troubles, last]) as (server, url):
        ended = ran(language, url, service.token, service.admin)
    assert ended.returncode != 0 and "enough" in ended.stdout + ended.stderr
    assert len({request.body for request in server.requests}) == 1
    assert len(server.requests) >= 3
    assert server.requests[1].at - server.requests[0].at >= 1.0, "Retry-After is honoured"
