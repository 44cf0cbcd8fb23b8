"""A schema registry on loopback that speaks what the ledger asks of one, in Confluent's REST API. It can be down."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class FakeRegistry:
    """Subjects, each with schemas, each with an id. `refuses`: it takes no new schema. `asked`: paths, in order."""

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, str]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.refuses = False
        self.asked: list[str] = []
        self.authorizations: set[str | None] = set()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                registry.asked.append(self.path)
                registry.authorizations.add(self.headers["Authorization"])
                code, answer = registry.answer(self.command, urlsplit(self.path).path, body)
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def down(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match method, [unquote(p) for p in path.strip("/").split("/")]:
            case "GET", ["schemas", "ids", wanted]:
                found = self.schemas.get(int(wanted))
                return (200, found) if found else (404, {"error_code": 40403, "message": "Schema not found"})
            case "POST", ["subjects", subject]:
                number = self._registered(subject, body["schema"])
                if number is None:
                    return 404, {"error_code": 40401, "message": "Subject not found"}
                return 200, {"subject": subject, "id": number, "version": 1, "schema": body["schema"]}
            case "POST", ["subjects", subject, "versions"]:
                if self.refuses:
                    return 409, {"error_code": 409, "message": "Schema being registered is incompatible"}
                return 200, {"id": self.register(subject, body["schema"])}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def register(self, subject: str, schema: str, kind: str | None = None) -> int:
        """The id of that schema, a new one where it has none."""
        entry = {"schema": schema} | ({"schemaType": kind} if kind else {})
        number = next((n for n, s in self.schemas.items() if s == entry), len(self.schemas) + 17)
        self.schemas[number] = entry
        self.subjects.setdefault(subject, []).append(number)
        return number

    def _registered(self, subject: str, schema: str) -> int | None:
        return next((n for n in self.subjects.get(subject, []) if self.schemas[n]["schema"] == schema), None)


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    registry = FakeRegistry()
    try:
        yield registry
    finally:
        registry.down()
