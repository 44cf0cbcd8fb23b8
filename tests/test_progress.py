"""What a consumer shows of itself while it works."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from coupon_ledger.cli.progress import _read, consuming, rate_of, time_left
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.projections.database import open_database
from tests.command_line import COMMAND, DATABASE, LOG, coupon_event, done, ndjson

_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


def in_terminal(*arguments: str, columns: int = 100) -> list[str]:
    """What the command shows on a terminal of that width, in all its states."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        [COMMAND, *arguments], stdin=follower, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm"}
    )
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 65536):
            shown += piece
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(leader)
    assert process.wait() == 0, shown
    lines = _ESCAPES.sub(b"", shown).decode().replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip()]


@pytest.mark.slow
def test_a_terminal_shows_what_waits_from_the_start(home: Path) -> None:
    """Nothing was shown until the first commit, then a rate of 31,326,934 events/s."""
    done("init")
    done("simulate", "--events", "20000", "--orders")
    lines = in_terminal("consume")
    [waiting] = {n for line in lines for n in re.findall(r" 0 of ([\d,]+) records", line)} - {"0"}
    assert f"consumed {waiting} records" in lines[-1]
    assert any("folding coupons" in line for line in lines)
    assert max(map(len, lines)) <= 100
    assert not any("-:--" in line for line in lines)


def test_rates_are_said_when_they_mean_something() -> None:
    assert rate_of(5, 0.001) is None and rate_of(0, 60.0) is None
    assert rate_of(1000, 2.0) == 500.0
    assert time_left(None, 100) == time_left(500.0, 0) == ""
    assert (_read(0, 0), _read(0, 5)) == ("nothing to read yet", "0 of 5 records")
    assert time_left(500.0, 60_000) == "0:02:00 left"


def test_redirected_output_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("coupon_ledger.cli.progress.time.monotonic", lambda: now)
    with consuming() as show:
        for second in range(60):
            now = 100.0 + second
            show("folding coupons", second * 1_000, 59_000)
        now += 600.0  # nothing comes
        show("following", 59_000, 59_000)
        now += 600.0
        show("following", 59_000, 59_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "folding coupons: 10,000 of 59,000 records, 1,000 records/s, 0:00:49 left",
        "folding coupons: 20,000 of 59,000 records, 1,000 records/s, 0:00:39 left",
    ]
    assert lines[-1] == "following: 59,000 of 59,000 records, 1,000 records/s"
    assert len(lines) == 6


@pytest.mark.long
def test_a_batch_is_shown_as_it_is_folded(home: Path) -> None:
    """A bar that stands for the seconds of a batch looks as if nothing happened."""
    done("init")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1"), coupon_event("issued", "e-2")]))
    seen: list[tuple[str, int, int]] = []
    log = open_log(LogSettings(url=f"sqlite:///{LOG}"))
    with open_database(Path(DATABASE)) as store:
        consumer = Consumer(log, store, outlet=None, batch_size=10, progress=lambda *at: seen.append(at))
        assert len(list(consumer.run())) == 1
    log.close()
    assert seen == [
        ("reading", 0, 2),
        ("folding coupons", 0, 2),
        ("applying rules", 2, 2),
        ("committing", 2, 2),
        ("reading", 2, 2),
    ]
