"""The process that sends messages for one channel: reads jobs from its standard input, one a line, and writes what
became of each to its standard output.

It is a process of its own so that a server that answers a byte a minute, or a library that hangs, can be ended
(`sending.py`), and so that the owner of the database does not load these libraries. It ends when its input does, which
happens also if the owner is killed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.kinds import KINDS
from coupon_ledger.delivery.outcome import Outcome
from coupon_ledger.ledger.extras import is_missing, missing


def main(kind: str) -> None:
    """Send for destinations of this kind. Writes an empty line as soon as the libraries are loaded."""
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    send = _sender(kind)
    answers.write("\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(asdict(_outcome(send, line))) + "\n")
        answers.flush()


def _sender(kind: str) -> Callable[[Job], Outcome]:
    try:
        send: Callable[[Job], Outcome] = importlib.import_module(f"{__package__}.{KINDS[kind].module}").send
    except ModuleNotFoundError as error:
        if not is_missing(error):
            raise
        reason = str(missing(error.name or "", f"messages of kind {kind}"))
        return lambda _: Outcome("failed", reason)
    return send


def _outcome(send: Callable[[Job], Outcome], line: str) -> Outcome:
    try:
        return send(Job.from_json(json.loads(line)))
    except Exception as error:  # whatever a library raises: the message is tried again
        return Outcome("failed", f"{type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    main(sys.argv[1])
