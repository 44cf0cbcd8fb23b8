"""What others did to an alert while a command ran: the order in the log decides, and people hear of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from coupon_ledger.cli.alerts.options import short
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from datetime import datetime

    from coupon_ledger.consumers.alerts.desk import Course


def lost_alert(course: Course) -> Note | None:
    """Why the acknowledgement that the command appended does not count, or no more; None if it does."""
    if course.after.phase == "resolved":
        said = {**_closing(course), "alert": short(course.after.alert_id)}
        if said["who"] is None:
            return note("alert {alert} has closed by itself meanwhile, at {at:instant}; nobody has to take it", **said)
        return note("{who} has closed alert {alert} meanwhile, at {at:instant}; nobody has to take it", **said)
    later = course.last("acknowledged")
    if later is None:
        return None
    return note("{who} has taken alert {alert} at {at:instant}, just after you, and has it now; agree on who goes on",
                who=later.operator, alert=short(course.after.alert_id), at=_second(later.occurred_at))  # fmt: skip


def _closing(course: Course) -> dict[str, Any]:
    """Who closed the alert (None: the ledger), and when."""
    at = course.after.resolved_at or course.after.at
    return {"who": course.after.resolved_by, "at": _second(at)}


def taken_over(course: Course, operator: str) -> Iterator[str]:
    """From whom the operator has taken the alert over."""
    earlier = course.before.acknowledged
    if earlier is not None and earlier.operator != operator:
        yield say("{who} had taken it at {at:instant}; from now on it is yours, so tell {who}",
                  who=earlier.operator, at=_second(earlier.at))  # fmt: skip


def judged_otherwise(course: Course, outcome: str) -> Note | None:
    """Who said right after the command that something else came of the alert; None if nobody did."""
    later = course.last("resolved")
    if later is None or later.outcome in (None, outcome):
        return None
    return note("{who} closed alert {alert} as {outcome:word} at {at:instant}, just after you, and that counts; agree,"
                " and run `coupon-ledger alerts resolve {alert}` again if it is wrong", who=later.operator,
                alert=short(course.after.alert_id), outcome=later.outcome, at=_second(later.occurred_at))  # fmt: skip


def closed_for(course: Course, operator: str) -> Iterator[str]:
    """For whom the operator has closed the alert: somebody else had taken it."""
    taken = course.before.acknowledged
    if course.before.phase != "resolved" and taken is not None and taken.operator != operator:
        yield say("{who} had taken it at {at:instant}; tell {who} that it is closed", who=taken.operator,
                  at=_second(taken.at))  # fmt: skip


def judged_before(course: Course, operator: str) -> Iterator[str]:
    """Who closed the alert before the command did."""
    who, at = course.before.resolved_by, course.before.resolved_at
    if course.before.phase == "resolved" and who not in (None, operator) and at is not None:
        yield say("{who} had closed it at {at:instant}", who=who, at=_second(at))


def _second(at: datetime) -> datetime:
    return at.replace(microsecond=0)
