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
        self._standing: dict[str, dict[tuple[str, ...], list[Alert]]] = {}
        for alert in sorted(standing, key=_age):
            by_names = self._standing.setdefault(alert.rule, {})
            by_names.setdefault(tuple(sorted(alert.labels)), []).append(alert)
        self._above: dict[str, frozenset[str]] = {}
        self._by_values: dict[tuple[object, ...], dict[tuple[str, ...], list[Alert]]] = {}

    def source(self, alert: Alert) -> Alert | None:
        """An alert that holds this one back: of several, the one that has stood longest. None if there is none."""
        sources = [
            source
            for rule in dict.fromkeys(self._inhibited_by.get(alert.rule, ()))
            for names in self._standing.get(rule, ())
            if (source := self._oldest(rule, names, alert)) is not None
        ]
        return min(sources, key=_age, default=None)

    def _oldest(self, rule: str, names: tuple[str, ...], alert: Alert) -> Alert | None:
        """Of the rule's alerts with labels of these names, the oldest one that holds this alert back."""
        shared = tuple(name for name in names if name in alert.labels)
        by_values = self._by_values.get((rule, names, shared))
        if by_values is None:
            by_values = self._by_values[rule, names, shared] = {}
            for source in self._standing[rule][names]:
                by_values.setdefault(tuple(source.labels[name] for name in shared), []).append(source)
        equal = by_values.get(tuple(alert.labels[name] for name in shared), ())
        in_a_circle = alert.rule in self._all_above(rule)
        return next(
            (
                source
                for source in equal
                if source.alert_id != alert.alert_id and (not in_a_circle or _age(source) < _age(alert))
            ),
            None,
        )

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
