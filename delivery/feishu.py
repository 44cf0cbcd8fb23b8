"""飞书 and Lark: robots of groups. Apprise sends them a card with Markdown. Robots with a signature are not among what
apprise can do: protect the robot with a keyword or a list of addresses."""

from __future__ import annotations

from typing import Final

from coupon_ledger.delivery.apprise_sender import send as send_with_apprise
from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import Outcome, by_code

judge: Final = by_code("code", limited=frozenset({11232, 11233, 99991400}), refused=frozenset({9499, 11246}))


def send(job: Job) -> Outcome:
    return send_with_apprise(job, judge, markdown=True)
