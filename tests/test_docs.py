"""Documents say what the code does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.events import MODELS, parse_event
from scripts.make_docs import DOCS, DOCUMENTS, example

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


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "ARCHITECTURE.md"], ids=lambda path: path.name)
def test_files_that_documents_link_to_are_there(document: Path) -> None:
    """Else a newcomer is sent to nowhere."""
    import re

    for link in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
        assert link.startswith("http") or (ROOT / link).exists(), link
