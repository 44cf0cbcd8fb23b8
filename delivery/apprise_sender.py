"""Sends a message with the library apprise, and finds out what became of it.

Apprise reports success or failure and nothing more; for some services it takes any answer with status 200 for success,
although they answer errors in this way too. So the answers that its plugins get are recorded here and judged by
whoever knows the service.

Runs only in the process that sends (`process.py`): the recording is a change to `requests` that other users of that
library must not see.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import apprise
import requests

from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import SENT, Judge, Outcome, Response, by_status

SHORT_BELOW: Final = 500
"""A service whose messages have fewer characters (SMS) gets the short text."""
_TYPES: Final = {"critical": "failure", "high": "failure", "warning": "warning", "info": "info"}

# Apprise loads its plugins at the first address, which takes seconds: now, not in the time of the first message.
apprise.Apprise.instantiate("json://localhost")


def send(job: Job, judge: Judge = by_status, *, markdown: bool = False) -> Outcome:
    """Send the message to the job's address. `judge`: says of each answer of the service what it means. `markdown`:
    whether the service shows Markdown."""
    service = instantiate(job)
    if service is None:
        return Outcome("failed", "apprise does not know an address of this shape; compare it with its documentation")
    short = 0 < service.body_maxlen < SHORT_BELOW
    title, body = ("", job.text.short) if short else (job.text.title, job.text.markdown if markdown else job.text.text)
    answers: list[Response | Exception] = []
    with _recorded(answers), _warnings() as warnings:
        sender = apprise.Apprise(asset=service.asset)
        sender.add(service)
        accepted = bool(
            sender.notify(
                body=body,
                title=title,
                notify_type=_TYPES.get(job.text.severity, "info") if job.text.firing else "success",
                body_format="markdown" if markdown and not short else "text",
            )
        )
    return _judged(accepted, answers, judge, warnings)


def instantiate(job: Job) -> Any:
    """Apprise's object for the job's address; None if apprise does not know such an address."""
    asset = apprise.AppriseAsset(
        app_id="coupon-ledger", app_desc="coupon-ledger", secure_logging=True, storage_mode="memory", service_timeout=0
    )
    service = apprise.Apprise.instantiate(job.address, asset=asset, suppress_exceptions=True)
    if service is not None:
        service.retry = 0  # the queue retries
        service.socket_connect_timeout = service.socket_read_timeout = job.timeout_s
    return service


def _judged(accepted: bool, answers: list[Response | Exception], judge: Judge, warnings: list[str]) -> Outcome:
    outcomes = [judge(a) if isinstance(a, Response) else Outcome("failed", f"{type(a).__name__}: {a}") for a in answers]
    bad = [outcome for outcome in outcomes if outcome.result != "sent"]
    if bad:
        return bad[0]
    if not accepted:
        return Outcome("failed", warnings[-1] if warnings else "apprise could not send it")
    return outcomes[-1] if outcomes else SENT


@contextmanager
def _recorded(answers: list[Response | Exception]) -> Iterator[None]:
    """Within the block, what HTTP requests of this process were answered is appended to `answers`."""
    original = requests.Session.send

    def recording(session: Any, request: Any, **options: Any) -> Any:
        try:
            answer = original(session, request, **options)
        except Exception as error:
            answers.append(error)
            raise
        headers = {name.lower(): value for name, value in answer.headers.items()}
        answers.append(Response(answer.status_code, (answer.content or b"")[:65_536], headers))
        return answer

    requests.Session.send = recording  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        requests.Session.send = original  # type: ignore[method-assign]


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Within the block, the warnings of apprise are collected."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("apprise")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
