"""The documents of the HTTP API: docs/openapi.json for tools, and the reference by route in docs/http-api.md."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from coupon_ledger.api.service.application import document
from coupon_ledger.api.service.problems import TITLES


@cache
def described() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return document(Path(folder))


def openapi_json() -> str:
    """The OpenAPI description, one line a path."""
    paths = (f"  {json.dumps(path)}: {_compact(operations)}" for path, operations in described()["paths"].items())
    rest = (f" {json.dumps(name)}: {_compact(value)}" for name, value in described().items() if name != "paths")
    return "{\n" + ",\n".join(rest) + ',\n "paths": {\n' + ",\n".join(paths) + "\n }\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def http_api_md() -> str:
    """The guide to the HTTP API, with its reference."""
    guide = Path(__file__).with_name("http-api.md").read_text(encoding="utf-8").rstrip("\n")
    return guide + "\n" + "\n".join(_reference()) + "\n"


def _reference() -> Iterator[str]:
    for path, operations in described()["paths"].items():
        if "/questions/" not in path:
            for method, operation in operations.items():
                yield from _route(f"{method.upper()} {path}", operation)
    names = [path.rsplit("/", 1)[1] for path in described()["paths"] if "/questions/" in path]
    yield "\n### `GET` and `POST /v1/questions/{question}`"
    yield "\nQuestions: " + ", ".join(f"`{name}`" for name in names) + "."
    yield "\n### Codes of problems"
    yield "\n| `type` ends with | meaning |\n|---|---|"
    yield from (f"| `{code}` | {title} |" for code, title in TITLES.items())


def _route(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"\n### `{title}`"
    yield "\n" + operation.get("description", "")
    if parameters := operation.get("parameters"):
        yield "\n| parameter | in | |\n|---|---|---|"
        yield from (f"| `{p['name']}` | {p['in']} | {p.get('description', '')} |" for p in parameters)
    yield "\nStatuses: " + ", ".join(sorted(operation["responses"])) + "."
