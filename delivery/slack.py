"""Slack: incoming webhooks and bots. Apprise sends them text, which it escapes: Slack reads tags and mentions in plain
text too."""

from __future__ import annotations

from coupon_ledger.delivery.apprise_sender import send as send_with_apprise
from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import Outcome, Response, by_status


def judge(response: Response) -> Outcome:
    """Webhooks answer `ok`, or a status with a word; bots always answer with status 200."""
    outcome = by_status(response)
    error = response.json().get("error")
    if outcome.result == "sent" and error:
        return Outcome("failed", f"Slack: {error}", 60.0 if error == "ratelimited" else None)
    if outcome.result != "sent" and response.body:
        word = response.body[:100].decode("utf-8", "replace")
        return Outcome(outcome.result, f"{outcome.reason}: {word}", outcome.retry_after_s)
    return outcome


def send(job: Job) -> Outcome:
    return send_with_apprise(job, judge)
