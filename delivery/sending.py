"""Hands messages to the process that sends them (`process.py`), and ends it if it takes too long."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import time
from typing import Final

from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import Outcome

START_S: Final = 60.0
"""How long the process may take to load its libraries. Only a machine that is overloaded takes so long."""
_SLACK_S: Final = 1.0
"""Connecting and each answer have the timeout of the channel; the whole attempt may take this much longer."""


class SendingProcess:
    """One process that sends to one channel, started when needed. For one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def send(self, job: Job) -> Outcome:
        """Try to send a message once. Returns after the job's timeout and a second at the latest, if the process runs
        already. Never raises for what a destination does."""
        try:
            answer = self._ready(job.kind) and self._asked(job)
        except OSError as error:
            answer = f"the process that sends: {error}"
        if isinstance(answer, str):
            self.close()
            return Outcome("failed", answer)
        fields = json.loads(answer)
        return Outcome(**{**fields, "delivered": tuple(fields["delivered"])})

    def kill(self) -> None:
        """Break off what the process does, from another thread. Nothing is sent from then on."""
        self._killed = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()

    def _ready(self, kind: str) -> bytes | str:
        """Start the process unless it runs. Returns its first line, or why it cannot send."""
        if self._process is not None and self._process.poll() is None:
            return b"\n"
        self.close()
        # -P: files in the working folder do not stand in for libraries.
        command = [sys.executable, "-P", "-m", "coupon_ledger.delivery.process", kind]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        if self._killed:
            self._process.kill()
        return self._line(START_S, "the process that sends did not start within {limit:g} s")

    def _asked(self, job: Job) -> bytes | str:
        """The answer of the process to a job, or why there is none."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(job.as_json(), ensure_ascii=False).encode() + b"\n")
        return self._line(job.timeout_s + _SLACK_S, "no answer within {limit:g} s")

    def _line(self, limit: float, late: str) -> bytes | str:
        """The next line that the process writes, or why there is none. `late`: that none came in time."""
        assert self._process is not None and self._process.stdout is not None
        output, line, deadline = self._process.stdout, b"", time.monotonic() + limit
        while not line.endswith(b"\n"):
            if not select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return late.format(limit=limit)
            part = output.read(65_536)
            if not part:
                return "the process that sends ended before it answered"
            line += part
        return line
