"""Who is told of alerts: the policy that the rules say, the messages that follow, and what became of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol

from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import Delivered, NotDelivered
from coupon_ledger.ledger.alert_routing import Message, Policy, Route, Routing, route
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.words import Note
from coupon_ledger.projections.alerts.rules import Health, Rule
from coupon_ledger.projections.alerts.rules_file import Loaded

OF_THE_PAST: Final = timedelta(hours=1)
"""What fired so long ago by the data's clock is of the past: the consumer is catching up, or reads an old log."""

SentState = Literal["waiting", "sent", "given_up"]


@dataclass(frozen=True, slots=True)
class Queued:
    """A message in the queue. `states`: what became of it, by channel."""

    message: Message
    states: Mapping[str, SentState]


@dataclass(frozen=True, slots=True)
class Channel:
    """How a channel fares. `waiting`, `given_up`: numbers of messages. `failures`: in a row, the first at `since`
    (aware), the last with `error`. `dead`: it does not take messages at the moment."""

    waiting: int = 0
    given_up: int = 0
    failures: int = 0
    since: datetime | None = None
    error: str = ""
    dead: bool = False


class Messages(Protocol):
    """The queue of messages and whoever delivers them. `consumers` stands below `delivery`, which implements this.

    No method waits for a channel. What `put` has taken survives the process, and is sent to each of its channels once
    or, after a crash, more often; the same message is taken once, however often it is put.
    """

    def use(self, file: Loaded) -> Sequence[Note]:
        """From now on, send to the channels of this rules file; while a part of it cannot be read, also to those of
        before. Returns what is wrong with the other channels."""
        ...

    def channels(self) -> Mapping[str, Channel]:
        """The channels that messages can be put in for, by name."""
        ...

    def put(self, messages: Sequence[Message], alerts: Mapping[str, Alert], rules: Mapping[str, Rule]) -> None:
        """Take messages about these alerts (by id) of these rules (by name)."""
        ...

    def queued(self) -> Sequence[Queued]:
        """The messages that were taken and not forgotten."""
        ...

    def forget(self, message_ids: Collection[str]) -> None:
        """What became of these messages is recorded in the log."""
        ...

    def settle(self, timeout_s: float) -> None:
        """Wait until nothing can be sent at the moment, for `timeout_s` at most."""
        ...

    def close(self) -> None: ...


class NoMessages:
    """Sends nothing: for a process without a queue."""

    def use(self, file: Loaded) -> Sequence[Note]:
        return ()

    def channels(self) -> Mapping[str, Channel]:
        return {}

    def put(self, messages: Sequence[Message], alerts: Mapping[str, Alert], rules: Mapping[str, Rule]) -> None:
        return None

    def queued(self) -> Sequence[Queued]:
        return ()

    def forget(self, message_ids: Collection[str]) -> None:
        return None

    def settle(self, timeout_s: float) -> None:
        return None

    def close(self) -> None:
        return None


@dataclass(slots=True)
class Telling:
    """Tells people of the alerts in a book. `rules`: those in force, by name."""

    messages: Messages
    rules: Mapping[str, Rule] = field(default_factory=dict)
    _given_up: set[tuple[str, str]] = field(default_factory=set)

    def outcomes(self, queued: Sequence[Queued], book: AlertBook, now: datetime) -> Iterator[Delivered | NotDelivered]:
        """What became of messages."""
        for one in queued:
            message = one.message
            about = [alert_id for alert_id in message.alert_ids if alert_id in book.alerts]
            for channel, state in one.states.items():
                if state == "sent":
                    for alert_id in about:
                        yield Delivered(alert_id=alert_id, message_id=message.message_id, channel=channel,
                                        kind=message.kind, group=message.group, now=now)  # fmt: skip
                elif state == "given_up" and (message.message_id, channel) not in self._given_up:
                    self._given_up.add((message.message_id, channel))
                    for alert_id in about:
                        yield NotDelivered(alert_id=alert_id, reason="given_up", cause=channel, now=now)

    def forget(self, queued: Sequence[Queued], book: AlertBook) -> None:
        """Forget those of these messages whose end is in the log. One that was given up counts as sent while its alerts
        are open, or it would be made again at once."""
        done = []
        for one in queued:
            states = set(one.states.values())
            open_ones = any(book.alerts[i].is_open for i in one.message.alert_ids if i in book.alerts)
            if "waiting" not in states and not ("given_up" in states and open_ones):
                done.append(one.message.message_id)
                self._given_up -= {(one.message.message_id, channel) for channel in one.states}
        if done:
            self.messages.forget(done)

    def route(
        self,
        queued: Sequence[Queued],
        book: AlertBook,
        now: datetime,
        clock: datetime | None,
        *,
        at_once: bool = False,
    ) -> Routing:
        """Put what is due into the queue. Returns the routing, with the alerts that are held back. `queued`: what is in
        the queue. `clock`: the data's. `at_once`: do not wait for further alerts of a group."""
        alerts = book.to_route(now)
        if not alerts:
            return Routing((), ())
        usable = self.messages.channels()
        named = {c for rule in self.rules.values() for c in (*rule.channels, *rule.escalate_to)}
        # A dead channel for which nothing waits gets the next message: else it is never tried again.
        unusable = {name for name, channel in usable.items() if channel.dead and channel.waiting}
        unusable |= named - usable.keys()
        routing = route(
            alerts,
            list(book.silences.values()),
            policy_of(self.rules, usable, unusable, now, at_once=at_once),
            now,
            clock=clock,
            dead=unusable,
            waiting=[one.message for one in queued],
        )
        if routing.messages:
            by_id = {i: book.alerts[i] for message in routing.messages for i in message.alert_ids}
            self.messages.put(routing.messages, by_id, self.rules)
        return routing


def policy_of(
    rules: Mapping[str, Rule], channels: Collection[str], unusable: Collection[str], now: datetime, *, at_once: bool
) -> Policy:
    """How messages about alerts of these rules are sent. A rule that names no channel uses all. Of a dead channel, the
    others hear, whatever the rule names."""
    routes = {}
    for name, rule in rules.items():
        own: tuple[str, ...] | None = rule.channels or None
        if _is_of_channels(rule) and own is not None and set(own) <= set(unusable):
            own = None
        routes[name] = Route(channels=own, escalate_to=rule.escalate_to, inhibited_by=rule.inhibited_by)
    policy = Policy(routes=routes, channels=tuple(sorted(channels)), mark=now - OF_THE_PAST)
    return replace(policy, group_wait=timedelta(0)) if at_once else policy


def _is_of_channels(rule: Rule) -> bool:
    return isinstance(rule.expr, Health) and rule.expr.of == "channel_dead"
