"""Tries alert rules on the past: asks the questions of a backtest, and says what it cannot know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.cli.asking import answered
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note
from coupon_ledger.reports.labels import figure, say

if TYPE_CHECKING:
    from coupon_ledger.projections.alerts.rules import Rule

_DAY: Final = timedelta(days=1)
_LOOKED_UP: Final = 200
"""For how many alerts it is looked up who is behind them."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A backtest in a period: `since`, `until`, `clock`, as the question takes them. Use it within `together`, so that
    all its questions read one state. `failed`: the names of the rules that could not be tried to the end."""

    settings: Settings
    period: Mapping[str, Any]
    failed: set[str] = field(default_factory=set)

    def alerts(self, rules: Sequence[Rule]) -> list[Row]:
        """The alerts that the rules would have raised. Says which rules failed."""
        if not rules:
            return []
        found = list(self._ask("alert-backtest", rules=[rule.as_json() for rule in rules], **self.period))
        for row in found:
            if row["problem"] is not None:
                self.failed.add(row["rule"])
                warn("{problem}; it was not tried to the end", problem=row["problem"])
        return [row for row in found if row["problem"] is None]

    def rules_in_force(self) -> list[Rule]:
        from coupon_ledger.projections.alerts.rules import Rule

        return [Rule.model_validate(json.loads(row["content"])) for row in self._ask("alert-rules")]

    def beside_those_in_force(self, rules: Sequence[Rule], names: Sequence[str]) -> tuple[list[Row], list[Row]]:
        """The alerts of the tried rules, and those of the rules in force. `names`: only these; none: all. A rule that
        is in force as it is tried is evaluated once."""
        before = [rule for rule in self.rules_in_force() if not names or rule.name in names]
        tried, versions = self.alerts(rules), {rule.version for rule in before}
        others = self.alerts([rule for rule in before if rule.version not in {rule.version for rule in rules}])
        return tried, [*(row for row in tried if row["rule_version"] in versions), *others]

    def days(self) -> float:
        """The length of the period in days, 0 if it is unknown. Says so if there are no events in it."""
        bounds = {name: self.period[name] for name in ("since", "until")}
        [span] = self._ask("event-span", **bounds)
        first, last = span["first_event_at"], span["last_event_at"]
        if first is None:
            echo_wrapped(say("there are no events yet"), err=True)
        elif not span["events"]:
            echo_wrapped(
                say("there are no events in this period: the first one happened at {first:instant}, the last one at"
                    " {last:instant}", first=first.replace(microsecond=0), last=last.replace(microsecond=0)),
                err=True,
            )  # fmt: skip
        since, until = bounds["since"] or first, bounds["until"] or last
        if since is None or until is None:
            return 0.0
        since, until = (at.replace(tzinfo=None) for at in (since, until))
        return max(float((until - since) / _DAY), 1e-9)

    def say_limits(self, rules: Sequence[Rule]) -> None:
        """Say which rules are asked only now and then, and which the past does not show, and why."""
        plan = list(self._ask("alert-backtest-plan", rules=[rule.as_json() for rule in rules], **self.period))
        asked = [row for row in plan if row["tried_on"] == "states"]
        if asked and asked[0]["apart_seconds"] is not None:
            apart = figure("window_seconds", asked[0]["apart_seconds"])
            echo_wrapped(
                say("{rules}: asked in {n:count} states of the past, one every {apart}; what came and went in between"
                    " is not seen", rules=_names(asked), n=asked[0]["restored_states"], apart=apart),
                err=True,
            )  # fmt: skip
        for note in dict.fromkeys(row["note"] for row in plan if row["note"] is not None):
            mine = [row for row in plan if row["note"] == note]
            echo_wrapped(say("{rules}: {why}", rules=_names(mine), why=Note.loads(note)), err=True)

    def with_those_behind(self, rows: Sequence[Row], rules: Iterable[Rule]) -> list[Row]:
        """The rows, each with what is behind its alert (`behind_coupons`, `behind_users`, `behind_orders`): what the
        rule names, else what is found by its key. `rules`: in all their versions. At most 200 alerts are looked up."""
        by_version = {rule.version: rule.as_json() for rule in rules}
        looked_up = [row for row in rows if row["rule_version"] in by_version][:_LOOKED_UP]
        alerts = [{**_plain(row), "rule": by_version[row["rule_version"]]} for row in looked_up]
        found = list(self._ask("alert-backtest-behind", alerts=alerts)) if alerts else []
        behind = {id(looked_up[one["number"]]): one for one in found}
        return [{**row, **_ids(row, behind.get(id(row), {}))} for row in rows]

    def _ask(self, question: str, **parameters: Any) -> Iterator[Row]:
        with answered(self.settings, "", question, **parameters) as answer:
            yield from [row for frame in answer.frames for row in frame.iter_rows(named=True)]


_BEHIND: Final = ("coupon", "user", "order")


def _ids(row: Row, behind: Mapping[str, Any]) -> Row:
    details = json.loads(row["details"] or "{}")
    named = {name: details.get(f"{name}s") for name in _BEHIND}  # a list, or how many there are
    ids = {
        f"behind_{n}s": one if one and isinstance(one, list) else behind.get(f"behind_{n}s") for n, one in named.items()
    }
    return {**ids, **{name: details.get(name) for name in ("money_minor", "currency")}}


def _plain(row: Row) -> Row:
    return {
        "key": row["key"],
        "details": row["details"],
        **{name: row[name].isoformat() for name in ("opened_at", "last_true_at")},
    }


def _names(rows: Iterable[Row]) -> list[str]:
    return [row["rule"] for row in rows]
