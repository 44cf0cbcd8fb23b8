"""From what the evaluation of rules found to conditions, as `alert_life.decide` takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from coupon_ledger.ledger.alert_commands import Condition, Terms
from coupon_ledger.ledger.alert_events import hash_of
from coupon_ledger.ledger.alert_problems import EVALUATION, RULES_FILE, said_in
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts.episodes import SCHEMA
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.template_fields import ALSO
from coupon_ledger.projections.connection import Reading

_COLUMNS: Final = ", ".join(f"e.{name}" for name in SCHEMA)


def terms_of(rule: Rule | None) -> Terms:
    """How alerts of the rule live; the defaults for a rule that is not known."""
    if rule is None:
        return Terms()
    return Terms(hold=rule.hold, keep=rule.keep, escalate_after=rule.escalate_after)


def labels_of(key: Mapping[str, str]) -> dict[str, str]:
    """The labels of alerts with this key. A campaign has one name, whatever rule says it, so that alerts of several
    rules about it know of each other."""
    return {ALSO.get(name, name): value for name, value in key.items()}


# --- episodes


def episodes(reading: Reading, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The rows of these episodes that are in the table, by id."""
    query = f"SELECT {_COLUMNS} FROM alert_episodes e WHERE e.episode_id IN (SELECT unnest($ids::VARCHAR[]))"
    frame = reading.frame(query, {"ids": list(ids)})
    return {row["episode_id"]: row for row in frame.iter_rows(named=True)}


def in_order(reading: Reading, ids: Iterable[str]) -> list[tuple[str, str]]:
    """These ids of episodes with their rules, in the order in which they were opened; those that are not in the table
    first, without a rule."""
    wanted = list(ids)
    frame = reading.frame(
        "SELECT episode_id, rule FROM alert_episodes WHERE episode_id IN (SELECT unnest($ids::VARCHAR[]))"
        " ORDER BY opened_recorded_at, log_partition, log_offset, episode_id",
        {"ids": wanted},
    )
    there = [(episode, rule) for episode, rule in frame.iter_rows()]
    return [*((episode, "") for episode in sorted(set(wanted) - {episode for episode, _ in there})), *there]


def untold(reading: Reading) -> list[str]:
    """The ids of the episodes that may have changed since an owner last looked: those that go on, and those of which
    `coupon.alerts` knows nothing."""
    frame = reading.frame(
        "SELECT episode_id FROM alert_episodes e WHERE closed_at IS NULL OR NOT EXISTS"
        " (SELECT 1 FROM alert_events a WHERE a.alert_id = e.episode_id)"
    )
    return frame["episode_id"].to_list()


def of_episode(row: Mapping[str, Any], rule: Rule, now: datetime) -> Iterator[Condition]:
    """What an episode says: that its condition holds and, if it is closed, that it is over."""
    peak, threshold = row["peak"], row["threshold"]
    yield Condition(
        outcome="holds",
        at=_aware(row["last_true_at"]),
        since=_aware(row["opened_at"]),
        value=peak,
        magnitude=peak if peak >= threshold else threshold - peak,
        evidence=_evidence(row, rule),
        **_about(rule, row["rule_version"], labels_of(json.loads(row["key"])), row["episode_id"], now),
    )
    if row["closed_at"] is not None:
        yield Condition(
            outcome="clear",
            at=_aware(row["closed_at"]),
            since=_aware(row["last_true_at"]),
            **_about(rule, row["rule_version"], labels_of(json.loads(row["key"])), row["episode_id"], now),
        )


def _evidence(row: Mapping[str, Any], rule: Rule) -> dict[str, Any]:
    window = getattr(rule.expr, "window", None)
    return {
        "version": row["rule_version"],
        "position": [row["topic"], row["log_partition"], row["log_offset"]],
        "recorded_at": _aware(row["opened_recorded_at"]),
        "value": row["value"],
        "peak": row["peak"],
        "threshold": row["threshold"],
        "times": row["times"],
        "window_s": None if window is None else window.total_seconds(),
        **({} if row["details"] is None else {"details": json.loads(row["details"])}),
    }


