"""企业微信: robots of groups. Apprise sends them text."""

from __future__ import annotations

from typing import Final

from coupon_ledger.delivery.apprise_sender import send as send_with_apprise
from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import Outcome, by_code

judge: Final = by_code("errcode", limited=frozenset({45009, 45033}), refused=frozenset({40058, 44004, 45002}))


def send(job: Job) -> Outcome:
    return send_with_apprise(job, judge)
