"""The queue of messages survives: restarts, kills at any moment, a second process, a file that is damaged."""

from __future__ import annotations

import json
import random
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from coupon_ledger.delivery.deliverer import LONGEST_REST_S, rest_s
from coupon_ledger.delivery.outcome import MOST_WAIT_S, Outcome, retry_after
from coupon_ledger.delivery.queue import GIVEN_UP_AFTER_S, REMEMBERED_S, MessageQueue
from coupon_ledger.ledger.errors import QueueUnusable
from tests.loopback import Answer, Http, serving, until
from tests.test_delivery import message

SEED: Final = 20261111


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[MessageQueue]:
    with closing(MessageQueue(tmp_path / "messages.db")) as opened:
        yield opened


def test_a_message_is_enqueued_once_per_channel_and_key(queue: MessageQueue) -> None:
    """Else whoever repeats a batch after a crash sends every message again."""
    assert queue.enqueue(message("k"), ["a", "b"]) == 2
    assert queue.enqueue(message("k"), ["a", "b", "c"]) == 1
    claimed = queue.claim("a", now=time.time())
    assert claimed is not None
    assert queue.settle(claimed, Outcome("sent"), now=time.time(), again=0) == "sent"
    assert queue.enqueue(message("k"), ["a"]) == 0


def test_what_was_being_sent_is_sent_again_after_a_restart(queue: MessageQueue) -> None:
    """Else a crash between sending and noting it loses the message."""
    queue.enqueue(message("k"), ["a"])
    first = queue.claim("a", now=time.time())
    assert first is not None and queue.claim("a", now=time.time()) is None
    queue.recover(now=time.time())
    again = queue.claim("a", now=time.time())
    assert again is not None and (again.message, again.attempt) == (first.message, 2)


def test_old_messages_are_given_up_and_settled_ones_forgotten(queue: MessageQueue) -> None:
    """Else the file grows for ever, and a channel that returns after a week sends a week of alerts."""
    now = time.time()
    queue.enqueue(message("old"), ["a"], now=now - GIVEN_UP_AFTER_S - 1)
    queue.enqueue(message("new"), ["a"], now=now)
    assert queue.give_up_old(now=now) == 1
    assert (queue.state_of("old", "a"), queue.state_of("new", "a")) == ("given_up", "waiting")
    queue.recover(now=now + REMEMBERED_S + 1)
    assert (queue.state_of("old", "a"), queue.state_of("new", "a")) == (None, "waiting")


def test_the_file_is_for_its_owner_and_forgets_what_was_sent(queue: MessageQueue) -> None:
    """Else others on the machine read who was alerted about whom."""
    assert stat.S_IMODE(queue.path.stat().st_mode) == 0o600
    queue.enqueue(message("k"), ["a"])
    claimed = queue.claim("a", now=time.time())
    assert claimed is not None
    queue.settle(claimed, Outcome("sent"), now=time.time(), again=0)
    with queue._reading() as connection:
        assert connection.execute("SELECT body FROM messages").fetchall() == [(None,)]


def test_a_file_that_is_no_queue_is_said(tmp_path: Path) -> None:
    """Else the owner ends with a traceback."""
    (tmp_path / "messages.db").write_bytes(b"not a database" * 100)
    with pytest.raises(QueueUnusable, match=r"queue of messages .*messages\.db: file is not a database; check"):
        MessageQueue(tmp_path / "messages.db")
    with pytest.raises(QueueUnusable, match="No such file"):
        MessageQueue(tmp_path / "nowhere" / "messages.db")


def test_rests_double_up_to_a_limit_with_a_part_by_lot() -> None:
    """Else channels that failed together come back together, and overload what just recovered."""
    longest = [rest_s(n, lambda: 1.0) for n in range(1, 12)]
    assert longest[:4] == [2, 4, 8, 16] and longest[-1] == LONGEST_REST_S == rest_s(10_000, lambda: 1.0)
    assert rest_s(3, lambda: 0.0) == 4
    draw = random.Random(SEED).random
    assert len({rest_s(5, draw) for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("-5", 0.0), ("1e9", MOST_WAIT_S), ("nan", None), ("soon", None), (None, None)],
)
def test_retry_after_in_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    now = datetime(2026, 11, 11, tzinfo=UTC)
    assert retry_after("Wed, 11 Nov 2026 00:01:30 GMT", now) == 90
    assert retry_after("Tue, 10 Nov 2026 00:01:30 GMT", now) == 0


# ── Kills ────────────────────────────────────────────────────────────────────────────────────────────────────

OWNER: Final = """
import json, sys, time
from pathlib import Path
from pydantic import SecretStr
from coupon_ledger.delivery.channels import Channel
from coupon_ledger.delivery.deliverer import Deliverer
from coupon_ledger.delivery.queue import MessageQueue
from tests.test_delivery import message

path, url, count = sys.argv[1:]
queue = MessageQueue(Path(path))
channel = Channel(name="hook", url=url, secret=SecretStr("geheim-7"), per_minute=6000, timeout=5)
deliverer = Deliverer(queue, {"hook": channel}, rest=lambda _: 0.01)
for n in range(int(count)):
    queue.enqueue(message(f"k-{n}"), ["hook"])
    print(n, flush=True)  # from here on, it may not be lost
    deliverer.wake()
while queue.channel("hook").waiting:
    time.sleep(0.01)
deliverer.close()
print("done", flush=True)
"""


def arrived_at_least(server: Http, count: int) -> bool:
    return len(server.requests) >= count


@pytest.mark.slow
@pytest.mark.vital
def test_killed_at_any_moment_no_message_is_lost(tmp_path: Path) -> None:
    """SIGKILL of the owner, again and again, while it enqueues and sends: each message that it had taken arrives, and
    those that arrive twice have the same key and body."""
    draw = random.Random(SEED)
    server = Http()
    server.then = Answer(200, wait_s=0.01)
    arguments = [sys.executable, "-c", OWNER, str(tmp_path / "messages.db")]
    count, kills = 60, 0
    with serving(server.serve, server.ending) as port:
        while True:
            command = [*arguments, f"http://127.0.0.1:{port}/", str(count)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
                assert owner.stdout is not None
                if kills < 5:
                    # After some messages have gone out, at any moment of the next.
                    enough = len(server.requests) + draw.randint(1, 6)
                    until(partial(arrived_at_least, server, enough))
                    time.sleep(draw.random() * 0.03)
                    owner.send_signal(signal.SIGKILL)
                    kills += 1
                said = owner.stdout.read()
            if said.endswith("done\n"):
                break
    assert kills == 5
    arrived = Counter(json.loads(request.body)["key"] for request in server.requests)
    assert set(arrived) == {f"k-{n}" for n in range(count)}
    assert sum(arrived.values()) <= count + kills, "only what was under way is sent again"
    bodies: dict[str, set[bytes]] = {}
    for request in server.requests:
        bodies.setdefault(request.headers["webhook-id"], set()).add(request.body)
    assert all(len(same) == 1 for same in bodies.values())
