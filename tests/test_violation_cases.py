"""Small ledgers that once raised a violation too many, or one too few: each from a file in `tests/cases`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.test_money_cases import Ask, asked, case, rows_of

__all__ = ["asked", "rows_of"]

CASES = {
    "clean_cancel": [],
    "abandoned": [],
    "waiting_order": [],
    "guest_limit": [("over_person_limit", "c2"), ("over_user_limit", "c3"), ("wrong_user", "c3")],
    "paid_after_cancel": [("paid_after_cancel", "o1")],
    "reopened": [("paid_after_cancel", "o1")],
    "edit_removes_coupon": [("discount_mismatch", "o1"), ("use_not_named", "c1")],
    "discount_above_face": [("discount_above_value", "c1"), ("discount_above_value", "p1"), ("outside_validity", "p1")],
    "below_min_after_refund": [("below_min_after_refund", "c1")],
    "zero_total_refund": [("use_not_returned", "c1")],
    "free_order": [("use_not_returned", "c1")],
}


@pytest.mark.parametrize("name", CASES)
def test_exactly_the_rules_that_were_broken_are_reported(asked: Any, name: str) -> None:
    """Risk would chase customers who did nothing wrong, or miss those who did."""
    ask: Ask = asked(case(name))
    assert sorted((row["violation"], row["key"]) for row in ask("violations")) == CASES[name]


@pytest.mark.long
def test_a_merged_account_is_explained_and_loses_nothing(asked: Any) -> None:
    """A customer who merged a guest account would be treated as a thief."""
    ask: Ask = asked(case("guest_limit"))
    marks = {row["violation"]: row["explained"] for row in ask("violations")}
    assert marks == {"over_person_limit": False, "over_user_limit": False, "wrong_user": True}
    assert [row["explained"] for row in ask("history", coupon="c3")] == [[], [], [], ["wrong_user"]]
    assert "wrong_user" not in {row["point"] for row in ask("finance-losses")}
    counted = {row["violation"]: (row["violations"], row["explained"]) for row in ask("violation-counts")}
    assert counted["wrong_user"] == (0, 1)


@pytest.mark.long
def test_a_person_is_shown_with_all_ids(asked: Any) -> None:
    """Support could not see that three ids share one limit."""
    ask: Ask = asked(case("guest_limit"))
    [person] = ask("person", user="guest-a2")
    assert {row["user_id"]: row["coupons"] for row in person["ids"]} == {"guest-a1": 1, "guest-a2": 2, "member-7": 0}
    assert person["person"] == "member-7"
    assert [row["violation"] for row in person["violations"]] == ["over_person_limit", "over_user_limit", "wrong_user"]
