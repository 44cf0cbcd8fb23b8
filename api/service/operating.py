"""Routes for operators: how the ledger is, and verifying, rebuilding, backing up, repairing and sweeping it.

Long work is a job: the answer is 202 with its address, where its state, progress and result are read.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from coupon_ledger.api.client import Remote
from coupon_ledger.api.service.auditing import Audit
from coupon_ledger.api.service.callers import allowed
from coupon_ledger.api.service.jobs import Jobs
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.requests import Body, Name, Why, answer, aware, described, taken
from coupon_ledger.consumers.log_identity import difference, of_source, open_log_of
from coupon_ledger.consumers.status import status_of
from coupon_ledger.ledger.errors import masked
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.projections.ownership import owner
from coupon_ledger.projections.versions import VERSIONS

_File = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Verify(Body):
    only: Annotated[list[Name], Field(description="Only these checks.")] = Field(default_factory=list)
    deep: Annotated[bool, Field(description="Also fold coupons with the reference fold, and compare.")] = False
    sample: Annotated[int | None, Field(ge=1, description="With deep: about how many coupons.")] = None
    without_log: bool = False


class Rebuild(Body):
    compare_only: Annotated[bool, Field(description="Build and compare, but do not swap.")] = False
    projections: Annotated[list[Name], Field(description="Rebuild only these, and copy the others.")] = Field(
        default_factory=list
    )
    anew: Annotated[bool, Field(description="Discard what an interrupted rebuild has built.")] = False
    accept_differences: Annotated[Why | None, Field(description="Why tables may differ.")] = None
    why: Why | None = None


class Rollback(Body):
    why: Why


class Backup(Body):
    name: Annotated[_File, Field(description="Name of the file, in the folder `backups` beside the database.")]
    verify: Annotated[bool, Field(description="Also compare the full digest of all tables.")] = False


class Letters(Body):
    """Which dead letters."""

    topic: Name | None = None
    partition: Annotated[int | None, Field(ge=0)] = None
    offset: Annotated[int | None, Field(ge=0)] = None
    reason: Name | None = None
    since: datetime | None = None
    until: datetime | None = None
    dry_run: Annotated[bool, Field(description="Only say what would happen.")] = False
    why: Why


class Sweep(Body):
    until: Annotated[datetime | None, Field(description="[default: the data's clock]")] = None
    dry_run: bool = False


def routes(link: OwnerLink, jobs: Jobs, audit: Audit, log: LogSettings) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["operations"])

    async def start(
        request: Request, model: type[Body], kind: str, command: Sequence[str], *, signed: bool
    ) -> Response:
        caller, body = await taken(request, "operate", model)
        values = body.model_dump(exclude_none=True)
        if isinstance(body, Backup):
            command = [*command, str(_backup_file(link.database, values.pop("name")))]
        by = [f"--operator={caller.name}"] if signed else []
        job = jobs.start(kind, caller.name, [*command, *_options(values), *by, "--output=json"])
        audit.note("job_started", caller.name, kind, {"job": job.id, **body.model_dump(mode="json", exclude_none=True)})
        return answer(job.as_row(), 202, {"Location": f"/v1/jobs/{job.id}"})

    @router.get("/ops/status", **described(None, None, _STATUS, refusals=(401, 403, 503)))
    async def status(request: Request) -> Response:
        """How far the database is behind the log, what needs attention, and what disk and memory are left."""
        allowed(request, "operate")
        known = await link.run(lambda remote: _status(remote, link.database, log))
        return answer({**known, **await asyncio.to_thread(_machine, link.database)})

    @router.post("/ops/verify", **_job(Verify, {"deep": True}))
    async def verify(request: Request) -> Response:
        """Check that the tables are what the log gives."""
        return await start(request, Verify, "verify", ["verify"], signed=False)

    @router.post("/ops/rebuild", **_job(Rebuild, {"why": "faster disks"}))
    async def rebuild(request: Request) -> Response:
        """Build a new database from the log, compare it with the live one, and swap them if all tables are equal."""
        return await start(request, Rebuild, "rebuild", ["rebuild"], signed=True)

    @router.post("/ops/rollback", **_job(Rollback, {"why": "release 1.4 counted gifts twice"}))
    async def rollback(request: Request) -> Response:
        """Bring back the database before the last rebuild."""
        return await start(request, Rollback, "rebuild", ["rebuild", "--rollback"], signed=True)

    @router.post("/ops/backup", **_job(Backup, {"name": "monday.duckdb"}))
    async def backup(request: Request) -> Response:
        """Copy the database into a file, as of one commit. An existing backup is not replaced."""
        return await start(request, Backup, "backup", ["backup"], signed=False)

    @router.post("/ops/dead-letters/replay", **_job(Letters, {"reason": "unknown_schema", "why": "schema v2 is there"}))
    async def replay(request: Request) -> Response:
        """Decode dead letters again, and fold those that can be folded by now."""
        return await start(request, Letters, "repair", ["dead-letters", "replay"], signed=True)

    @router.post("/ops/dead-letters/discard", **_job(Letters, {"reason": "undecodable", "why": "a load test"}))
    async def discard(request: Request) -> Response:
        """Close dead letters that need no further attention."""
        return await start(request, Letters, "repair", ["dead-letters", "discard"], signed=True)

    @router.post("/ops/sweep", **_job(Sweep, {"dry_run": True}))
    async def sweep(request: Request) -> Response:
        """Expire coupons and release holds that are due."""
        return await start(request, Sweep, "sweep", ["expire"], signed=False)

    @router.get("/jobs", **described(None, None, {"jobs": [_JOB]}, refusals=(401, 403)))
    async def list_jobs(request: Request) -> Response:
        """The jobs since the service started."""
        allowed(request, "operate")
        return answer({"jobs": [job.as_row() for job in jobs.all()]})

    @router.get("/jobs/{job}", **described(None, None, _JOB, refusals=(401, 403, 404)))
    async def job(job: str, request: Request) -> Response:
        """A job's state, progress, and result or error. Known until the service is restarted."""
        allowed(request, "operate")
        return answer(jobs.job(job).as_row())

    @router.delete("/jobs/{job}", **described(Body, {}, {**_JOB, "state": "stopped"}))
    async def stop(job: str, request: Request) -> Response:
        """Stop a job. What it has done so far stays, as if its command was interrupted."""
        caller, _ = await taken(request, "operate", Body)
        stopped = jobs.stop(job)
        audit.note("job_stopped", caller.name, stopped.kind, {"job": stopped.id})
        return answer(stopped.as_row())

    return router


