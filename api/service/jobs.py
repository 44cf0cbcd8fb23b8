"""Jobs: long work that an operator has started, each a command of the CLI in a process of its own, so that the service
stays responsive.

One job of a kind runs at a time. Jobs are known until the service ends; what they did is in the log.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from coupon_ledger.api.service.problems import Refusal

PROGRESS: Final = "COUPON_LEDGER_PROGRESS"
"""The variable that makes a command tell its progress as lines of JSON (`cli/progress.py`)."""
_KEPT: Final = 100
_MOST_BYTES: Final = 2_000_000
_LEAVE_S: Final = 30.0


@dataclass
class Job:
    """`state`: `running`, `done`, `failed` or `stopped`. `result`: what the command printed; `error`: what it said."""

    kind: str
    operator: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "running"
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    progress: Mapping[str, Any] | None = None
    result: Any = None
    error: str | None = None

    def as_row(self) -> dict[str, Any]:
        return dict(self.__dict__)


class Jobs:
    """For one event loop. `environment`: gives the commands the service's settings."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment, PROGRESS: "json"}
        self._jobs: dict[str, Job] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, kind: str, operator: str, arguments: Sequence[str]) -> Job:
        """Start a command. Raises `Refusal` (409) if a job of this kind runs."""
        running = next((job for job in self._jobs.values() if job.kind == kind and job.state == "running"), None)
        if running is not None:
            raise Refusal(
                409,
                f"{running.operator} has started {kind} already (job {running.id}); wait for it, or stop it",
                who=running.operator,
                at=running.began_at.isoformat(),
                job=running.id,
            )
        job = Job(kind, operator)
        self._jobs[job.id] = job
        self._forget()
        task = asyncio.get_running_loop().create_task(self._run(job, arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def job(self, job_id: str) -> Job:
        """Raises `Refusal` (404)."""
        if job_id not in self._jobs:
            raise Refusal(404, f"job {job_id[:40]}: there is none of that id since the service started")
        return self._jobs[job_id]

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def stop(self, job_id: str) -> Job:
        """Ask the job's process to end. Raises `Refusal` (404, 409)."""
        job = self.job(job_id)
        if job.state != "running":
            raise Refusal(409, f"job {job_id}: has ended already ({job.state})")
        job.state = "stopped"
        with suppress(KeyError, ProcessLookupError):
            self._processes[job_id].terminate()
        return job

    async def close(self) -> None:
        """Stop the jobs that run, and wait for them."""
        for process in list(self._processes.values()):
            with suppress(ProcessLookupError):
                process.terminate()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_LEAVE_S)
            for process in list(self._processes.values()) if late else ():
                with suppress(ProcessLookupError):
                    process.kill()

    async def _run(self, job: Job, arguments: Sequence[str]) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "coupon_ledger.cli",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
            )
        except OSError as error:
            self._ended(job, "failed", None, f"the command cannot be started ({error.strerror})")
            return
        self._processes[job.id] = process
        if job.state == "stopped":
            process.terminate()
        try:
            assert process.stdout is not None and process.stderr is not None
            printed, said = await asyncio.gather(_read(process.stdout), self._follow(job, process.stderr))
            code = await process.wait()
        finally:
            del self._processes[job.id]
        self._ended(job, "done" if code == 0 else "failed", _result(printed), None if code == 0 else said)

    def _ended(self, job: Job, state: str, result: Any, error: str | None) -> None:
        job.state = job.state if job.state == "stopped" else state
        job.result, job.error, job.ended_at = result, error, datetime.now(UTC)

    async def _follow(self, job: Job, stream: asyncio.StreamReader) -> str:
        """Take progress from the command's standard error. Returns the last of what else it says."""
        said = ""
        while line := await _line(stream):
            with suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict) and "done" in message:
                    job.progress = message
                    continue
            said = (said + line.decode(errors="replace"))[-10_000:]
        return said.strip().removeprefix("error: ")

    def _forget(self) -> None:
        ended = [job_id for job_id, job in self._jobs.items() if job.state != "running"]
        for job_id in ended[: max(0, len(self._jobs) - _KEPT)]:
            del self._jobs[job_id]


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of one that is too long. Empty at the end."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError:
        return await stream.read(60_000)


async def _read(stream: asyncio.StreamReader) -> bytes:
    """What is printed, up to `_MOST_BYTES`; the rest is read and dropped, so that the command is not held up."""
    kept = bytearray()
    while piece := await stream.read(65_536):
        kept += piece[: max(0, _MOST_BYTES - len(kept))]
    return bytes(kept)


def _result(printed: bytes) -> Any:
    """The JSON that the command printed: one value, or a value a line."""
    try:
        return json.loads(printed or b"null")
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in printed.splitlines() if line.strip()]
    except ValueError:
        return printed[-10_000:].decode(errors="replace")
