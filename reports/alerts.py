"""What people read about an alert: what happened, in two sentences, what was done and what is left to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.ledger.alert_evidence import values_in
from coupon_ledger.ledger.alert_problems import EVALUATION, FILE_RULE, RULES_FILE, said_in
from coupon_ledger.ledger.rules import REVOCABLE
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.labels import label, say, text_of, word
from coupon_ledger.reports.text import Row, printable
from coupon_ledger.reports.view import view

if TYPE_CHECKING:
    from coupon_ledger.projections.alerts.rules import Rule

_NAMES: Final = {
    "campaign": note("campaign"),
    "campaign_id": note("campaign"),
    "device_id": note("device"),
    "user_id": note("user"),
    "order_id": note("order"),
}
ACTIONS: Final = {
    "unpublish_campaign": note("unpublish the campaign"),
    "revoke_coupons": note("revoke the coupons behind it"),
    "webhook": note("call the webhook"),
}
"""What the action of a rule does, by its code."""


def rule_of(row: Row) -> Rule | None:
    """The rule of an alert. `row`: of the answer to the question `alert`."""
    content = row["content"]
    content = json.loads(content) if isinstance(content, str) else content
    return None if content is None else _rules().Rule.model_validate(content)


def key_of(row: Row) -> dict[str, str]:
    """The key of an alert as names and values."""
    key = row["key"]
    return dict(json.loads(key) if isinstance(key, str) else key or {})


def key_in_words(key: Mapping[str, str]) -> str:
    """The key as people read it: campaign 8, device d-17."""
    if not key:
        return say("the whole ledger")
    parts = (f"{_name(name)} {printable(word(value))}" for name, value in key.items())
    return ("，" if view().chinese else ", ").join(parts)


def _name(column: str) -> str:
    return text_of(_NAMES[column]) if column in _NAMES else label(column)


# ── What happened ────────────────────────────────────────────────────────────────────────────────────────────


def what_happened(row: Row, stakes: Iterable[Row]) -> tuple[str, str]:
    """Two sentences that say what happened: what was found, as the rule says it; and since when, how much is behind it,
    and the money at stake. `row`: of the answer to the question `alert`; `stakes`: its list of that name."""
    rule = rule_of(row)
    return _ended(_found(row, rule, list(stakes))), _ended(_extent(row, list(stakes)))


def description(row: Row, stakes: Iterable[Row]) -> str | None:
    """What the rule says beside its summary; None if nothing."""
    rule = rule_of(row)
    template = None if rule is None else _templates().description(rule, view().lang)
    return None if rule is None or template is None else _rendered(template, rule, row, list(stakes))


def unnamed(row: Row) -> str | None:
    """That not all users of a linked group are known, if so: those are missing in every number and list."""
    rule, users = rule_of(row), values_in(_evidence(row)).get("users")
    if rule is None or rule.expr.kind != "linked" or not isinstance(users, int) or users <= (row["users"] or 0):
        return None
    return say("only {n:count} of the {all:count} users of this group can be named: the others are in none of these"
               " numbers, and no action reaches them", n=row["users"] or 0, all=users)  # fmt: skip


def _found(row: Row, rule: Rule | None, stakes: list[Row]) -> str:
    why = _why(_evidence(row), row["problem"]) or say("no reason is recorded")
    if key_of(row) == RULES_FILE:
        return text_of(_of_file(row, rule))
    if row["status"] == "no_data":
        return say("rule {rule} found no data to judge by: {problem}", rule=row["rule"], problem=why)
    if row["problem"] or row["status"] == "error":
        return say("rule {rule} could not be judged: {problem}", rule=row["rule"], problem=why)
    if rule is not None and rule.annotations:
        return _rendered(_templates().summary(rule, view().lang), rule, row, stakes)
    return text_of(_fallback(row, rule))


def _why(evidence: Mapping[str, Any], otherwise: str | None) -> str | None:
    """Why a rule could not be evaluated."""
    said = said_in(evidence, otherwise)
    return printable(text_of(said) if isinstance(said, Note) else said or "") or None


def _of_file(row: Row, rule: Rule | None) -> Note:
    """What the rules file is wrong about, and what goes on meanwhile."""
    problem = said_in(_evidence(row), row["problem"])
    if row["rule"] == FILE_RULE:
        return note("the rules file has a problem: {problem}; rules that it does not say go on as before",
                    problem=problem)  # fmt: skip
    if rule is None:
        return note("the rules file is wrong about {rule}, which is not judged: {problem}", rule=row["rule"],
                    problem=problem)  # fmt: skip
    return note("the rules file is wrong about {rule}, which goes on as before: {problem}", rule=row["rule"],
                problem=problem)  # fmt: skip


def _evidence(row: Row) -> dict[str, Any]:
    evidence = row["evidence"]
    return dict(json.loads(evidence) if isinstance(evidence, str) else evidence or {})


def _rendered(template: str, rule: Rule, row: Row, stakes: list[Row]) -> str:
    how = view()
    reader = _templates().Reader(how.lang, how.instant)
    text: str = _templates().render(template, rule, values_of(row, rule, stakes), reader)
    return text


def values_of(row: Row, rule: Rule, stakes: list[Row]) -> dict[str, Any]:
    """The values of the fields that the templates of the rule name."""
    evidence = values_in(_evidence(row))
    counts = evidence.get("counts")
    counts = counts if isinstance(counts, dict) else {}
    counted = {name: row[name] for name in ("users", "coupons", "orders") if row[name] is not None}
    money = _at_stake(row, stakes)
    window = row["window_seconds"]
    known = {
        **{name: value for name, value in evidence.items() if not isinstance(value, dict)},
        **counts,
        **counted,
        **key_of(row),
        "alert": row["alert_id"],
        "rule": rule.name,
        "group": rule.group,
        "severity": row["severity"],
        "owner": row["assignee"] or rule.owner,
        "playbook": rule.playbook,
        "value": row["measured"],
        "threshold": row["threshold"],
        "since": row["opened_at"],
        "at": row["fired_at"],
        "lasted": _lasted(row),
        "window": window,
        "money": money,
        "currency": money[1] if money else None,
    }
    known["error"] = _why(evidence, known.get("error"))
    known.setdefault("count", row["measured"] if rule.expr.kind in ("violation", "velocity") else row["events"])
    known.setdefault("distinct", row["measured"])
    return known


def _lasted(row: Row) -> float | None:
    end = row["last_true_at"]
    return None if end is None or row["opened_at"] is None else max(0.0, (end - row["opened_at"]).total_seconds())


def _at_stake(row: Row, stakes: list[Row]) -> tuple[int, str] | None:
    """The money at stake, and its currency: as the alert says, otherwise of the coupons behind it."""
    if row["money_minor"] is not None:
        return row["money_minor"], row["currency"]
    if not stakes:
        return None
    largest = max(stakes, key=lambda one: one["discount_minor"] + one["promised_minor"])
    return largest["discount_minor"] + largest["promised_minor"], largest["currency"]


def _fallback(row: Row, rule: Rule | None) -> Note:
    """What happened, for a rule without texts of its own."""
    measured = {"value": _number(row["measured"]), "bound": _number(row["threshold"]), "key": key_in_words(key_of(row))}
    if rule is None:
        return note("rule {rule} found {value} for {key}, and fires at {bound}", rule=row["rule"], **measured)
    expr = rule.expr
    if expr.kind == "velocity":
        window = note("{words}", words=_duration(expr.window.total_seconds()))
        types = [note("{type:word}", type=kind) for kind in expr.events]
        if expr.distinct:
            return note("{value} different values of {field:label} came with {types} of {key} within {window}; the rule"
                        " fires at {bound}", field=expr.distinct, types=types, window=window, **measured)  # fmt: skip
        if expr.consecutive:
            return note("{value} consecutive values of {field:label} came with {types} of {key} within {window}; the"
                        " rule fires at {bound}", field=expr.consecutive, types=types, window=window,
                        **measured)  # fmt: skip
        return note("{value} events ({types}) of {key} came within {window}; the rule fires at {bound}", types=types,
                    window=window, **measured)  # fmt: skip
    if expr.kind == "violation":
        return note("{value} violations of the rules of the ledger stand for {key}; the rule fires at {bound}",
                    **measured)  # fmt: skip
    if expr.kind in ("metric", "threshold"):
        return note("{metric:label} of {key} is {value}, against a bound of {bound}", metric=expr.metric, **measured)
    return note("rule {rule} found {value} for {key}, and fires at {bound}", rule=rule.name, **measured)


def _number(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


def _duration(seconds: float) -> str:
    from coupon_ledger.reports.labels import figure

    return figure("window_seconds", seconds)


def _extent(row: Row, stakes: list[Row]) -> str:
    """Since when it has held, how much is behind it, and the money at stake."""
    is_open = row["resolved_at"] is None and row["status"] != "normal"
    parts: list[Note] = []
    if is_open:
        parts.append(note("it began at {since:instant} and is still open", since=_second(row["opened_at"])))
    else:
        parts.append(note("it began at {since:instant} and was seen last at {until:instant}",
                          since=_second(row["opened_at"]), until=_second(row["last_true_at"])))  # fmt: skip
    if row["coupons"]:
        parts.append(note("{coupons:count} coupon{coupons:s} of {users:count} user{users:s} {coupons:are} behind it",
                          coupons=row["coupons"], users=row["users"]))  # fmt: skip
    money = _at_stake(row, stakes)
    if money is not None and money[0]:
        parts.append(note("{money:money} is at stake", money=money))
    return ("；" if view().chinese else "; ").join(map(text_of, parts))


def _second(at: datetime | None) -> datetime | None:
    return None if at is None else at.replace(microsecond=0)


def _ended(sentence: str) -> str:
    """The sentence with a capital letter and a full stop."""
    if view().chinese:
        return sentence if sentence.endswith(("。", "！", "？")) else f"{sentence}。"
    whole = sentence[:1].upper() + sentence[1:]
    return whole if whole.endswith((".", "!", "?")) else f"{whole}."


# ── What was done, what to do ────────────────────────────────────────────────────────────────────────────────


def what_was_done(life: Iterable[Row]) -> Iterator[str]:
    """The actions that were taken on an alert: by whom, when, and why. `life`: its events, as in the answer to the
    question `alert`."""
    for event in _taken(life):
        said = {
            "at": _second(event["occurred_at"]),
            "who": event["operator"] or say("the rule itself, without asking"),
            "action": ACTIONS.get(event["action"], event["action"]),
            "why": printable(event["note"] or say("no reason is recorded")),
        }
        if event["events"] is None:
            yield say("{at:instant}, {who}: {action} ({why})", **said)
        else:
            yield say("{at:instant}, {who}: {action}, with {n:count} event{n:s} ({why})", n=event["events"], **said)


def _taken(life: Iterable[Row]) -> list[Row]:
    return [event for event in life if event["type"] == "acted" and event["action"] and not event["dry_run"]]


def what_to_do(row: Row, life: Iterable[Row], states: Iterable[Row]) -> Iterator[str]:
    """What to do about an alert, step by step: only what its state and the actions that were taken leave open. `life`,
    `states`: the lists of these names in the answer to the question `alert`."""
    rule, short = rule_of(row), row["alert_id"][:8]
    if rule is not None and rule.playbook:
        yield say("read {playbook}", playbook=printable(rule.playbook))
    is_open = row["resolved_at"] is None
    if is_open and row["acknowledged_by"] is None and row["status"] != "pending":
        yield say("take it: `coupon-ledger alerts ack {alert} --for 2h`", alert=short)
    about_a_rule = key_of(row) == RULES_FILE or _failed(row) is not None
    if about_a_rule and not is_open:
        return  # it was no alert about coupons, so there is nothing to judge
    if is_open and key_of(row) == RULES_FILE:
        file = printable(str(_evidence(row).get("file") or "FILE"))
        yield say("see all problems of the file: `coupon-ledger alerts rules check {file}`", file=file)
        yield say("mend the file and save it; it is read again within seconds, and this alert closes by itself")
        return
    failed = _failed(row)
    if is_open and failed is not None:
        yield say("see the rule as the file has it: `coupon-ledger alerts rules show {rule}`", rule=printable(failed))
        yield say("mend it and save the file; this alert closes by itself once the rule can be evaluated")
        return
    yield from _left_of_action(rule, short, {event["action"] for event in _taken(life)}, states)
    if not is_open and row["outcome"] is None:
        yield say("say whether it was right: `coupon-ledger alerts resolve {alert} --true` or --false", alert=short)
    if is_open and row["status"] != "pending":
        yield say("when it is settled: `coupon-ledger alerts resolve {alert} --true --saved AMOUNT CURRENCY`, or"
                  " --false if nothing was wrong", alert=short)  # fmt: skip


def _failed(row: Row) -> str | None:
    """The rule that could not be evaluated, if the alert is about that."""
    if key_of(row) == EVALUATION:
        return str(row["rule"])
    failed = values_in(_evidence(row)).get("failed")
    return failed if isinstance(failed, str) else None


def _left_of_action(rule: Rule | None, short: str, taken: set[str], states: Iterable[Row]) -> Iterator[str]:
    """What is left to do of the rule's action."""
    if rule is None or rule.action is None:
        return
    if rule.action.do == "revoke_coupons":
        usable = sum(state["coupons"] for state in states if state["state"] in REVOCABLE)
        if usable:
            yield say("{n:count} coupon{n:s} behind it can still be used; see what revoking would do:"
                      " `coupon-ledger alerts act {alert}`", n=usable, alert=short)  # fmt: skip
    elif rule.action.do not in taken:
        yield say("see what its action would do ({action}): `coupon-ledger alerts act {alert}`",
                  action=ACTIONS[rule.action.do], alert=short)  # fmt: skip


def _rules() -> Any:
    """The models of rules, which load pydantic: only once an alert is shown."""
    from coupon_ledger.projections.alerts import rules

    return rules


def _templates() -> Any:
    from coupon_ledger.projections.alerts import templates

    return templates