def _job(model: type[Body], example: Mapping[str, Any]) -> Any:
    return described(model, example, _JOB, status=202)


_FLAG_OF: Final = {"projections": "projection"}


def _options(values: Mapping[str, Any]) -> list[str]:
    """The values as options of a command. Each is one argument, so no value can pass for another option."""
    options = []
    for name, value in values.items():
        flag = "--" + _FLAG_OF.get(name, name).replace("_", "-")
        if isinstance(value, bool):
            options += [flag] if value else []
        elif isinstance(value, list):
            options += [f"{flag}={one}" for one in value]
        else:
            options.append(f"{flag}={aware(value).isoformat() if isinstance(value, datetime) else value}")
    return options


def _backup_file(database: Path, name: str) -> Path:
    folder = database.with_name("backups")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name


def _status(remote: Remote, database: Path, settings: LogSettings) -> dict[str, Any]:
    known = of_source(remote)
    with closing(open_log_of(settings, known, database)) as log:
        status = status_of(remote.ask("summary").row(), log, difference(known, log))
    return {"log": masked(settings.url), "database": database.name, **status}


def _machine(database: Path) -> dict[str, Any]:
    disk = shutil.disk_usage(database.parent)
    announced = owner(database)
    return {
        "disk": {
            "free_bytes": disk.free,
            "total_bytes": disk.total,
            "database_bytes": database.stat().st_size if database.exists() else 0,
        },
        "memory": {"service_bytes": _resident(os.getpid()), "consumer_bytes": _resident(announced.get("pid"))},
        "versions": {
            "service": version("coupon-ledger"),
            "consumer": announced.get("release"),
            "projections": dict(VERSIONS),
        },
    }


def _resident(pid: int | None) -> int | None:
    """The resident memory of a process. None where the system does not tell."""
    try:
        matched = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(matched[1]) * 1024 if matched else None


_JOB: Final = {
    "id": "3f9a01c2d4e5f607",
    "kind": "rebuild",
    "operator": "mei",
    "state": "running",
    "began_at": "2026-11-11T12:00:00Z",
    "ended_at": None,
    "progress": {"doing": "rebuilding", "done": 40_000, "total": 100_000},
    "result": None,
    "error": None,
}
_STATUS: Final = {
    "lag": 0,
    "commits": 42,
    "dead_letters_open": 0,
    "violations": 3,
    "disk": {"free_bytes": 1, "total_bytes": 2, "database_bytes": 1},
    "memory": {"service_bytes": 1, "consumer_bytes": 2},
    "versions": {"service": "1.0", "consumer": "1.0", "projections": {"coupons": 2}},
}
