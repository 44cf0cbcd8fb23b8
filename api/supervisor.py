"""Runs the parts of the product as processes of their own, and starts a part again that has ended.

- A part that fails is started again after a pause, which doubles with each failure up to `SLOWEST_S`, and is short
  again once the part has run for `STEADY_S`. A part that refuses its own settings (exit code 2) is not started again:
  that would fail in the same way, so all parts stop.
- On SIGTERM or Ctrl-C, all parts get SIGTERM. What has not ended after `LEAVE_S` is killed.
- If the supervisor itself is killed, its parts end too (Linux).
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

QUICKEST_S: Final = 0.5
SLOWEST_S: Final = 30.0
STEADY_S: Final = 60.0
LEAVE_S: Final = 30.0
_LOOK_S: Final = 0.1
_WRONG_SETTINGS: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_logger = logging.getLogger("coupon_ledger.run")


@dataclass
class Part:
    """One process. `command`: what starts it. `pass_fds`: file descriptors that it inherits. `restarts`: how often it
    was started again."""

    name: str
    command: Sequence[str]
    pass_fds: Sequence[int] = ()
    environment: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    _pause_s: float = field(default=QUICKEST_S, repr=False)
    _started_at: float = field(default=0.0, repr=False)
    _again_at: float = field(default=0.0, repr=False)


class Supervisor:
    """`run` may be called once; `stop` from a signal handler or another thread."""

    def __init__(self, parts: Sequence[Part], leave_s: float = LEAVE_S) -> None:
        self._parts = parts
        self._leave_s = leave_s
        self._stopping = threading.Event()
        self._exit_code = 0

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> int:
        """Run all parts until `stop` is called, or a part refuses its settings. Returns the exit code."""
        try:
            for part in self._parts:
                self._start(part)
            while not self._stopping.is_set():
                self._stopping.wait(_LOOK_S)
                for part in self._parts:
                    self._look_after(part)
        finally:
            self._end()
        return self._exit_code

    def _start(self, part: Part) -> None:
        part.process = subprocess.Popen(
            part.command,
            pass_fds=part.pass_fds,
            env=part.environment,
            stdin=subprocess.DEVNULL,
            preexec_fn=_end_with_parent(),  # noqa: PLW1509 - this process has one thread
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the parts in order
        )
        part._started_at = time.monotonic()
        _logger.info("%s: started", part.name, extra={"part": part.name, "pid": part.process.pid})

    def _look_after(self, part: Part) -> None:
        now = time.monotonic()
        if part.process is None:
            if now >= part._again_at and not self._stopping.is_set():
                part.restarts += 1
                self._start(part)
            return
        code = part.process.poll()
        if code is None or self._stopping.is_set():
            return
        part.process = None
        if code == _WRONG_SETTINGS:
            _logger.error("%s: refuses to start; see above", part.name, extra={"part": part.name})
            self._exit_code = code
            self._stopping.set()
            return
        if now - part._started_at > STEADY_S:
            part._pause_s = QUICKEST_S
        part._again_at = now + part._pause_s
        _logger.warning(
            "%s: ended (%s); starting it again in %.1f s",
            part.name,
            _said(code),
            part._pause_s,
            extra={"part": part.name, "exit_code": code, "again_in_s": part._pause_s},
        )
        part._pause_s = min(2 * part._pause_s, SLOWEST_S)

    def _end(self) -> None:
        """Stop the parts in reverse order of their start: callers before the processes that answer them."""
        for part in reversed(self._parts):
            if part.process is None:
                continue
            part.process.terminate()
            try:
                part.process.wait(self._leave_s)
            except subprocess.TimeoutExpired:
                _logger.warning("%s: did not end within %.0f s, so it is killed", part.name, self._leave_s)
                part.process.kill()
                part.process.wait()


def _said(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _end_with_parent() -> Callable[[], None] | None:
    """What a new process runs first, so that it gets SIGTERM when the supervisor dies. Only Linux has this."""
    if sys.platform != "linux":
        return None
    prctl, supervisor = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died before this process could ask to hear of it
            os._exit(1)

    return end_with_parent
