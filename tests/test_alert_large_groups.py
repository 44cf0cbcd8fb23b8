"""Groups of linked users with more members than the evidence of an alert names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coupon_ledger.questions.alerts import behind
from tests.command_line import coupon_event, done, ndjson

RING = """groups:
- name: g
  rules:
  - alert: ring
    expr: {kind: linked, events: [claimed], over: [device_id], users: 4, at_least: 4, window: 1d}
    action: {do: revoke_coupons}
"""


def _ring(users: int) -> str:
    """People share one phone, beside some who do not. Returns the id of the alert about them."""
    Path("rules.yaml").write_text(RING, encoding="utf-8")
    claims = [
        coupon_event("claimed", f"e-{n}", coupon_id=f"c-{n}", user_id=f"u-{n}", campaign_id="k", coupon_type="cash",
                     device_id="phone" if n < users else f"d-{n}", occurred_at=f"2026-11-11T10:{n // 2:02}:00Z",
                     face_value_minor=500, currency="CNY")
        for n in range(users + 9)
    ]  # fmt: skip
    clock = coupon_event("claimed", "e-999", coupon_id="c-999", user_id="u-999", occurred_at="2026-11-11T11:40:00Z")
    done("init")
    done("publish", "-", stdin=ndjson([*claims, clock]))
    done("consume", "--alert-rules", "rules.yaml")
    [alert] = [r["alert_id"] for r in done("alerts", "list", "--rule", "ring", "-o", "json").json]
    return str(alert)


@pytest.mark.long
def test_of_a_large_group_all_are_shown_and_acted_on(home: Path) -> None:
    """Else fifty of seventy lose their coupons, and everybody believes that all did."""
    alert = _ring(70)
    row = done("alerts", "show", alert, "-o", "json").json
    assert len(row["evidence"]["details"]["first_users"]) == 50
    assert (row["users"], row["coupons"]) == (70, 70)
    act = ("alerts", "act", alert, "--alert-rules", "rules.yaml", "-o", "json")
    ran = done(*act, "--yes", "--why", "one phone")
    assert ran.json["new_events"] == 70 and "can be named" not in ran.err
    done("consume", "--alert-rules", "rules.yaml")
    states = {row["coupon_id"]: row["state"] for row in done("coupons", "-o", "ndjson").rows}
    assert {coupon for coupon, state in states.items() if state == "revoked"} == {f"c-{n}" for n in range(70)}


@pytest.mark.long
@pytest.mark.parametrize(
    ("lang", "said"), [("en", "only 50 of the 70 users"), ("zh", "该团伙共70个用户，此处只能列出50")]
)
def test_of_a_large_group_that_cannot_be_found_again_it_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, lang: str, said: str
) -> None:
    """Else everybody believes that an action reached the whole group."""
    alert = _ring(70)
    monkeypatch.setattr(behind, "members", lambda *_: None)
    for command in (("show", alert), ("act", alert, "--alert-rules", "rules.yaml")):
        ran = done("--lang", lang, "alerts", *command)
        words = re.sub(r"\s+", "" if lang == "zh" else " ", ran.out + ran.err)
        assert said in words
