"""钉钉: robots of groups, signed or not. Apprise sends them Markdown."""

from __future__ import annotations

from typing import Final

from coupon_ledger.delivery.apprise_sender import send as send_with_apprise
from coupon_ledger.delivery.job import Job
from coupon_ledger.delivery.outcome import Outcome, by_code

judge: Final = by_code("errcode", limited=frozenset({130101, 660026, 90018}), refused=frozenset({40035, 460101}))


def send(job: Job) -> Outcome:
    return send_with_apprise(job, judge, markdown=True)
