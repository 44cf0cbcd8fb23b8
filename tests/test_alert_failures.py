"""A rule that cannot be evaluated: people read which one, why, and what to do, in their language."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from coupon_ledger.delivery.posting import summary_of
from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.projections.alerts.rules_file import defaults
from tests.alert_owner import Place, append, farm, told
from tests.command_line import done

BROKEN = """
use_defaults: [rule_failed]
groups:
- name: own
  rules:
  - alert: bad_cast
    expr: {kind: sql, query: "SELECT coupon_id, CAST(coupon_id AS INTEGER) AS n FROM coupons", key: [coupon_id]}
  - alert: endless
    expr: {kind: sql, query: "SELECT count(DISTINCT hash(c0, c9)) AS n FROM MANY", key: [n], timeout: 1s}
""".replace("MANY", ", ".join(f"coupons AS c{n}" for n in range(10)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("failures"))
    made.rules.write_text(BROKEN, encoding="utf-8")
    with closing(made.log):
        done("init", *_at(made))
        append(made.log, farm("d-1", 0, number=20))
        for _ in range(2):
            done("consume", *_at(made), "--alert-rules", made.rules)
        yield made


def _at(place: Place) -> tuple[Any, ...]:
    return ("--log", place.settings.url, "--database", place.folder / "a.duckdb")


def _alert(place: Place, rule: str, about: str) -> Alert:
    [alert] = [a for a in AlertBook(told(place.log)).open_alerts() if a.rule == rule and about in a.labels.values()]
    return alert


def _shown(place: Place, alert: Alert, lang: str) -> str:
    return done("--lang", lang, "alerts", "show", alert.alert_id, *_at(place)[2:]).out


@pytest.mark.long
@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    ("failed", "why"),
    [
        ("bad_cast", {"en": "Conversion Error: Could not convert string", "zh": "Conversion Error: Could not convert"}),
        ("endless", {"en": "took longer than 1 s", "zh": "耗时超过 1 秒"}),
    ],
)
def test_what_failed_why_and_what_to_do_is_said(place: Place, lang: str, failed: str, why: dict[str, str]) -> None:
    """Else people read that some rule failed, for the reason "–", and look for it in all of them."""
    for alert in (_alert(place, "rule_failed", failed), _alert(place, failed, "evaluation")):
        text = _shown(place, alert, lang)
        sentence = " ".join(text.split("\n\n")[0].split())
        assert failed in sentence and "–" not in sentence
        assert why[lang].replace(" ", "") in sentence.replace(" ", "")
        assert f"alerts rules show {failed}" in text and "--saved" not in text


@pytest.mark.long
def test_messages_say_what_failed_and_why_in_both_languages(place: Place) -> None:
    """Else a channel has the same "–", at night, and nobody knows which rule is blind."""
    rules = {rule.name: rule for rule in defaults().rules}
    said = summary_of(_alert(place, "rule_failed", "endless"), rules["rule_failed"])
    assert "endless" in said["en"] and "took longer than 1 s" in said["en"]
    assert "endless" in said["zh"] and "耗时超过 1 秒" in said["zh"]
    of_rule = summary_of(_alert(place, "endless", "evaluation"), None)
    assert "took longer than 1 s" in of_rule["en"] and "耗时超过 1 秒" in of_rule["zh"]
