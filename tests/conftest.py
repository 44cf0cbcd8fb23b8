"""Logs to test against: a file of its own for each test, and one real broker for the session.

Tests do not see each other: an embedded log lies in the test's own folder, on the broker each test has its
own topic prefix. Nothing of it must outlast a power cut, so where there is room all files lie in memory: waiting for
the disk, thousands of times, took a fifth of the time. TMPDIR=/tmp puts them on the disk.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from coupon_ledger.ledger.settings import LogSettings
from tests import kafka_broker as broker
from tests.services import Service, serving

pytest.register_assert_rewrite("tests.contract.log_contract")


IN_MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30


ALERTS = "COUPON_LEDGER_ALERT_RULES"


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()
    # Hundreds of tests `consume`, and compare the log and its operations with what they expect. Those about alerts
    # name their rules, or `defaults`.
    os.environ[ALERTS] = "none"
    if "TMPDIR" not in os.environ and IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(IN_MEMORY)  # the one for the commands that tests start
    if threading.current_thread() is threading.main_thread():
        # So that a session that is ended from outside still stops its broker (atexit).
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        # A shell lets what runs in its background ignore Ctrl-C, and so would the commands that the tests start.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    # What was imported and collected lives to the end: the garbage collector looking through it took much of the time
    # until here, and a quarter of that of tests that make many small objects.
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[broker.Broker]:
    """The session's broker, started at first use; the test is skipped where none can run."""
    try:
        started = broker.session_broker(brief=True)
    except broker.BrokerUnavailable as error:
        if os.environ.get(broker.REQUIRE) == "1":
            pytest.fail(f"{broker.REQUIRE}=1, but {error}", pytrace=False)
        pytest.skip(str(error))
    yield started
    started.remove()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, no settings from outside, and English."""
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    for name in [name for name in os.environ if name.startswith("COUPON_LEDGER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(ALERTS, "none")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sqlite_log_settings(tmp_path: Path) -> LogSettings:
    return LogSettings(url=f"sqlite:///{tmp_path / 'log.db'}")


@pytest.fixture
def kafka_log_settings(kafka_broker: broker.Broker) -> LogSettings:
    return LogSettings(url=f"kafka://{kafka_broker.address}", topic_prefix=f"t{uuid.uuid4().hex[:12]}.")


@pytest.fixture(
    params=[pytest.param("sqlite", id="embedded"), pytest.param("kafka", id="kafka", marks=pytest.mark.kafka)]
)
def log_settings(request: pytest.FixtureRequest) -> LogSettings:
    """Where a log may be made: the test runs once with each backend."""
    settings: LogSettings = request.getfixturevalue(f"{request.param}_log_settings")
    return settings


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service for tests that leave it as they found it, but for events of their own coupons."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running
