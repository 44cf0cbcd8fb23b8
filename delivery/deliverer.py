"""Delivers the messages of a queue: one thread and one sending process per channel, so that a channel that hangs holds
up no other, and none holds up whoever enqueues.

After a failure the whole channel rests, longer each time (`rest_s`), or as long as its destination asks. So a
destination that is gone costs one attempt now and then, however many messages wait.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from coupon_ledger.delivery.channels import Channel
from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.messages import AlertMessage
from coupon_ledger.delivery.outcome import Outcome
from coupon_ledger.delivery.queue import DEAD_AFTER, ChannelState, Claimed, MessageQueue
from coupon_ledger.delivery.rendering import render
from coupon_ledger.delivery.sending import SendingProcess
from coupon_ledger.ledger.errors import QueueUnusable

FIRST_REST_S: Final = 2.0
LONGEST_REST_S: Final = 600.0
IDLE_S: Final = 60.0
"""A sending process without work for so long is ended. Also how often a thread looks whether the clock was changed."""
_HOUSEKEEPING_S: Final = 600.0

_LOG: Final = logging.getLogger(__name__)

OnChannel = Callable[[ChannelState], None]


def rest_s(failures: int, draw: Callable[[], float] = random.random) -> float:
    """How long a channel rests after so many failures in a row (1 at first): twice as long each time, up to
    `LONGEST_REST_S`. Up to half of it is drawn by lot, so that channels of one service do not return together."""
    longest = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(failures - 1, 30))
    return longest * (0.5 + draw() / 2)


def job_of(channel: Channel, message: AlertMessage, delivered: tuple[str, ...] = ()) -> Job:
    """What the sending process is given for a message."""
    return Job(
        kind=channel.kind.name,
        address=channel.address(),
        secret=channel.secret.get_secret_value() if channel.secret else "",
        timeout_s=channel.timeout,
        key=message.key,
        text=render(message, channel),
        delivered=delivered,
    )


def send_test(channel: Channel, *, now: datetime | None = None) -> Outcome:
    """Send a test message at once, without the queue. Returns what became of it, without secrets."""
    at = (now or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)
    message = AlertMessage(
        key=f"test/{channel.name}/{at:%Y%m%dT%H%M%S%f}",
        alert_id=f"test-{channel.name}",
        rule=channel.name,
        severity="info",
        kind="test",
        summary={"en": "This is a test. Alerts reach this channel.", "zh": "这是一条测试消息。告警能够送达此通道。"},
        since=at,
    )
    process = SendingProcess()
    try:
        outcome = process.send(job_of(channel, message))
    finally:
        process.close()
    reason, answer = channel.mask(outcome.reason), channel.mask(outcome.answer)
    return Outcome(outcome.result, reason, outcome.retry_after_s, answer=answer)


class Deliverer:
    """Delivers what is in `queue` to `channels`.

    `on_dead`: called once when a channel has failed `DEAD_AFTER` times in a row, `on_alive` when it works again, with
    its last failure; both in the channel's thread. They may be called again after a crash. `rest`: the seconds that a
    channel rests after so many failures in a row. Raises `QueueUnusable` if another process delivers from this queue.
    """

    def __init__(
        self,
        queue: MessageQueue,
        channels: Mapping[str, Channel],
        *,
        on_dead: OnChannel = lambda _: None,
        on_alive: OnChannel = lambda _: None,
        rest: Callable[[int], float] = rest_s,
    ) -> None:
        self._queue = queue
        self.on_dead, self.on_alive, self.rest = on_dead, on_alive, rest
        self._workers: dict[str, _Worker] = {}
        self._held = _alone(queue.path)
        queue.recover(now=time.time())
        self.use(channels)

    def use(self, channels: Mapping[str, Channel]) -> None:
        """From now on, deliver to these channels. What waits for others stays in the queue until it is too old. A
        channel that has changed is tried at once, however long it was to rest."""
        for name, worker in list(self._workers.items()):
            if worker.channel != channels.get(name):
                worker.stop()
                del self._workers[name]
                self._queue.try_again(name)
        for name, channel in channels.items():
            if name not in self._workers:
                self._workers[name] = _Worker(self, self._queue, channel)

    def wake(self) -> None:
        """Look into the queue now: something was enqueued. Never waits."""
        for worker in self._workers.values():
            worker.wake()

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop delivering. Attempts that are under way may end within `timeout_s`; later ones are broken off, and made
        again after the next start."""
        deadline = time.monotonic() + timeout_s
        for worker in self._workers.values():
            worker.ask_to_stop()
        for worker in self._workers.values():
            worker.stop(max(0.0, deadline - time.monotonic()))
        self._workers.clear()
        os.close(self._held)


