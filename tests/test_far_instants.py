"""The first and the last instant that an event may carry: no command ends at them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from coupon_ledger.questions.metrics.periods import Buckets, Zone
from tests.command_line import coupon_event, done, ledger, ndjson

FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
COMMANDS = [
    "metrics query created_events orders",
    "metrics query created_events --since 2026-11-01",
    "metrics query created_events --grain month --since 9999-01-01",
    "metrics query created_events --grain week --since 9999-12-01",
    "metrics query created_events --grain day --since 9999-12-20 --zone America/New_York",
    "metrics query created_events --grain minute --since 9999-12-31T23:00:00Z",
    "report roi",
    "report channels",
    "report finance",
    "report finance cash --zone America/New_York",
    "report cohorts",
    "report segments",
    "report restated --known-from 2026-11-01",
    "review k-1",
    "attribution show --model last",
    "campaigns",
    "coupons",
    "coupons expiring",
    "history c-9",
    "order o-9",
    "status",
    "expire --dry-run",
]


@pytest.fixture(scope="module", autouse=True)
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("far"))
        paid = {"user_id": "u-1", "currency": "CNY", "gross_minor": 100, "net_minor": 90, "channel": "app"}
        head = {"topic": "order.events", "type": "paid", "source": "shop", **paid}
        events = [
            coupon_event("created", f"e-{n}", coupon_id=f"c-{n}", currency="CNY", occurred_at=at, valid_until=LAST)
            for n, at in ((0, FIRST), (5, "2026-11-11T00:00:00Z"), (9, LAST))
        ]
        events += [
            {**head, "event_id": f"p-{n}", "order_id": f"o-{n}", "occurred_at": at}
            for n, at in ((0, FIRST), (5, "2026-11-11T00:00:00Z"), (9, LAST))
        ]
        done("init")
        done("publish", "-", stdin=ndjson(events))
        done("consume")
        yield


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_ends_at_the_ends_of_time(command: str) -> None:
    """One coupon that is valid for ever, or one producer with a wrong clock, took every report from everybody."""
    ran = ledger(*command.split())
    assert ran.code == 0 and "Traceback" not in ran.err, ran.err
    assert "out of range" not in ran.out + ran.err


@pytest.mark.parametrize("grain", ["minute", "hour", "day", "week", "month"])
@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York", "UTC"])
def test_buckets_end_with_the_calendar(grain: str, zone: str) -> None:
    buckets = Buckets(grain, Zone(zone))
    last = list(buckets.keys(buckets.key(datetime.max - timedelta(hours=3)), datetime.max))
    assert last == sorted(set(last)) and last[-1] <= datetime.max
    assert buckets.key(datetime.min) <= datetime(1, 1, 8)
