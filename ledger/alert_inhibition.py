"""Inhibition: alerts of one rule hold back messages about alerts of another, which it explains.

Always true: of the standing alerts, at least one is held back by none, whatever the rules say about each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from coupon_ledger.ledger.alert_state import Alert


class Inhibition:
    """Says which standing alert holds back another. `inhibited_by`: by rule, the rules whose alerts hold back its own.

    Alerts hold each other back only if all labels that both have are equal. If rules hold back each other in a circle,
    only the alert that has stood longer holds back the other.
    """

    def __init__(self, standing: Iterable[Alert], inhibited_by: Mapping[str, Sequence[str]]) -> None:
        self._inhibited_by = inhibited_by
        self._standing: dict[str, list[Alert]] = {}
        for alert in sorted(standing, key=_age):
            self._standing.setdefault(alert.rule, []).append(alert)
        self._above: dict[str, frozenset[str]] = {}

    def source(self, alert: Alert) -> Alert | None:
        """An alert that holds this one back: of several, the one that has stood longest. None if there is none."""
        rules = dict.fromkeys(self._inhibited_by.get(alert.rule, ()))
        firsts = (
            next((one for one in self._standing.get(rule, ()) if self._holds_back(one, alert)), None) for rule in rules
        )
        return min((first for first in firsts if first is not None), key=_age, default=None)

    def _holds_back(self, source: Alert, alert: Alert) -> bool:
        if source.alert_id == alert.alert_id:
            return False
        if any(source.labels[name] != value for name, value in alert.labels.items() if name in source.labels):
            return False
        in_a_circle = alert.rule in self._all_above(source.rule)
        return not in_a_circle or _age(source) < _age(alert)

    def _all_above(self, rule: str) -> frozenset[str]:
        """The rules that hold back this one, directly or through others."""
        if rule not in self._above:
            found: set[str] = set()
            left = [rule]
            while left:
                more = set(self._inhibited_by.get(left.pop(), ())) - found
                found |= more
                left += more
            self._above[rule] = frozenset(found)
        return self._above[rule]


def _age(alert: Alert) -> tuple[object, str]:
    return (alert.stood_at or alert.opened_at, alert.alert_id)
