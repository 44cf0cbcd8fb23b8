"""Rules that ask the tables, on the past: each is asked in states of the past, as the owner asks it live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.questions.alerts.offenders import Vitals, offenders_of
from coupon_ledger.questions.backtest.restored import State
from coupon_ledger.questions.backtest.stretches import Stretch, raised

Key = tuple[tuple[str, str], ...]
_NO_ALERT: Final[dict[str, Any]] = dict.fromkeys(
    ("opened_at", "fired_at", "last_true_at", "closed_at", "value", "peak", "threshold", "times_true", "details")
)


@dataclass(slots=True)
class _Open:
    """A key for which the condition holds. `worst`: what was found when the value was highest."""

    since: datetime
    values: list[tuple[datetime, float]]
    worst: Offender


@dataclass(slots=True)
class Asking:
    """One rule, and what it found in the states that it was asked in. `problem`: why it failed; it is not asked
    again."""

    rule: Rule
    problem: str | None = None
    asked_at: datetime | None = None
    _open: dict[Key, _Open] = field(default_factory=dict)
    _over: dict[Key, list[tuple[_Open, datetime | None]]] = field(default_factory=dict)

    def see(self, state: State) -> None:
        """Ask the rule, if it is due."""
        if self.problem is not None or (self.asked_at is not None and state.clock - self.asked_at < self.rule.every):
            return
        self.asked_at = state.clock
        try:
            found = offenders_of(state.cursor, self.rule, Vitals(now=state.clock))
        except Exception as error:  # whatever a rule does, the others are asked
            self.problem = str(error) or type(error).__name__
            state.cursor.end()  # it may have been interrupted
            state.cursor.begin()
            return
        self._note({tuple(one.key.items()): one for one in found}, state.clock)

    def _note(self, found: Mapping[Key, Offender], at: datetime) -> None:
        for key in self._open.keys() - found.keys():
            self._over.setdefault(key, []).append((self._open.pop(key), at))
        for key, one in found.items():
            known = self._open.get(key)
            if known is None:
                since = min(one.since, at)
                self._open[key] = _Open(since, [(since, one.value)], one)
            else:
                known.values.append((at, one.value))
                known.worst = max(known.worst, one, key=lambda offender: abs(offender.value))

    def alerts(self, clock: datetime) -> Iterator[dict[str, Any]]:
        """The alerts, as rows of a backtest, and a row that says why the rule failed, if it did."""
        for key, known in self._open.items():
            self._over.setdefault(key, []).append((known, None))
        for key, opened in sorted(self._over.items()):
            yield from self._of_key(key, opened, clock)
        if self.problem is not None:
            about = {"rule": self.rule.name, "rule_version": self.rule.version, "key": "{}"}
            yield {**about, **_NO_ALERT, "problem": self.problem}

    def _of_key(
        self, key: Key, opened: Sequence[tuple[_Open, datetime | None]], clock: datetime
    ) -> Iterator[dict[str, Any]]:
        stretches = [Stretch(0, one.since, until, tuple(one.values)) for one, until in opened]
        for alert in raised(stretches, self.rule, clock):
            found = [one.worst for one, until in opened if alert.opened_at <= one.since]
            worst = found[0]
            money = {} if worst.money_minor is None else {
                "money_minor": worst.money_minor, "currency": worst.currency
            }  # fmt: skip
            alert.details = {**worst.details, **money}
            yield alert.row(self.rule, dict(key), worst.threshold, clock)
