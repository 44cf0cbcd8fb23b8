"""What a program gets that asks the service: whole answers of one state, what it has just published, a feed that goes
on after a lost connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from coupon_ledger import Client, Publisher
from coupon_ledger.api import http_client
from coupon_ledger.api.http_client import LiveEvent, _events
from coupon_ledger.ledger.errors import LedgerError, ServiceRefused, ServiceUnavailable, SettingsError
from tests.command_line import coupon_event
from tests.loopback import Answer, closed_port
from tests.running_service import Running, running
from tests.test_http_log import TOKEN, Clock, answering, refusing

ODD = "券/1 ?&#%2F"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def client(service: Running) -> Iterator[Client]:
    with Client(service.url, token=service.admin) as client:
        yield client


def published(service: Running, *events: dict[str, Any]) -> str:
    """Publish the events; returns what a later question waits for."""
    with Publisher.open(service.url, token=service.token) as publisher:
        for event in events:
            assert publisher.publish(event)
    return publisher.wait_for


def on_coupon(kind: str, coupon: str, **fields: Any) -> dict[str, Any]:
    return coupon_event(kind, f"{coupon}-{kind}", coupon_id=coupon, **fields)


@pytest.mark.long
def test_a_program_sees_what_it_has_just_published(service: Running, client: Client) -> None:
    """Else an order system would be told that a coupon is free which it has used a moment ago."""
    events = [on_coupon("created", ODD), on_coupon("claimed", ODD, occurred_at="2026-11-11T00:01:00Z")]
    free = client.usable(ODD, user="u-1", order="o-1", gross_minor=5_000, wait_for=published(service, *events))
    assert (free["coupon_id"], free["usable"], free["reasons"]) == (ODD, True, [])
    used = on_coupon("used", ODD, occurred_at="2026-11-11T00:02:00Z")
    taken = client.usable(ODD, user="u-1", wait_for=published(service, used))
    assert (taken["usable"], taken["reasons"]) == (False, ["used_when_used"])


@pytest.mark.long
def test_an_answer_is_whole_however_many_pages_it_has(service: Running, client: Client) -> None:
    """Else a report over the first page would pass for one over all coupons."""
    names = [f"page-{number:03}" for number in range(250)]
    wait_for = published(service, *(on_coupon("created", name) for name in names))
    answer = client.ask("coupons", page_size=100, wait_for=wait_for)
    assert {row["coupon_id"] for row in answer.rows} >= set(names) and answer.as_of["commits"] > 0
    pages = list(client.pages("coupons", page_size=100))
    assert len(pages) == -(-len(answer.rows) // 100)
    assert [row for page in pages for row in page.rows] == answer.rows
    assert len({page.as_of["commits"] for page in pages}) == 1
    table = client.table("coupons")
    assert table.column("coupon_id").to_pylist() == [row["coupon_id"] for row in answer.rows]


@pytest.mark.long
def test_the_feed_tells_of_a_commit(service: Running, client: Client) -> None:
    """Else a page would show an old state and nobody would know."""
    feed = client.live()
    first = next(feed)
    assert first.kind == "commit" and first.id
    published(service, on_coupon("created", "live-1"))
    later = next(event for event in feed if event.kind == "commit" and event.data["commits"] > first.data["commits"])
    feed.close()
    resumed = client.live(since=later.id)
    assert next(resumed).data["commits"] >= later.data["commits"]
    resumed.close()


@pytest.mark.long
def test_what_the_service_refuses_is_said_in_its_words(service: Running, client: Client) -> None:
    """Else a wrong parameter or a role that may not ask would be a riddle."""
    with pytest.raises(ServiceRefused, match="limit") as refused:
        client.ask("coupons", limit=-1)
    assert refused.value.status == 422
    with pytest.raises(ServiceRefused) as refused:
        client.ask("nothing of that name")
    assert refused.value.status == 404
    with pytest.raises(LedgerError, match="parameters: a object is no value"):
        client.ask("coupons", limit=object())
    publisher = Client(service.url, token=service.token)
    with pytest.raises(ServiceRefused, match="role publisher may not") as refused:
        publisher.ask("coupons")
    assert refused.value.status == 403
    publisher.close()


# ── A service that cannot answer ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("coupon_ledger.ledger.http_service.time", clock)
    monkeypatch.setattr(http_client, "time", clock)
    return clock


def test_a_question_is_asked_again_while_the_service_is_busy(clock: Clock) -> None:
    """Else each restart of the consumer would be an error in every program that asks."""
    answer = Answer(body=json.dumps({"as_of": {"commits": 1}, "next": None, "rows": [{"n": 1}]}).encode())
    with answering(refusing(503), refusing(429, Retry_After="2"), answer) as (_, url), Client(url, token=TOKEN) as c:
        assert c.ask("summary").rows == [{"n": 1}]
    assert len(clock.pauses) == 2 and clock.pauses[1] == 2.0


def test_a_question_that_took_too_long_is_not_asked_again(clock: Clock) -> None:
    """Else one slow question would be run again and again, and slow down all others."""
    with (
        answering(refusing(504, "took longer than 30 s")) as (server, url),
        Client(url, token=TOKEN) as client,
        pytest.raises(ServiceRefused, match="longer than 30 s") as refused,
    ):
        client.ask("summary")
    assert (refused.value.status, len(server.requests), clock.pauses) == (504, 1, [])


def test_an_answer_that_is_none_is_said(clock: Clock) -> None:
    """Else a wrong address would end in a traceback."""
    with (
        answering(Answer(body=b"<html>")) as (_, url),
        Client(url, token=TOKEN) as client,
        pytest.raises(SettingsError, match="does not answer as coupon-ledger does"),
    ):
        client.usable("c-1")


def feed(*events: tuple[str, str], cut: str = "") -> Answer:
    """A connection of the feed that ends after these events (kind, id), in the middle of `cut`."""
    text = ": alive\n\n" + "".join(f'event: {kind}\nid: {name}\ndata: {{"is": "{name}"}}\n\n' for kind, name in events)
    return Answer(body=(text + cut).encode(), headers={"Content-Type": "text/event-stream"})


def test_the_feed_goes_on_after_the_last_event(clock: Clock) -> None:
    """Else an alert that fires while the connection is lost would never be seen."""
    answers = [
        feed(("commit", "1~0:3"), ("alert", "1~0:4"), cut="event: alert\nid: 1~0:5\ndata: {"),
        refusing(503),
        Answer(0),
        feed(("alert", "2~0:5")),
    ]
    with answering(*answers) as (server, url), Client(url, token=TOKEN) as client:
        events = client.live()
        seen = [next(events).id for _ in range(3)]
        events.close()
    assert seen == ["1~0:3", "1~0:4", "2~0:5"]
    assert [r.headers.get("last-event-id") for r in server.requests] == [None, "1~0:4", "1~0:4", "1~0:4"]
    assert len(clock.pauses) == 3


def test_a_feed_that_stays_lost_is_an_error_and_not_a_silence(clock: Clock) -> None:
    """Else a program would wait for ever for news of a service that is gone."""
    client = Client(f"http://127.0.0.1:{closed_port()}", token=TOKEN, timeout_s=20)
    with pytest.raises(ServiceUnavailable, match="the feed is lost"):
        next(client.live())
    assert 20 < clock.now < 60


def test_a_revoked_token_ends_the_feed(clock: Clock) -> None:
    """Else a program would knock for ever at a door that is closed to it."""
    with answering(feed(("commit", "1")), refusing(401, "the token is revoked")) as (_, url):
        events = Client(url, token=TOKEN).live()
        next(events)
        with pytest.raises(SettingsError, match="token is revoked"):
            next(events)


def test_events_are_read_as_they_are_sent() -> None:
    """Else comments, or an event without data, would be taken for news."""
    lines = (
        b'retry: 1000\n\n: alive\n\nevent: away\ndata: {}\n\nid: 7\r\nevent: commit\r\ndata:{"a": 1}\r\n\r\ndata: {"cut'
    )
    assert list(_events(lines.splitlines(keepends=True))) == [
        LiveEvent("away", "", {}),
        LiveEvent("commit", "7", {"a": 1}),
    ]
