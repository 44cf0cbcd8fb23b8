"""The live feed loses no event of an alert, whatever happens to the owner in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from coupon_ledger.api.service import live
from coupon_ledger.api.service.callers import Caller, Identify
from coupon_ledger.api.service.live import Live
from coupon_ledger.api.service.owner_link import OwnerLink, State
from coupon_ledger.ledger.errors import OwnerGone

CALLER = Caller("token:t", "manager")


class FakeLink:
    """An owner that fails as often as `failures` says."""

    failures = 0

    async def run(self, work: Callable[[Any], Any]) -> Any:
        if self.failures:
            self.failures -= 1
            raise OwnerGone("away")
        return work(None)


def state(**alerts: int) -> State:
    return State(7, None, None, {}, {int(name[1:]): offset for name, offset in alerts.items()}, 0, 0)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """`coupon.alerts` holds 25 events in partition 0 and 3 in partition 1; 10 are told at once."""

    def told(_: Caller, since: Mapping[int, int], __: Any) -> list[dict[str, Any]]:
        events = [{"partition": p, "offset": n} for p, end in ((0, 25), (1, 3)) for n in range(since.get(p, 0), end)]
        return events[:10]

    monkeypatch.setattr(live, "_MOST_ALERTS", 10)
    monkeypatch.setattr(live, "_recorded", told)


def told_after(link: FakeLink, known: dict[int, int], reached: State) -> list[str]:
    """The ids of the events that a follower gets, who knows those before `known`."""

    async def ids() -> list[str]:
        follower = Live(cast(OwnerLink, link), cast(Identify, None))
        sent = [event async for event in follower._alert_events(CALLER, known, reached)]
        return [event.decode().split("\n")[1].removeprefix("id: ") for event in sent]

    return asyncio.run(ids())


@pytest.mark.usefixtures("recorded")
def test_however_many_were_missed_all_are_told() -> None:
    """Else after a night away, a page would show the first thousand alerts and call the rest known."""
    known = {0: 2}
    ids = told_after(FakeLink(), known, state(p0=25, p1=3))
    assert ids == [*(f"7~0:{n}~1:0" for n in range(3, 26)), *(f"7~0:25~1:{n}" for n in range(1, 4))]
    assert known == {0: 25, 1: 3}
    assert told_after(FakeLink(), known, state(p0=25, p1=3)) == []


@pytest.mark.usefixtures("recorded")
def test_events_that_could_not_be_read_come_later() -> None:
    """Else an alert that fired while the consumer went away would never be shown."""
    link, known = FakeLink(), {0: 20, 1: 3}
    link.failures = 1
    assert told_after(link, known, state(p0=25, p1=3)) == []
    assert known == {0: 20, 1: 3}
    assert len(told_after(link, known, state(p0=25, p1=3))) == 5
