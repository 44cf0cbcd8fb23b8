"""Who is told of which alert, when, and why not.

`route` is pure. It reads what was told before from the states of the alerts. Always true: every alert that stands is in
a message, or has a reason why it is in none.

The reasons, in the order in which they are looked for: the alert fired too long ago (`catch_up`), it is `silenced`,
`inhibited`, `acknowledged` or `flapping`, or its severity is not told during `quiet_hours`; it was told and need not be
repeated yet (`not_due`); it has no channel (`no_channel`), or only dead ones (`channel_dead`); it waits for its digest
(`awaits_digest`) or for others of its group (`grouped`); its rule has sent too many messages (`flood_cap`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final, NamedTuple

from coupon_ledger.ledger.alert_events import hash_of
from coupon_ledger.ledger.alert_inhibition import Inhibition
from coupon_ledger.ledger.alert_silences import SilenceState, silenced_by
from coupon_ledger.ledger.alert_state import Alert, Telling, rank
from coupon_ledger.ledger.plain import instant

KINDS: Final = ("firing", "repeat", "resolved", "digest", "escalation", "flapping")
REASONS: Final = (
    *("catch_up", "silenced", "inhibited", "acknowledged", "flapping", "quiet_hours", "not_due"),
    *("no_channel", "channel_dead", "awaits_digest", "grouped", "flood_cap"),
)
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """The hours of a day in which alerts of these severities are not told. `end` before `start`: over midnight."""

    start: time
    end: time
    zone: tzinfo = UTC
    severities: frozenset[str] = frozenset({"info", "warning"})

    def hold(self, severity: str, now: datetime) -> bool:
        at = now.astimezone(self.zone).time()
        within = self.start <= at < self.end if self.start <= self.end else at >= self.start or at < self.end
        return within and severity in self.severities


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a rule says about messages. `channels`: None: those of the policy. `escalate_to`: empty: the same channels.
    `inhibited_by`: rules whose standing alerts hold back these, if all labels that both alerts have are equal.
    `group_by`: labels whose values alerts of one message share; None: those of the policy."""

    channels: tuple[str, ...] | None = None
    escalate_to: tuple[str, ...] = ()
    inhibited_by: tuple[str, ...] = ()
    group_by: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How messages are sent. `routes`: by the name of the rule.

    `group_wait`: how long a group waits for more alerts before its first message. `group_interval`: the shortest time
    between two messages about a group. `repeat_interval`: after which an alert that stands is told again. `flood_cap`:
    how many messages a rule may send within an hour; the others go into one digest. `digest_severities`: alerts that
    are told in digests only, every `digest_interval`. `resolved_within`: how long after its end an alert is told to be
    over; 0: never. `mark`: alerts that fired before it, by the data's clock, are not told, since they are of the past.
    """

    routes: Mapping[str, Route] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()
    group_wait: timedelta = timedelta(seconds=10)
    group_interval: timedelta = timedelta(minutes=5)
    repeat_interval: timedelta = timedelta(hours=4)
    flood_cap: int = 20
    digest_severities: frozenset[str] = frozenset({"info"})
    digest_interval: timedelta = _HOUR
    resolved_within: timedelta = timedelta(days=1)
    quiet_hours: QuietHours | None = None
    mark: datetime | None = None

    def route_of(self, alert: Alert) -> Route:
        return self.routes.get(alert.rule, _NO_ROUTE)


_NO_ROUTE: Final = Route()


@dataclass(frozen=True, slots=True)
class Message:
    """A message to be sent to every one of `channels`. `message_id`: the idempotency key; the same message gets the
    same one when it is made again. `rule`: None if it is about alerts of several. `at`: when it was made."""

    message_id: str
    kind: str
    group: str
    channels: tuple[str, ...]
    alert_ids: tuple[str, ...]
    severity: str
    rule: str | None
    at: datetime


class Held(NamedTuple):
    """An alert that is held back. `cause`: as in `NotDelivered`."""

    alert_id: str
    reason: str
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """`messages`: to be put in the queue. `held`: to be recorded with `NotDelivered`."""

    messages: tuple[Message, ...]
    held: tuple[Held, ...]


def route(
    alerts: Iterable[Alert],
    silences: Collection[SilenceState],
    policy: Policy,
    now: datetime,
    *,
    clock: datetime | None = None,
    dead: Collection[str] = (),
    waiting: Sequence[Message] = (),
) -> Routing:
    """What is to be sent now, and why the rest is not.

    `alerts`: those of `AlertBook.to_route`. `clock`: the data's clock; once it has reached the policy's mark, alerts of
    the past that still stand are told in one digest. `dead`: channels that cannot be used. `waiting`: messages that are
    in the queue; they count as sent.
    """
    known = [_with_waiting(alert, waiting) for alert in sorted(alerts, key=lambda alert: alert.alert_id)]
    return _Round(known, silences, policy, now, clock, frozenset(dead)).routing()


def _with_waiting(alert: Alert, waiting: Sequence[Message]) -> Alert:
    told = {telling.message_id for telling in alert.told}
    more = [
        Telling(m.message_id, m.kind, m.at, alert.severity, m.group, m.channels)
        for m in waiting
        if alert.alert_id in m.alert_ids and m.message_id not in told
    ]
    return replace(alert, told=(*alert.told, *more)) if more else alert


class _Bundle(NamedTuple):
    """What alerts must have in common to be in one message. `channels`: the dead ones too."""

    kind: str
    group: str
    channels: tuple[str, ...]
    rule: str | None


class _Round:
    """One call of `route`."""

    def __init__(
        self,
        alerts: list[Alert],
        silences: Collection[SilenceState],
        policy: Policy,
        now: datetime,
        clock: datetime | None,
        dead: frozenset[str],
    ) -> None:
        self.alerts, self.silences, self.policy, self.now, self.clock, self.dead = (
            alerts, silences, policy, now, clock, dead
        )  # fmt: skip
        self.inhibition = Inhibition(
            [a for a in alerts if a.stands], {name: r.inhibited_by for name, r in policy.routes.items()}
        )
        self.last: dict[str, datetime] = {}
        self.lately: dict[str, set[str]] = {}
        for alert in alerts:
            for telling in alert.told:
                self.last[telling.group] = max(telling.at, self.last.get(telling.group, telling.at))
                if now - telling.at < _HOUR and telling.kind not in ("digest", "escalation"):
                    self.lately.setdefault(alert.rule, set()).add(telling.message_id)
        self.told_groups = {group.partition("@")[0] for group in self.last}
        self.held: list[Held] = []

    def routing(self) -> Routing:
        bundles: dict[_Bundle, list[Alert]] = {}
        for alert in self.alerts:
            if alert.stands or self.end_is_to_be_told(alert):
                bundle = self.bundle_of(alert)
                if bundle is not None:
                    bundles.setdefault(bundle, []).append(alert)
        ready = {b: members for b, members in bundles.items() if self.is_ready(b, members)}
        messages = [self.message(b, members) for b, members in self.capped(ready).items()]
        return Routing(tuple(messages), tuple(self.held))

    def end_is_to_be_told(self, alert: Alert) -> bool:
        if alert.resolved_at is None or not alert.told or alert.severity in self.policy.digest_severities:
            return False
        told_since = any(telling.at >= alert.resolved_at for telling in alert.told)
        return not told_since and self.now - alert.resolved_at < self.policy.resolved_within

    def bundle_of(self, alert: Alert) -> _Bundle | None:
        """The message in which the alert belongs; None if it is held back."""
        reason, cause = self.reason(alert)
        kind, group = self.kind_of(alert)
        channels = self.channels_of(alert, kind)
        if reason is None and kind == "not_due":
            reason = kind
        elif reason is None and not channels:
            reason = "no_channel"
        elif reason is None and self.dead.issuperset(channels):
            reason, cause = "channel_dead", channels[0]
        if reason is not None:
            self.hold(alert, reason, cause)
            return None
        return _Bundle(kind, f"{group}@{','.join(channels)}", channels, None if kind == "digest" else alert.rule)

    def channels_of(self, alert: Alert, kind: str) -> tuple[str, ...]:
        route = self.policy.route_of(alert)
        channels = self.policy.channels if route.channels is None else route.channels
        return tuple(dict.fromkeys((route.escalate_to or channels) if kind == "escalation" else channels))

    def hold(self, alert: Alert, reason: str, cause: str | None = None) -> None:
        self.held.append(Held(alert.alert_id, reason, cause))

    def reason(self, alert: Alert) -> tuple[str | None, str | None]:
        """Why nothing at all is told of the alert at the moment, and what holds it back."""
        if self.is_of_the_past(alert) and not self.has_caught_up():
            return "catch_up", None
        if silence := silenced_by(alert, self.silences, self.now):
            return "silenced", silence.silence_id
        if alert.stands and (source := self.inhibition.source(alert)):
            return "inhibited", source.rule
        if alert.acknowledged is not None and alert.acknowledged.holds(self.now):
            return "acknowledged", alert.acknowledged.operator
        if alert.flapping_since is not None and (not alert.stands or self.flapping_group(alert) in self.told_groups):
            return "flapping", None
        if self.policy.quiet_hours and self.policy.quiet_hours.hold(alert.severity, self.now):
            return "quiet_hours", None
        return None, None

    def is_of_the_past(self, alert: Alert) -> bool:
        mark = self.policy.mark
        return mark is not None and not alert.told and (alert.fired_at or alert.since) < mark

    def has_caught_up(self) -> bool:
        return self.policy.mark is not None and self.clock is not None and self.clock >= self.policy.mark

    def flapping_group(self, alert: Alert) -> str:
        assert alert.flapping_since is not None
        return f"flapping/{alert.fingerprint}/{instant(alert.flapping_since)}"

    def kind_of(self, alert: Alert) -> tuple[str, str]:
        """The kind of message that is due, `not_due` if none is; and the group that the message is about."""
        group = self.group_of(alert)
        if alert.resolved_at is not None:
            return "resolved", group
        if alert.flapping_since is not None:
            return "flapping", self.flapping_group(alert)
        escalated_at = alert.escalated_at
        if escalated_at and not any(t.kind == "escalation" and t.at >= escalated_at for t in alert.told):
            return "escalation", f"escalation/{alert.rule}"
        if self.is_of_the_past(alert):
            return "digest", "catch_up"
        digest = alert.severity in self.policy.digest_severities
        if not alert.told or rank(alert.severity) > max(rank(telling.severity) for telling in alert.told):
            return ("digest", "digest") if digest else ("firing", group)
        if self.now - max(telling.at for telling in alert.told) >= self.policy.repeat_interval:
            return ("digest", "digest") if digest else ("repeat", group)
        return "not_due", group

    def group_of(self, alert: Alert) -> str:
        names = self.policy.route_of(alert).group_by
        names = self.policy.group_by if names is None else names
        return "/".join((alert.rule, *(f"{name}={alert.labels.get(name, '')}" for name in names)))

    def is_ready(self, bundle: _Bundle, members: list[Alert]) -> bool:
        """Whether the message can be sent now. Its alerts are held back if not."""
        digest = bundle.kind == "digest"
        if bundle.kind == "flapping" or (digest and bundle.group.startswith("catch_up@")):
            return True
        wait = self.policy.digest_interval if digest else self.policy.group_wait
        interval = self.policy.digest_interval if digest else self.policy.group_interval
        first = min(alert.stood_at or alert.opened_at for alert in members)
        last = self.last.get(bundle.group)
        if self.now - first >= wait and (last is None or self.now - last >= interval):
            return True
        for alert in members:
            self.hold(alert, "awaits_digest" if digest else "grouped")
        return False

    def capped(self, ready: Mapping[_Bundle, list[Alert]]) -> dict[_Bundle, list[Alert]]:
        """The messages that the flood caps leave: what a rule has too many of goes into one digest an hour."""
        kept: dict[_Bundle, list[Alert]] = {}
        left = {bundle.rule: self.policy.flood_cap for bundle in ready}
        for bundle in sorted(ready, key=lambda b: (-max(rank(a.severity) for a in ready[b]), b.kind, b.group)):
            members = ready[bundle]
            if bundle.rule is None or bundle.kind == "escalation":
                kept[bundle] = members
            elif left[bundle.rule] > len(self.lately.get(bundle.rule, ())):
                left[bundle.rule] -= 1
                kept[bundle] = members
            else:
                digest = bundle._replace(kind="digest", group=f"flood/{bundle.rule}")
                last = self.last.get(digest.group)
                if last is None or self.now - last >= _HOUR:
                    kept.setdefault(digest, []).extend(members)
                else:
                    for alert in members:
                        self.hold(alert, "flood_cap", bundle.rule)
        return kept

    def message(self, bundle: _Bundle, members: list[Alert]) -> Message:
        members = sorted({alert.alert_id: alert for alert in members}.values(), key=lambda alert: alert.alert_id)
        alive = tuple(channel for channel in bundle.channels if channel not in self.dead)
        for alert in members:
            for channel in bundle.channels:
                if channel in self.dead:
                    self.hold(alert, "channel_dead", channel)
        about = [[alert.alert_id, len(alert.told)] for alert in members]
        return Message(
            message_id=hash_of("message", bundle.kind, bundle.group, about),
            kind=bundle.kind,
            group=bundle.group,
            channels=alive,
            alert_ids=tuple(alert.alert_id for alert in members),
            severity=max((alert.severity for alert in members), key=rank),
            rule=bundle.rule,
            at=self.now,
        )