def _alone(path: Path) -> int:
    """Lock the queue for the delivering process. The lock ends with the process, however that ends."""
    lock = path.with_name(path.name + ".lock")
    try:
        held = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise QueueUnusable(f"queue of messages {path}: {error}; check the permissions of its folder") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise QueueUnusable(f"queue of messages {path}: another process delivers from it; end that process") from error
    return held


class _Worker:
    """The thread of one channel."""

    def __init__(self, deliverer: Deliverer, queue: MessageQueue, channel: Channel) -> None:
        self.channel = channel
        self._deliverer, self._queue = deliverer, queue
        self._process = SendingProcess()
        self._attempts = deque(queue.attempts_since(channel.name, time.time() - 60.0))
        self._kept_at = 0.0
        self._woken = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"delivery {channel.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def ask_to_stop(self) -> None:
        self._stopped = True
        self._woken.set()

    def stop(self, timeout_s: float = 0.0) -> None:
        self.ask_to_stop()
        self._thread.join(timeout_s)
        self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped:
            self._woken.clear()
            try:
                wait = self._step()
            except QueueUnusable as error:
                _LOG.error("%s", error)
                wait = IDLE_S
            except Exception:
                _LOG.exception("channel %s: an error of the program; trying again", self.channel.name)
                wait = IDLE_S
            if wait > 0 and not self._woken.wait(min(wait, IDLE_S)) and wait >= IDLE_S:
                self._process.close()
        self._process.close()

    def _step(self) -> float:
        """Send the next message if one may be sent now. Returns the seconds to wait before the next step."""
        now = time.time()
        if now - self._kept_at > _HOUSEKEEPING_S:
            self._kept_at = now
            self._queue.give_up_old(now=now)
        pause = max(self._queue.channel(self.channel.name).rests_until - now, self._until_rate_allows(now))
        if pause > 0:
            return pause
        claimed = self._queue.claim(self.channel.name, now=now)
        if claimed is None:
            due = self._queue.next_due(self.channel.name)
            return IDLE_S if due is None else max(0.05, due - now)
        quiet = self.channel.quiet_until(datetime.fromtimestamp(now, UTC), claimed.message.severity)
        if quiet is not None:
            self._queue.hold(claimed, max(quiet.timestamp(), now + 1.0))
            return 0.0
        self._attempts.append(now)
        self._settle(claimed, self._attempt(claimed))
        return 0.0

    def _until_rate_allows(self, now: float) -> float:
        """The seconds until one more message keeps within the channel's limit a minute."""
        while self._attempts and not now - 60.0 < self._attempts[0] <= now:
            self._attempts.popleft()
        allowed = self.channel.rate
        return 0.0 if len(self._attempts) < allowed else self._attempts[-allowed] + 60.0 - now

    def _attempt(self, claimed: Claimed) -> Outcome:
        try:
            job = job_of(self.channel, claimed.message, claimed.delivered)
        except Exception as error:  # a message that cannot be written must not hold up the others
            _LOG.exception("message %s: cannot be written", claimed.message.key)
            return Outcome("refused", f"the message cannot be written: {type(error).__name__}")
        return self._process.send(job)

    def _settle(self, claimed: Claimed, outcome: Outcome) -> None:
        now, name = time.time(), self.channel.name
        if self._stopped and outcome.result != "sent":
            self._queue.hold(claimed, now)  # broken off: no fault of the channel
            return
        reason = self.channel.mask(outcome.reason)[:500]
        outcome = Outcome(outcome.result, reason, outcome.retry_after_s, outcome.delivered)
        before = self._queue.channel(name)
        if outcome.result == "failed":
            rest = max(self._deliverer.rest(before.failures + 1), outcome.retry_after_s or 0.0)
            self._queue.settle(claimed, outcome, now=now, again=now + rest)
            self._failed(self._queue.failed(name, reason, now=now, rests_until=now + rest))
            return
        again = now + self._deliverer.rest(claimed.attempt)
        state = self._queue.settle(claimed, outcome, now=now, again=again)
        if state == "given_up":
            _LOG.error("channel %s: message %s given up: %s", name, claimed.message.key, reason)
        # A destination that refuses one message has answered: it is alive.
        if before.dead and not self._call(self._deliverer.on_alive, before):
            return
        if before.failures:
            self._queue.succeeded(name)

    def _failed(self, channel: ChannelState) -> None:
        _LOG.warning("channel %s: %s (failure %d in a row)", channel.name, channel.error, channel.failures)
        if channel.failures >= DEAD_AFTER and not channel.dead and self._call(self._deliverer.on_dead, channel):
            self._queue.reported_dead(channel.name)

    def _call(self, callback: OnChannel, channel: ChannelState) -> bool:
        """Whether the callback took it. If not, it is called again after the next attempt."""
        try:
            callback(channel)
        except Exception:
            _LOG.exception("channel %s: its state could not be reported", channel.name)
            return False
        return True
