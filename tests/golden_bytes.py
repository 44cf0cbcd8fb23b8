"""Messages of every released schema version, as bytes in `golden/`, never edited: what lies in logs since then.

`python -m tests.golden_bytes` writes the file of a newly released version, with another Avro library than the ledger's.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import fastavro

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import single_object_header
from coupon_ledger.ledger.plain import plain
from tests.wire import Row, rich_row

FOLDER = Path(__file__).with_name("golden")
VERSIONS = [(name, version) for name in schemas.NAMES for version in range(1, len(schemas.released(name)) + 1)]


@dataclass(frozen=True)
class Golden:
    """A message and the fields that it holds."""

    message: bytes
    row: Row


def golden_file(name: str, version: int) -> Path:
    return FOLDER / f"{name}.v{version}.json"


def golden(name: str, version: int) -> list[Golden]:
    found = json.loads(golden_file(name, version).read_text(encoding="utf-8"))
    kinds = {f["name"]: json.dumps(f["type"]) for f in schemas.released(name)[version - 1]["fields"]}
    return [
        Golden(bytes.fromhex(each["message"]), {k: _value(kinds[k], v) for k, v in each["row"].items()})
        for each in found
    ]


def _value(kind: str, said: Any) -> Any:
    """Of what `plain` makes of it."""
    if said is not None and "timestamp-micros" in kind:
        return datetime.fromisoformat(said)
    return bytes.fromhex(said) if kind == '"bytes"' else said


def _written(name: str, version: int) -> str:
    schema = schemas.released(name)[version - 1]
    rich = rich_row(name)
    nullable = {f["name"] for f in schema["fields"] if isinstance(f["type"], list)}
    found = []
    rows = [rich, {k: None if k in nullable else v for k, v in rich.items()}]
    kinds = [f["type"] for f in schema["fields"] if f["name"] == "type" and isinstance(f["type"], dict)]
    since: dict[str, int] = kinds[0].get("since", {}) if kinds else {}
    rows += [rich | {"type": symbol} for symbol, first in since.items() if first == version]
    for row in rows:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, fastavro.parse_schema(schema), row)
        message = single_object_header(schema) + body.getvalue()
        found.append({"message": message.hex(), "row": plain(row)})
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    for name, version in VERSIONS:
        file = golden_file(name, version)
        if not file.exists():
            file.write_text(_written(name, version), encoding="utf-8")
            print(f"{file.name}: written")
