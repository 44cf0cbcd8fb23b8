"""SMS gateways, and every other service that apprise knows. Services with short messages get the short text."""

from __future__ import annotations

from coupon_ledger.delivery.apprise_sender import send as send_with_apprise
from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import Outcome


def send(job: Job) -> Outcome:
    return send_with_apprise(job)
