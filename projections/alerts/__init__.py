"""Alerts: rules that say what looks wrong, and when their conditions held.

The rules are data (`rules.py`). The kept table `alert_episodes` (`table.py`) says when the condition of a rule held,
for which key. docs/decisions/0032-alerts.md has the reasons.
"""
