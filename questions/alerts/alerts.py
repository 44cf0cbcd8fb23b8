"""Questions about alerts, silences and rules."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.alert_events import AlertEvent
from coupon_ledger.ledger.alert_evidence import values_in
from coupon_ledger.ledger.alert_silences import Matcher
from coupon_ledger.ledger.alert_state import Alert, rank
from coupon_ledger.ledger.errors import CommandRefused, WrongQuestion
from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.questions.alerts import behind
from coupon_ledger.questions.alerts.cases import Cases
from coupon_ledger.questions.alerts.lives import Lives, evidence_of, lives, naive
from coupon_ledger.questions.alerts.parameters import (
    AlertFilter,
    AlertGroups,
    AlertHistory,
    AlertRules,
    Alerts,
    OneAlert,
    Silences,
)
from coupon_ledger.questions.metrics.periods import Zone

_INSTANT: Final = pl.Datetime("us")
ALERT: Final[dict[str, Any]] = {
    "alert_id": pl.String,
    "severity": pl.String,
    "status": pl.String,
    "rule": pl.String,
    "key": pl.String,
    "measured": pl.Float64,
    "money_minor": pl.Int64,
    "currency": pl.String,
    "assignee": pl.String,
    "opened_at": _INSTANT,
    "fired_at": _INSTANT,
    "raised_at": _INSTANT,
    "resolved_at": _INSTANT,
    "outcome": pl.String,
    "saved_minor": pl.Int64,
    "acknowledged_by": pl.String,
    "acknowledged_at": _INSTANT,
    "expected_at": _INSTANT,
    "escalated_at": _INSTANT,
    "silence_id": pl.String,
    "messages": pl.Int64,
    "withheld": pl.String,
    "flapping": pl.Boolean,
    "rule_version": pl.String,
    "fingerprint": pl.String,
    "case_id": pl.String,
    "case_size": pl.Int64,
}
"""The columns of an alert. `opened_at`, `fired_at`: by the data's clock; the others by the wall clock. `measured`: what
the rule measured last. `messages`: how many reached a channel. `withheld`: why the last one was not sent. `case_id`:
the first alert of its case (`cases.py`), null for old alerts that are not looked at; `case_size`: how many it has."""


def alerts(reading: Reading, parameters: Alerts) -> pl.DataFrame:
    """The alerts that match: one row each, the most severe first, then those with the most money at stake, then the
    latest."""
    known = lives(reading, parameters)
    cases = Cases(known)
    chosen = sorted(_chosen(known, parameters), key=_urgency)
    rows = [_row(alert, known, cases) for alert in chosen[: parameters.limit]]
    return pl.DataFrame(rows, schema=ALERT, orient="row")


def _urgency(alert: Alert) -> tuple[int, int, float, str]:
    return -rank(alert.severity), -(alert.money_minor or 0), -alert.opened_at.timestamp(), alert.alert_id


_GROUPS: Final[dict[str, Any]] = {
    "grouped_by": pl.String,
    "alerts": pl.Int64,
    "open_alerts": pl.Int64,
    "severity": pl.String,
    "money_minor": pl.Int64,
    "currency": pl.String,
    "first_at": _INSTANT,
    "last_at": _INSTANT,
    "rules": pl.String,
}
_OWN: Final[Mapping[str, Callable[[Alert, Lives, Zone], str | None]]] = {
    "rule": lambda alert, *_: alert.rule,
    "severity": lambda alert, *_: alert.severity,
    "status": lambda alert, known, _: known.status(alert),
    "assignee": lambda alert, *_: alert.assignee,
    "day": lambda alert, _, zone: zone.local(naive(alert.since)).date().isoformat(),
}


def alert_groups(reading: Reading, parameters: AlertGroups) -> pl.DataFrame:
    """How many alerts match per rule, severity, status, owner, day (in the zone), case or value of a key: one row per
    group and currency of the money at stake; alerts without money count with the first currency. `grouped_by`: null for
    alerts without such a value. `severity`: that of the most severe alert. `first_at`, `last_at`: when the first and
    the last one began, by the data's clock. `rules`: those that raised them, the most alerts first. Alerts of
    a case are about the same coupons, so of each case the money of the rule with most counts.

    Raises `WrongQuestion` if no alert has such a value, or the zone is unknown.
    """
    known, zone = lives(reading, parameters), Zone(parameters.zone)
    of = _OWN.get(parameters.by) or (lambda alert, *_: alert.labels.get(parameters.by))
    cases = Cases(known)
    if parameters.by == "case":
        of = lambda alert, *_: cases.case_id(alert.alert_id)  # noqa: E731
    chosen = list(_chosen(known, parameters))
    _check_group(parameters.by, chosen)
    named: dict[str | None, list[Alert]] = {}
    for alert in chosen:
        named.setdefault(of(alert, known, zone), []).append(alert)
    groups = {(name, currency): some for name, group in named.items() for currency, some in _by_currency(group)}
    rows = [
        (
            name,
            len(group),
            sum(alert.is_open for alert in group),
            max((alert.severity for alert in group), key=rank),
            _money(group, cases),
            currency,
            naive(min(alert.since for alert in group)),
            naive(max(alert.since for alert in group)),
            ", ".join(rule for rule, _ in Counter(alert.rule for alert in group).most_common()),
        )
        for (name, currency), group in groups.items()
    ]
    if parameters.by == "case":
        rows.sort(key=lambda row: (-rank(row[3]), -(row[4] or 0), row[6], row[0] or ""))
    elif parameters.by == "day":
        rows.sort(key=lambda row: (row[0], row[5] or ""))
    else:
        rows.sort(key=lambda row: (-row[1], row[0] or "", row[5] or ""))
    return pl.DataFrame(rows, schema=_GROUPS, orient="row")


def _check_group(by: str, chosen: Iterable[Alert]) -> None:
    """Raises `WrongQuestion` if alerts cannot be grouped by this."""
    known = {*_OWN, "case", *behind.FIELDS, *(name for alert in chosen for name in alert.labels)}
    if by not in known:
        raise WrongQuestion(f"by: no alert has {by!r}; name one of {', '.join(sorted(known))}")


def _by_currency(group: Iterable[Alert]) -> Iterator[tuple[str | None, list[Alert]]]:
    """The alerts by the currency of their money; those without money stand with the most frequent one."""
    found: dict[str | None, list[Alert]] = {}
    for alert in group:
        found.setdefault(alert.currency, []).append(alert)
    without = found.pop(None, [])
    ordered = sorted(found, key=lambda currency: (-len(found[currency]), currency or ""))
    if not ordered:
        yield None, without
    for number, currency in enumerate(ordered):
        yield currency, found[currency] + (without if number == 0 else [])


def _money(group: Iterable[Alert], cases: Cases) -> int | None:
    """The money at stake in these alerts. Those of a case are about the same coupons, so it is what the rule with most
    says, and each rule says once what an alert that comes again is about."""
    said: dict[str | None, dict[str, dict[str, int]]] = {}
    for alert in group:
        if alert.money_minor is not None:
            case = cases.case_id(alert.alert_id) or alert.alert_id
            by_key = said.setdefault(case, {}).setdefault(alert.rule, {})
            by_key[alert.fingerprint] = max(alert.money_minor, by_key.get(alert.fingerprint, alert.money_minor))
    return _sum(max(sum(by_key.values()) for by_key in rules.values()) for rules in said.values())


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _chosen(known: Lives, wanted: AlertFilter) -> Iterator[Alert]:
    of_key = _about(wanted.key)
    for alert in known.book.alerts.values():
        if (
            _in_state(alert, wanted.state, known)
            and (wanted.rule is None or alert.rule == wanted.rule)
            and (wanted.severity is None or rank(alert.severity) >= rank(wanted.severity))
            and (wanted.assignee is None or alert.assignee == wanted.assignee)
            and of_key(alert)
            and (wanted.since is None or naive(alert.since) >= wanted.since)
            and (wanted.until is None or naive(alert.since) < wanted.until)
            and (wanted.text is None or _mentions(alert, known, wanted.text.casefold()))
        ):
            yield alert


def _in_state(alert: Alert, state: str, known: Lives) -> bool:
    if state in ("open", "closed"):
        return alert.is_open == (state == "open")
    return state == "all" or known.status(alert) == state


def _about(key: str | None) -> Callable[[Alert], bool]:
    """Whether an alert is about this: one of its labels has the value, or the label `name=value` matches."""
    if key is None:
        return lambda _: True
    if "=" not in key:
        return lambda alert: key in alert.labels.values()
    try:
        return Matcher.parse(key).matches
    except CommandRefused as error:
        raise WrongQuestion(*error.args) from None


def _mentions(alert: Alert, known: Lives, text: str) -> bool:
    said = [alert.rule, alert.assignee, *alert.labels.values(), alert.problem]
    said += [event.note for event in known.events.get(alert.alert_id, ())]
    return any(text in one.casefold() for one in said if one)


def _row(alert: Alert, known: Lives, cases: Cases) -> dict[str, Any]:
    taken, silence = alert.acknowledged, known.silence(alert)
    return {
        "alert_id": alert.alert_id,
        "severity": alert.severity,
        "status": known.status(alert),
        "rule": alert.rule,
        "key": _json(alert.labels),
        "measured": alert.value,
        "money_minor": alert.money_minor,
        "currency": alert.currency,
        "assignee": alert.assignee,
        "opened_at": naive(alert.since),
        "fired_at": naive(alert.fired_at),
        "raised_at": naive(alert.opened_at),
        "resolved_at": naive(alert.resolved_at),
        "outcome": alert.outcome,
        "saved_minor": alert.saved_minor,
        "acknowledged_by": taken.operator if taken else None,
        "acknowledged_at": naive(taken.at) if taken else None,
        "expected_at": naive(taken.until) if taken else None,
        "escalated_at": naive(alert.escalated_at),
        "silence_id": silence.silence_id if silence else None,
        "messages": len(alert.told),
        "withheld": alert.withheld.reason if alert.withheld else None,
        "flapping": alert.flapping_since is not None,
        "rule_version": alert.rule_version,
        "fingerprint": alert.fingerprint,
        "case_id": cases.case_id(alert.alert_id),
        "case_size": len(cases.alerts(alert.alert_id)),
    }


def _json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False)


# ── One alert ────────────────────────────────────────────────────────────────────────────────────────────────

_ONE: Final[dict[str, Any]] = {
    **ALERT,
    "resolved_by": pl.String,
    "threshold": pl.Float64,
    "peak": pl.Float64,
    "times_true": pl.Int64,
    "last_true_at": _INSTANT,
    "window_seconds": pl.Float64,
    "problem": pl.String,
    "evidence": pl.String,
    "content": pl.String,
    "events": pl.Int64,
    "coupons": pl.Int64,
    "users": pl.Int64,
    "orders": pl.Int64,
}
LIFE: Final[dict[str, Any]] = {
    "occurred_at": _INSTANT,
    "type": pl.String,
    "operator": pl.String,
    "assignee": pl.String,
    "until": _INSTANT,
    "reason": pl.String,
    "cause": pl.String,
    "note": pl.String,
    "outcome": pl.String,
    "measured": pl.Float64,
    "money_minor": pl.Int64,
    "saved_minor": pl.Int64,
    "currency": pl.String,
    "message_kind": pl.String,
    "channel": pl.String,
    "action": pl.String,
    "dry_run": pl.Boolean,
    "events": pl.Int64,
    "data_at": _INSTANT,
    "event_id": pl.String,
}


def alert(reading: Reading, parameters: OneAlert) -> pl.DataFrame:
    """One alert: one row, with everything that is known of it.

    `threshold`: the value from which the rule fires. `peak`: the worst value; `times_true`: how often the condition was
    found true. `content`: the rule's version that the alert is of, as JSON; null if it is not known. `events`,
    `coupons`, `users`, `orders`: how many are behind it, as the journal says; null if the rule counts no events of
    coupons.

    Lists: `life`: its events. `states`: the coupons behind it by state. `stakes`: the money at stake with these
    coupons, per currency. `periods`: the same slice before (see `behind.before`). `coupon_list`, `user_list`,
    `order_list`: the first ones behind it, by time. `case_alerts`: the other alerts of its case (`cases.py`); first
    those that name most of what it names.

    Raises `UnknownAlert`, and `WrongQuestion` if several alerts' ids begin so.
    """
    known = lives(reading, parameters)
    found = known.one(parameters.alert)
    rule, episode = rule_of(reading, found), episode_of(reading, found.alert_id)
    evidence = evidence_of(known.events[found.alert_id])
    scope = behind.scope_of(found, rule, episode, evidence)
    cases = Cases(known)
    row = _row(found, known, cases) | {
        "resolved_by": found.resolved_by,
        "threshold": episode["threshold"] if episode else _number(evidence.get("threshold")),
        "peak": episode["peak"] if episode else found.magnitude,
        "times_true": episode["times"] if episode else None,
        "last_true_at": behind.held_until(found, rule, episode, values_in(evidence)),
        "window_seconds": scope.window.total_seconds() if scope and scope.since else None,
        "problem": found.problem,
        "evidence": _json(evidence),
        "content": None if rule is None else _json(rule.as_json()),
    }
    counts, lists = _behind(reading, scope, parameters.limit)
    life = pl.DataFrame([life_of(event) for event in known.events[found.alert_id]], schema=LIFE, orient="row")
    frame = pl.DataFrame([row | counts], schema=_ONE, orient="row")
    structs = {"life": life, **lists, "case_alerts": _of_case(found, known, cases).head(parameters.limit)}
    return frame.with_columns(**{name: _list(name, table) for name, table in structs.items()})


_CASE_ALERT: Final[dict[str, Any]] = {
    "alert_id": pl.String,
    "severity": pl.String,
    "status": pl.String,
    "rule": pl.String,
    "key": pl.String,
    "opened_at": _INSTANT,
    "shared_coupons": pl.Int64,
    "shared_users": pl.Int64,
    "shared_devices": pl.Int64,
}


def _of_case(found: Alert, known: Lives, cases: Cases) -> pl.DataFrame:
    """The other alerts of the case, with how many coupons, users and devices both name."""
    rows = []
    for other in (known.book.alerts[one] for one in cases.alerts(found.alert_id) if one != found.alert_id):
        both = cases.shared(found.alert_id, other.alert_id)
        rows.append(
            (other.alert_id, other.severity, known.status(other), other.rule, _json(other.labels), naive(other.since),
             both["coupon_id"], both["user_id"], both["device_id"])
        )  # fmt: skip
    rows.sort(key=lambda row: (-sum(row[-3:]), row[5], row[0]))
    return pl.DataFrame(rows, schema=_CASE_ALERT, orient="row")


def _list(name: str, table: pl.DataFrame) -> pl.Series:
    return pl.Series(name, [table.to_struct(name)], dtype=pl.List(pl.Struct(table.schema)))


def _behind(reading: Reading, scope: behind.Scope | None, limit: int) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    nothing = behind.NOTHING if scope is None else scope
    with behind.held(reading, nothing):
        tables = {"coupon_list": behind.coupons(reading), "user_list": behind.users(reading)}
        tables["order_list"] = behind.orders(reading)
        [(events,)] = reading.rows("SELECT count(*) FROM alert_behind")
    of_coupons = tables["coupon_list"]
    counts = dict(zip(("coupons", "users", "orders"), (t.height for t in tables.values()), strict=True))
    lists = {
        "states": of_coupons.group_by("state").agg(coupons=pl.len().cast(pl.Int64)).sort("coupons", descending=True),
        "stakes": behind.money(of_coupons),
        "periods": behind.before(reading, nothing) if scope else pl.DataFrame(schema=behind.BEFORE),
        **{name: table.head(limit) for name, table in tables.items()},
    }
    return {"events": events, **counts} if scope else {}, lists


def coupons_behind(reading: Reading, parameters: OneAlert) -> list[int] | None:
    """The hashes of the coupons behind an alert; None if they follow from the violations, which only all tables of the
    past together tell."""
    known = lives(reading, parameters)
    found = known.one(parameters.alert)
    rule, episode = rule_of(reading, found), episode_of(reading, found.alert_id)
    scope = behind.scope_of(found, rule, episode, evidence_of(known.events[found.alert_id]))
    if scope is None or scope.query != "behind_events":
        return [] if scope is None else None
    with behind.held(reading, scope):
        return reading.frame("SELECT DISTINCT key_hash FROM alert_behind")["key_hash"].to_list()


def rule_of(reading: Reading, alert: Alert) -> Rule | None:
    """The version of the rule that the alert is of; if it is not known, the latest one. None if there is none."""
    rows = reading.frame(sql(__package__, "rules"), {"rule": alert.rule}).rows(named=True)
    mine = [row for row in rows if row["version"] == alert.rule_version] or rows
    return Rule.model_validate(json.loads(mine[-1]["rule"])) if mine else None


def episode_of(reading: Reading, alert_id: str) -> dict[str, Any] | None:
    given = {"episode": alert_id, "episode_hash": int(stable_hash(pl.Series([alert_id]))[0])}
    found = reading.frame(sql(__package__, "episode"), given).rows(named=True)
    return found[0] if found else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def life_of(event: AlertEvent) -> dict[str, Any]:
    """An event of an alert or silence as a row. `cause`: what held a message back. `events`: how many an action
    appended."""
    details = event.details
    effect = details.get("effect")
    appended = effect.get("events") if isinstance(effect, dict) else None
    cause, message_kind = details.get("cause"), details.get("kind")
    return {
        **{name: getattr(event, name) for name in LIFE if name in AlertEvent.model_fields},
        "occurred_at": naive(event.occurred_at),
        "until": naive(event.until),
        "data_at": naive(event.data_at),
        "cause": None if cause is None else str(cause),
        "measured": _number(details.get("value")),
        "message_kind": message_kind if isinstance(message_kind, str) else None,
        "dry_run": details.get("dry") is True if event.type == "acted" else None,
        "events": appended if isinstance(appended, int) else None,
    }


# ── What happened, silences, rules ───────────────────────────────────────────────────────────────────────────

_HISTORY: Final[dict[str, Any]] = {
    "alert_id": pl.String,
    "silence_id": pl.String,
    "rule": pl.String,
    "key": pl.String,
    **LIFE,
    "details": pl.String,
}


def alert_history(reading: Reading, parameters: AlertHistory) -> pl.DataFrame:
    """What happened to one alert, or to all alerts and silences, and what rules missed: one row per event, in the order
    of recording. `key`: what the alert, or what was missed, is about; null for silences."""
    known = lives(reading, parameters)
    if parameters.alert is not None:
        events: Iterable[AlertEvent] = known.events[known.one(parameters.alert).alert_id]
    else:
        events = known.all
    rows = [
        {**life_of(event), "alert_id": event.alert_id, "silence_id": event.silence_id, "rule": event.rule,
         "key": _key_of(event, known), "details": _json(event.details) if event.details else None}
        for event in events
        if (parameters.type is None or event.type == parameters.type)
        and (parameters.operator is None or event.operator == parameters.operator)
        and _within(naive(event.occurred_at), parameters.since, parameters.until)
    ]  # fmt: skip
    first = 0 if parameters.limit is None else max(0, len(rows) - parameters.limit)
    return pl.DataFrame(rows[first:], schema=_HISTORY, orient="row")


def _key_of(event: AlertEvent, known: Lives) -> str | None:
    alert = known.book.alerts.get(event.alert_id or "")
    labels = event.labels if alert is None else alert.labels
    return None if event.silence_id is not None or not labels else _json(labels)


def _within(at: datetime | None, since: datetime | None, until: datetime | None) -> bool:
    return at is not None and (since is None or at >= since) and (until is None or at < until)


_SILENCES: Final[dict[str, Any]] = {
    "silence_id": pl.String,
    "matchers": pl.String,
    "operator": pl.String,
    "silenced_at": _INSTANT,
    "until": _INSTANT,
    "note": pl.String,
    "holding": pl.Boolean,
    "alerts": pl.Int64,
    "ended_at": _INSTANT,
    "ended_by": pl.String,
}


def alert_silences(reading: Reading, parameters: Silences) -> pl.DataFrame:
    """The silences: one row each, those that end first first. `matchers`: which alerts it is about. `holding`: whether
    it holds messages back. `alerts`: how many open alerts it is about now."""
    known = lives(reading, parameters)
    rows = [
        {
            "silence_id": silence.silence_id,
            "matchers": ", ".join(map(str, silence.matchers)),
            "operator": silence.operator,
            "silenced_at": naive(silence.began_at),
            "until": naive(silence.until),
            "note": silence.note,
            "holding": silence.holds(known.now),
            "alerts": sum(silence.matches(alert) for alert in known.book.open_alerts()),
            "ended_at": naive(silence.ended_at),
            "ended_by": silence.ended_by,
        }
        for silence in sorted(known.book.silences.values(), key=lambda s: (s.until, s.silence_id))
        if parameters.ended or silence.holds(known.now)
    ]
    return pl.DataFrame(rows, schema=_SILENCES, orient="row")


_RULES: Final[dict[str, Any]] = {
    "rule": pl.String,
    "rule_kind": pl.String,
    "severity": pl.String,
    "group": pl.String,
    "in_force": pl.Boolean,
    "in_force_since": _INSTANT,
    "in_force_until": _INSTANT,
    "rule_versions": pl.Int64,
    "assignee": pl.String,
    "action": pl.String,
    "rule_version": pl.String,
    "content": pl.String,
}
_BEGINNING: Final = datetime(1970, 1, 1)


def alert_rules(reading: Reading, parameters: AlertRules) -> pl.DataFrame:
    """The alert rules in force: one row per rule, by name. With `versions`, one row per version and stretch of time.
    `in_force_since`, `in_force_until`: it judges the events recorded after the one and not after the other; null: those
    from the beginning, and for ever. `rule_versions`: how many the rule has had."""
    stored = reading.frame(sql(__package__, "rules"), {"rule": parameters.rule}).rows(named=True)
    had: dict[str, set[str]] = {}
    for row in stored:
        had.setdefault(row["name"], set()).add(row["version"])
    rows = [_rule_row(row, len(had[row["name"]]), _in_force(row, parameters.at)) for row in stored]
    kept = rows if parameters.versions else [row for row in rows if row["in_force"]]
    return pl.DataFrame(kept, schema=_RULES, orient="row")


def _in_force(row: Mapping[str, Any], at: datetime | None) -> bool:
    if at is None:
        return row["until"] is None
    return bool(row["since"] < at) and (row["until"] is None or at <= row["until"])


def _rule_row(row: Mapping[str, Any], versions: int, in_force: bool) -> dict[str, Any]:
    rule = Rule.model_validate(json.loads(row["rule"]))
    return {
        "rule": rule.name,
        "rule_kind": rule.expr.kind,
        "severity": rule.severity,
        "group": rule.group,
        "in_force": in_force,
        "in_force_since": None if row["since"] <= _BEGINNING else row["since"],
        "in_force_until": row["until"],
        "rule_versions": versions,
        "assignee": rule.owner,
        "action": rule.action.do if rule.action else None,
        "rule_version": row["version"],
        "content": row["rule"],
    }
