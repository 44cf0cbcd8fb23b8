"""Publishing over HTTP: what was answered is in the log, and each event has a result of its own."""

from __future__ import annotations

import gzip
import json
import sqlite3
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.ledger.log import TopicPartition
from coupon_ledger.ledger.topics import COUPON
from tests.command_line import LOG, coupon_event, ends, ndjson, opened_log, wait_until
from tests.owners import Reply
from tests.services import Service, serving

pytestmark = pytest.mark.long


def named(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def created(n: int, coupon: str | None = None, **fields: Any) -> list[dict[str, Any]]:
    return [coupon_event("created", f"e-{i}", coupon_id=f"{coupon or named('c')}-{i}", **fields) for i in range(n)]


def rows(service: Service, question: str, reply: Reply | None = None, **parameters: Any) -> list[dict[str, Any]]:
    """The answer to a question, after what `reply` says was published."""
    headers = {"Wait-For": reply.json["wait_for"]} if reply is not None else {}
    answer = service.get(f"/v1/questions/{question}", headers=headers, **parameters)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json["rows"]
    return found


def test_one_event_can_be_asked_for_once_it_is_answered(service: Service) -> None:
    """Else a shop could not read what it has written."""
    coupon = named("c")
    reply = service.publish(coupon_event("created", "e-1", coupon_id=coupon))
    assert reply.status == 201, reply.body
    topic, _, _ = reply.json["position"].split(":")
    assert topic == COUPON
    [row] = rows(service, "state", reply, coupon=coupon)
    assert (row["coupon_id"], row["state"]) == (coupon, "created")


@pytest.mark.parametrize("kind", ["array", "ndjson", "csv", "gzip"])
def test_a_batch_comes_in_each_format(service: Service, kind: str) -> None:
    """Else a system that has only this format could not publish."""
    coupon = named("c")
    events = created(3, coupon)
    for event in events:
        event["occurred_at"] = "2026-11-11T08:00:00+08:00"
    options: dict[str, Any] = {}
    body = json.dumps(events).encode()
    if kind == "ndjson":
        body, options = ndjson(events), {"kind": "application/x-ndjson"}
    elif kind == "csv":
        names = [name for name in events[0] if name != "topic"]
        lines = [",".join(str(event[name]) for name in names) for event in events]
        body = "\n".join([",".join(names), *lines]).replace("T08:00:00+08:00", " 08:00:00").encode()
        options = {"kind": "text/csv", "topic": COUPON, "zone": "Asia/Shanghai"}
    elif kind == "gzip":
        body, options = gzip.compress(body), {"headers": {"Content-Encoding": "gzip"}}
    reply = service.publish(body, **options)
    assert reply.status == 200, reply.body
    assert (reply.json["appended"], reply.json["refused"]) == (3, 0)
    assert [(item["item"], item["status"]) for item in reply.json["items"]] == [(n, "appended") for n in range(3)]
    [row] = rows(service, "state", reply, coupon=f"{coupon}-2")
    assert row["created_at"] == "2026-11-11T00:00:00.000000Z"


def test_a_refused_event_does_not_hold_up_the_others(service: Service) -> None:
    """Else one bad event would keep a whole batch out, or go in unnoticed."""
    good, missing, foreign, last = created(4)
    del missing["coupon_id"]
    foreign["source"] = "others"
    reply = service.publish([good, missing, foreign, last])
    assert reply.status == 200, reply.body
    assert [item["status"] for item in reply.json["items"]] == ["appended", "refused", "refused", "appended"]
    assert [problem["field"] for problem in reply.json["items"][1]["problems"]] == ["coupon_id"]
    assert [problem["field"] for problem in reply.json["items"][2]["problems"]] == ["source"]
    assert service.publish(foreign).status == 422
    assert service.publish(foreign, role="admin").status == 201


def test_the_same_events_twice_change_nothing(service: Service) -> None:
    """Else a shop that sends again after a broken connection would count coupons twice."""
    coupon = named("c")
    events = created(1, coupon) * 2
    before = rows(service, "state", service.publish(events), coupon=f"{coupon}-0")
    after = rows(service, "state", service.publish(events), coupon=f"{coupon}-0")
    assert (before[0]["events"], before[0]["violations"]) == (1, 0)
    assert before == after


DEEP = b"[" * 10_000
BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 422),
    "only spaces": (b" \n ", 422),
    "no JSON": (b"coupon", 422),
    "cut off": (b'{"topic": "coupon.events", "ty', 422),
    "cut off array": (b'[{"topic": "coupon.events"}, {"ty', 422),
    "a number": (b"1", 422),
    "wrong charset": ('{"topic": "coupon.events", "source": "käse"}'.encode("latin-1"), 422),
    "UTF-16": ('{"topic": "coupon.events"}'.encode("utf-16"), 422),
    "deep": (DEEP, 422),
    "deep field": (b'{"attributes":' + DEEP + b"]" * 10_000 + b"}", 422),
    "surrogate": (b'{"topic": "coupon.events", "event_id": "\\ud800"}', 422),
    "NaN": (b'{"topic": "coupon.events", "discount_minor": NaN}', 422),
    "huge integer": (b'{"topic": "coupon.events", "discount_minor": ' + b"9" * 5_000 + b"}", 422),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_event_is_refused(service: Service, name: str) -> None:
    """Else a fault of one client would be an error of the service, or look as if the event had been published."""
    body, status = BODIES[name]
    before = ends([COUPON], service.folder / LOG)
    reply = service.publish(body)
    assert reply.status == status, reply.body
    assert reply.json["detail"]
    listed = service.publish(b"[" + body + b"]")
    assert listed.status in (200, 422), listed.body
    assert listed.status == 422 or listed.json["appended"] == 0
    assert ends([COUPON], service.folder / LOG) == before


