"""The producer in docs/java-producer, as an engineer of another team would build and run it, against a real Kafka."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from coupon_ledger import schemas
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.partitioner import partitions_of
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON
from tests import kafka_broker as broker
from tests.command_line import done

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SOURCE = broker.ROOT / "docs" / "java-producer"
SCHEMA = Path(schemas.__file__).with_name("coupon_event.avsc")
COUPONS = 25


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path of the built producer."""
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    reason = f"no {', '.join(missing)} on the PATH" if missing else broker.why_no_java()
    if reason:
        if os.environ.get(broker.REQUIRE) == "1":
            pytest.fail(f"{broker.REQUIRE}=1, but the Java producer cannot be built: {reason}", pytrace=False)
        pytest.skip(f"the Java producer cannot be built: {reason}")
    folder = tmp_path_factory.mktemp("java") / "producer"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("target"))
    built = subprocess.run(
        ["mvn", "-q", "-B", "-f", str(folder / "pom.xml"), "process-classes"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return f"{folder}/target/classes:{folder}/target/libs/*"


def publish(classes: str, settings: LogSettings) -> list[tuple[str, str, int, int]]:
    """event_id, key, partition and offset of each event that the producer published."""
    topic = settings.topic_prefix + COUPON
    command = ["java", "-cp", classes, "Producer", settings.url.removeprefix("kafka://"), str(SCHEMA), topic]
    ran = subprocess.run(
        [*command, str(COUPONS)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    return [(event_id, key, int(partition), int(offset)) for event_id, key, partition, offset in lines]


def test_what_java_publishes_is_read_back_and_folded(
    classes: str, kafka_log_settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the reference for other languages is wrong somewhere: in the bytes, the values or the partition."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUPON_LEDGER_LOG", kafka_log_settings.url)
    monkeypatch.setenv("COUPON_LEDGER_TOPIC_PREFIX", kafka_log_settings.topic_prefix)
    done("init")
    published = publish(classes, kafka_log_settings)
    assert len(published) == 3 * COUPONS
    publish(classes, kafka_log_settings)  # a producer that is started again: repeats
    done("consume")

    log = open_log(kafka_log_settings)
    count = len(log.partitions([COUPON]))
    log.close()
    ours = partitions_of([key.encode() for _, key, _, _ in published], count)
    assert ours == [partition for _, _, partition, _ in published]
    assert len(set(ours)) > 1, "the keys spread over partitions"

    status = done("status", "--output", "json").json
    assert (status["applied"], status["repeats"]) == (3 * COUPONS, 3 * COUPONS)
    assert (status["dead_letters"], status["violations"], status["lag"]) == (0, 0, 0)
    state = done("state", "java-券-7", "--output", "json").json
    told = {
        "state": "used",
        "campaign_id": "double-11",
        "coupon_type": "threshold",
        "face_value_minor": 50_000_000_007,
        "min_spend_minor": 12_000,
        "currency": "CNY",
        "valid_until": "2026-12-11T00:00:07.000001Z",
        "owner": "u-7",
        "order_id": "o-7",
        "discount_minor": 3_500,
        "created_at": "2026-11-11T00:00:07.000001Z",
        "used_at": "2026-11-11T00:02:07.000001Z",
        "events": 3,
    }
    assert {name: state[name] for name in told} == told
    history = done("history", "java-券-7", "--output", "ndjson").rows
    assert [row["event_id"] for row in history] == [f"java-券-7-{kind}" for kind in ("created", "issued", "used")]
    positions = {event_id: (partition, offset) for event_id, _, partition, offset in published}
    assert {row["event_id"]: (row["partition"], row["offset"]) for row in history} == {
        row["event_id"]: positions[row["event_id"]] for row in history
    }
