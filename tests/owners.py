"""A consumer that owns a database and answers beside it, as a real process; and asking it by hand, as another program
would."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from coupon_ledger.api.contact import token_file
from coupon_ledger.projections.ownership import owner
from tests.command_line import DATABASE, finish, start, wait_until

Data = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Owner:
    """A running `consume --follow`."""

    process: subprocess.Popen[bytes]
    address: str
    token: str

    def get(self, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> Reply:
        """With the token, unless `headers` are given."""
        return self._ask("GET", path, headers, parameters)

    def post(self, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> Reply:
        """With the token, unless `headers` are given."""
        return self._ask("POST", path, headers, parameters)

    def _ask(self, method: str, path: str, headers: dict[str, str] | None, parameters: Data) -> Reply:
        query = f"?{urlencode(parameters)}" if parameters else ""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path + query, headers=self.headers if headers is None else headers)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def answer(self, question: str, **parameters: Any) -> Data:
        reply = self.get(f"/v1/{question}", **parameters)
        assert reply.status == 200, reply.body
        answer: Data = reply.json
        return answer


@contextmanager
def owning(*arguments: str, database: Path | str = DATABASE, **options: Any) -> Iterator[Owner]:
    """`consume --follow` until the end of the block, answering; it must end well unless it was killed.

    `options`: of the process.
    """
    process = start("consume", "--follow", "--database", database, *arguments, **options)
    try:
        said: Data = {}

        def answers() -> bool:
            assert process.poll() is None, finish(process).err
            said.clear()
            said.update(owner(Path(database)))
            return said.get("pid") == process.pid and "url" in said

        wait_until(answers, "the owner's address")
        address = urlsplit(said["url"]).netloc
        yield Owner(process, address, token_file(Path(database)).read_text())
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            ran = finish(process)
            assert ran.code == 0, ran.err
    finally:
        if process.stdout is not None and not process.stdout.closed:
            process.kill()
            finish(process)