def test_a_byte_order_mark_is_no_fault(service: Service) -> None:
    """Else files that Windows programs wrote could not be published."""
    [event] = created(1)
    assert service.publish(b"\xef\xbb\xbf" + json.dumps(event).encode()).status == 201
    assert service.publish(b"\xef\xbb\xbf" + ndjson([event]), kind="application/x-ndjson").json["appended"] == 1


def test_a_field_that_comes_twice_has_one_meaning(service: Service) -> None:
    """Else two systems that read the same body would see different events. Refused, or the last one counts as in JSON
    elsewhere."""
    [event] = created(1)
    text = json.dumps(event)[:-1] + ', "coupon_id": "c-twice"}'
    reply = service.publish(text.encode())
    assert reply.status in (201, 422)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"kind": "text/plain"}, 415),
        ({"kind": ""}, 415),
        ({"kind": "text/csv"}, 422),
        ({"topic": "coupon.alerts"}, 422),
        ({"topic": "coupon.operations"}, 422),
        ({"topic": "coupon.dead-letters"}, 422),
        ({"topic": "no.such"}, 422),
        ({"topic": "'; DROP TABLE coupons; --"}, 422),
        ({"zone": "Mars/Olympus"}, 422),
        ({"zone": "../../etc/passwd"}, 422),
        ({"nonsense": "1"}, 422),
        ({"headers": {"Content-Encoding": "br"}}, 415),
        ({"headers": {"Content-Encoding": "gzip"}}, 400),
    ],
    ids=str,
)
def test_a_request_that_is_not_understood_is_refused(service: Service, options: dict[str, Any], status: int) -> None:
    """Else it would be read as something that its sender did not mean."""
    reply = service.publish(created(1), **options)
    assert reply.status == status, reply.body
    assert reply.json["detail"]


@pytest.mark.parametrize("topic", ["coupon.alerts", "coupon.operations", "coupon.dead-letters", "no.such"])
def test_an_event_cannot_name_a_topic_of_the_ledger(service: Service, topic: str) -> None:
    """Else a shop could write alerts and operations as if the ledger had."""
    reply = service.publish({**created(1)[0], "topic": topic}, role="admin")
    assert reply.status == 422, reply.body


def test_bodies_have_a_size(service: Service) -> None:
    """Else one request could fill the memory, packed or not."""
    assert service.publish(b" " * 16_000_001).status == 413
    packed = gzip.compress(b" " * 50_000_000)
    assert service.publish(packed, headers={"Content-Encoding": "gzip"}).status == 413
    broken = gzip.compress(json.dumps(created(1)).encode())[:-9]
    assert service.publish(broken, headers={"Content-Encoding": "gzip"}).status == 400
    events = ndjson(created(1) * 10_001)
    assert service.publish(events, kind="application/x-ndjson").status == 413


def test_many_at_once_all_get_their_own_position(service: Service) -> None:
    """Else a shop could take somebody else's event for its own."""
    coupons = [named("c") for _ in range(40)]
    replies: dict[str, Reply] = {}

    def publish(coupon: str) -> None:
        replies[coupon] = service.publish(coupon_event("created", "e-1", coupon_id=coupon))

    threads = [threading.Thread(target=publish, args=(coupon,)) for coupon in coupons]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status for reply in replies.values()} == {201}
    log = opened_log(service.folder / LOG)
    try:
        for coupon, reply in replies.items():
            topic, partition, offset = reply.json["position"].split(":")
            [record] = log.records_at({TopicPartition(topic, int(partition)): int(offset)}).values()
            assert record.key.decode() == coupon
    finally:
        log.close()


@pytest.mark.slow
def test_a_log_that_is_locked_for_long_is_said_and_then_forgotten(service: Service) -> None:
    """Else an outage of the log would look like success, or outlast itself."""
    with sqlite3.connect(service.folder / LOG, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        reply = service.publish(created(1)[0])
        other.execute("ROLLBACK")
    other.close()
    assert reply.status == 503, reply.body
    assert reply.headers["Retry-After"]
    wait_until(lambda: service.publish(created(1)[0]).status == 201, "publishing")


def kill_after_answers(folder: Path, rounds: int) -> None:
    """Publish, kill both parts right after the last answer, and look after the restart, again and again."""
    answered: set[str] = set()
    with serving(folder) as service:
        for n in range(rounds):
            events = created(5, f"r{n}")
            replies = [service.publish(event) for event in events]
            service.kill("service")
            service.kill("consumer")
            assert {reply.status for reply in replies} == {201}
            answered |= {str(event["coupon_id"]) for event in events}
            wait_until(service.answers, "both parts")
            wait_for = {"Wait-For": ",".join(reply.json["wait_for"] for reply in replies)}
            # A state from before the kill may still be told.
            wait_until(
                lambda headers=wait_for: service.get("/v1/questions/coupons", headers=headers).status == 200,  # type: ignore[misc]
                "the events",
            )
            found = {row["coupon_id"] for row in rows(service, "coupons", replies[-1], page_size=100_000)}
            assert found == answered


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    """Else a shop that was told that its event is there would have lost it."""
    kill_after_answers(tmp_path, 1)


@pytest.mark.slow
def test_what_was_answered_survives_many_kills(tmp_path: Path) -> None:
    """As above, where it may take luck to meet the fault."""
    kill_after_answers(tmp_path, 20)