def over(alert: Alert, rule: Rule | None, at: datetime, now: datetime) -> Condition:
    """The condition of an open alert is over at `at`, by the clock of its rule."""
    return Condition(
        rule=alert.rule,
        labels=alert.labels,
        outcome="clear",
        at=max(at, alert.at),
        now=now,
        alert_id=alert.alert_id,
        terms=terms_of(rule),
    )


# --- rules on the tables


def of_offender(found: Offender, rule: Rule, current: Alert | None, at: datetime, now: datetime) -> Condition | None:
    """One key for which a rule on the tables holds at `at`, by the rule's clock. `current`: the latest alert of the
    rule with these labels. None if nothing is to be said: an operator has closed this very alert, or `at` is before
    what is known of it, since a new database still reads the log."""
    labels, since = labels_of(found.key), min(_aware(found.since), at)
    alert_id = hash_of("offender", rule.name, labels, since)
    if current is not None and at < current.at:
        return None
    if current is not None and current.is_open:
        alert_id = current.alert_id  # facts may have moved its beginning
    elif current is not None and current.alert_id == alert_id:
        if current.resolved_by is not None:
            return None
        alert_id, since = hash_of("again", alert_id, at), at
    window = getattr(rule.expr, "window", None)
    return Condition(
        outcome="holds",
        at=at,
        since=since,
        value=found.value,
        magnitude=found.value if found.value >= found.threshold else found.threshold - found.value,
        money_minor=found.money_minor,
        currency=found.currency,
        evidence={
            "version": rule.version,
            "value": found.value,
            "threshold": found.threshold,
            "window_s": None if window is None else window.total_seconds(),
            "details": dict(found.details),
        },
        **_about(rule, rule.version, labels, alert_id, now),
    )


def not_evaluated(rule: Rule, problem: Note, now: datetime) -> Condition:
    """The evaluation of a rule failed."""
    return replace(
        _problem("error", rule.name, EVALUATION, now, rule, str(problem)), evidence={"said": problem.dumps()}
    )


def evaluated(rule: Rule, now: datetime) -> Condition:
    """The evaluation of a rule worked."""
    return _problem("clear", rule.name, EVALUATION, now, rule)


def problem_of(alert: Alert) -> Note:
    """Why the rule of an alert cannot be evaluated."""
    said = said_in(alert.evidence, alert.problem)
    return said if isinstance(said, Note) else note("{words}", words=said or "")


def is_problem(alert: Alert) -> bool:
    """Whether the alert says that a rule cannot be evaluated, or that the rules file is wrong about it."""
    return dict(alert.labels) in (EVALUATION, RULES_FILE)


def of_file(
    name: str, rule: Rule | None, file: str, said: Note | None, current: Alert | None, now: datetime
) -> Iterator[Condition]:
    """What the rules file says about a rule is wrong, or right again (`said` is None). `current`: the open alert about
    it; if it says something else, it ends, and another one begins."""
    evidence = {} if said is None else {"file": file, "said": said.dumps()}
    if current is not None and current.evidence.get("said") != evidence.get("said"):
        yield _problem("clear", name, RULES_FILE, now, rule)
    if said is not None:
        yield replace(_problem("error", name, RULES_FILE, now, rule, str(said)), evidence=evidence)


def _problem(
    outcome: Literal["error", "clear"],
    name: str,
    labels: Mapping[str, str],
    now: datetime,
    rule: Rule | None,
    problem: str | None = None,
) -> Condition:
    return Condition(
        rule=name,
        labels=labels,
        outcome=outcome,
        at=now,
        now=now,
        rule_version=None if rule is None else rule.version,
        severity="warning" if rule is None else rule.severity,
        owner=None if rule is None else rule.owner,
        problem=problem,
        terms=terms_of(rule),
    )


def _about(rule: Rule, version: str, labels: Mapping[str, str], alert_id: str, now: datetime) -> dict[str, Any]:
    return {
        "rule": rule.name,
        "rule_version": version,
        "labels": labels,
        "alert_id": alert_id,
        "severity": rule.severity,
        "owner": rule.owner,
        "terms": terms_of(rule),
        "now": now,
    }


def _aware(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
