"""Documents say what the code does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from kafka.partitioner.default import murmur2

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import TOPIC_OF_SCHEMA, decode, encode, event_data
from coupon_ledger.ledger.events import MODELS, parse_event, parse_with_topic
from coupon_ledger.ledger.partitioner import partitions_of
from coupon_ledger.ledger.topics import ALL_TOPICS, INPUT_TOPICS
from scripts.examples import example
from scripts.make_docs import DOCS, DOCUMENTS

ROOT = DOCS.parent


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_made_documents_are_current(document: Path) -> None:
    """Else a reader follows a reference of another version (`make docs` writes them)."""
    assert document.read_text(encoding="utf-8") == DOCUMENTS[document]()


@pytest.mark.parametrize(("topic", "kind"), MODELS)
def test_examples_of_the_event_reference_are_valid(topic: str, kind: str) -> None:
    """Else an upstream engineer's first event, copied from the reference, is refused."""
    data = example(topic, kind)
    assert data.pop("topic") == topic
    parse_event(topic, data)


def test_the_readmes_example_file_is_valid() -> None:
    """Else the README's first steps end in an error."""
    for line in (DOCS / "example.ndjson").read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        parse_event(data.pop("topic"), data)


@pytest.mark.long
@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "ARCHITECTURE.md"], ids=lambda path: path.name)
def test_files_that_documents_link_to_are_there(document: Path) -> None:
    """Else a newcomer is sent to nowhere."""
    for link in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
        assert link.startswith("http") or (ROOT / link).exists(), link


# ── Publishing from any language ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def worked_example() -> str:
    return (DOCS / "events.md").read_text(encoding="utf-8").partition("### A worked example")[2]


def test_the_worked_example_is_what_the_ledger_writes_and_reads(worked_example: str) -> None:
    """Else an engineer who follows the reference byte by byte makes dead letters."""
    [data] = re.findall(r"```json\n(.*?)\n```", worked_example)
    [whole] = re.findall(r"```\n([0-9a-f \n]+)\n```", worked_example)
    event = parse_with_topic(json.loads(data))
    message = bytes.fromhex(whole)
    assert message == encode(event)
    writer, row = decode(message)
    assert parse_event(writer.topic or "", event_data(row)) == event
    parts = re.findall(r"\| `([0-9a-f ]+)` \| (.*) \|", worked_example.partition("The whole value")[0])
    assert b"".join(bytes.fromhex(part) for part, _ in parts) == message
    assert f"the key `{event.key}` and these {len(message)} bytes" in worked_example


def test_the_partitions_of_the_worked_example_are_kafkas(worked_example: str) -> None:
    """Else a coupon's events lie on two partitions."""
    rows = re.findall(r"\| `(.+)` \| `([0-9a-f]{8})` \| (\d+) \| (\d+) \|", worked_example)
    assert len(rows) == 3
    for key, digits, *partitions in rows:
        assert int(digits, 16) == murmur2(key.encode()) & 0xFFFFFFFF
        assert [int(p) for p in partitions] == [partitions_of([key.encode()], n)[0] for n in (4, 12)]


def test_the_reference_names_every_reason_of_a_dead_letter() -> None:
    text = (DOCS / "events.md").read_text(encoding="utf-8")
    for reason in ("undecodable", "unknown_schema", "invalid_event", "wrong_topic"):
        assert f"| `{reason}` |" in text


# ── AsyncAPI ─────────────────────────────────────────────────────────────────────────────────────────────────

ASYNCAPI_SPECS = "@asyncapi/specs@6.11.1"


@pytest.fixture(scope="module")
def asyncapi_schema() -> Any:
    """AsyncAPI's own JSON schema, from its npm package; kept in `.kafka/` beside what else is fetched for tests."""
    folder = ROOT / ".kafka" / "asyncapi"
    file = folder / ASYNCAPI_SPECS.replace("/", "-") / "3.0.0.json"
    if not file.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"no `npm` on the PATH to fetch {ASYNCAPI_SPECS}")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "pack", "--silent", ASYNCAPI_SPECS], cwd=folder, check=True, capture_output=True)
        [archive] = folder.glob("*.tgz")
        with tarfile.open(archive) as packed:
            data = packed.extractfile("package/schemas/3.0.0.json")
            assert data is not None
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data.read())
        archive.unlink()
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def asyncapi() -> Any:
    return json.loads((DOCS / "asyncapi.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_asyncapi_document_is_valid(asyncapi: Any, asyncapi_schema: Any) -> None:
    """Else no tool reads it."""
    validator = Draft7Validator(asyncapi_schema)
    assert [e.message for e in validator.iter_errors(asyncapi)] == []
    broken = {**asyncapi, "channels": {"x": {"address": 5}}}
    assert list(validator.iter_errors(broken)), "the schema says something"


def test_the_asyncapi_document_names_every_topic_and_its_parts_fit(asyncapi: Any) -> None:
    """Else a client made from it reads from nowhere."""

    def resolve(reference: str) -> Any:
        found = asyncapi
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        return found

    assert {c["address"] for c in asyncapi["channels"].values()} == set(ALL_TOPICS)
    used = {resolve(o["channel"]["$ref"])["address"]: o for o in asyncapi["operations"].values()}
    assert {t for t, o in used.items() if o["action"] == "receive"} == set(INPUT_TOPICS)
    for operation in used.values():
        for message in operation["messages"]:
            assert resolve(resolve(message["$ref"])["$ref"])["payload"]["schema"]["type"] == "record"
    for name, message in asyncapi["components"]["messages"].items():
        assert message["payload"]["schema"] == schemas.current(name)
        topic = TOPIC_OF_SCHEMA.get(name)
        for shown in message.get("examples", []):
            assert parse_event(topic or "", shown["payload"]).type == shown["name"]
