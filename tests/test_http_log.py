"""What an upstream system gets that publishes over HTTP: the same publisher, the same bytes in the log, nothing lost
while the service cannot answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger import Publisher
from coupon_ledger.api.service import publishing as route
from coupon_ledger.ledger import http_service
from coupon_ledger.ledger.codec import decode, encode
from coupon_ledger.ledger.errors import (
    EventsRefused,
    EventsTooLarge,
    InvalidEvent,
    LogClosed,
    LogError,
    LogUnavailable,
    Problem,
    SettingsError,
)
from coupon_ledger.ledger.events import MODELS, Event, parse_event
from coupon_ledger.ledger.formats.rows import NOTHING, column_kinds
from coupon_ledger.ledger.http_log import EVENT_BYTES, _line
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS, OPERATIONS
from scripts.examples import example
from tests.command_line import coupon_event, done, ledger, ndjson, one_sentence
from tests.loopback import Answer, Http, certificate, closed_port, serving
from tests.running_service import Running, publishing
from tests.test_publisher import EVERY_TOPIC, paid_for_much
from tests.wire import INSTANTS

TOKEN = "cl_secret"


# ── The same bytes ───────────────────────────────────────────────────────────────────────────────────────────

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "integer": st.integers(0, 2**53 - 1) | st.integers(0, 10_000),
    "instant": INSTANTS,
    "json": JSON,
    "list": st.lists(TEXTS | st.fixed_dictionaries({"sku": TEXTS}), max_size=3) | st.just([]),
}


@st.composite
def valid_events(draw: st.DrawFn, topic: str, kind: str) -> Event:
    """The example of the type, with drawn values in every field that takes them."""
    data = example(topic, kind)
    del data["topic"]
    drawn = {name: draw(VALUES[of]) for name, of in column_kinds(topic).items() if name != "type"}
    while True:
        try:
            return parse_event(topic, data | drawn)
        except InvalidEvent as error:
            for field in {problem.field.partition(".")[0] for problem in error.problems}:
                del drawn[field]


@pytest.mark.long
@pytest.mark.parametrize(("topic", "kind"), MODELS)
@given(data=st.data())
def test_the_service_makes_the_same_record(topic: str, kind: str, data: st.DataObject) -> None:
    """Else the same event, published over HTTP and directly, would be a conflict with itself."""
    events = data.draw(st.lists(valid_events(topic, kind), min_size=1, max_size=4))
    records = [Record(topic, event.key.encode(), encode(event)) for event in events]
    batch = route._read(b"".join(map(_line, records)), "ndjson", None, None, NOTHING)
    assert (batch.records, batch.refused) == (records, {})


# ── Publishing ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def log(sqlite_log_settings: LogSettings) -> LogSettings:
    """The log behind the service."""
    with closing(open_log(sqlite_log_settings, create=True)) as made:
        made.create_topics()
    return sqlite_log_settings


@pytest.fixture
def service(log: LogSettings, tmp_path: Path) -> Iterator[Running]:
    with publishing(log, tmp_path) as running:
        yield running


def messages(settings: LogSettings) -> set[bytes]:
    with closing(open_log(settings)) as log:
        chunks = log.read(dict.fromkeys(log.partitions(INPUT_TOPICS), 0), 100_000)
        return {value for chunk in chunks for value in chunk.values}


def ids(settings: LogSettings) -> set[str]:
    return {decode(message)[1]["event_id"] for message in messages(settings)}


def issued(event_id: str, **fields: Any) -> dict[str, Any]:
    return coupon_event("issued", event_id, **fields)


def test_what_was_published_over_http_is_in_the_log(service: Running, log: LogSettings) -> None:
    """Else a shop without access to the log could not publish."""
    with Publisher.open(service.url, token=service.admin) as publisher:
        for event in EVERY_TOPIC:
            assert publisher.publish(event)
    assert (publisher.report.accepted, publisher.waiting) == (len(EVERY_TOPIC), ())
    assert messages(log) == {encode(event) for event in EVERY_TOPIC}
    partitions = [part.rsplit(":", 1)[0] for part in publisher.wait_for.split(",")]
    assert len(partitions) == len(set(partitions)) and {p.split(":")[0] for p in partitions} == set(INPUT_TOPICS)


def test_the_service_may_refuse_events_and_the_others_go_on(service: Running, log: LogSettings) -> None:
    """Else one event with another system's `source` would hold up a shop's events for ever, or vanish."""
    publisher = Publisher.open(service.url, token=service.token)
    taken = [publisher.publish(e) for e in (issued("1"), issued("2", source="till"), issued("3", channel=4))]
    assert taken == [True, True, False]
    with pytest.raises(EventsRefused, match="event 2: source: is none that may be published here; allowed: shop") as e:
        publisher.flush()
    assert e.value.event_ids == ("2",) and not isinstance(e.value, EventsTooLarge)
    rules = [(r.number, r.event_id, [p.field for p in r.problems]) for r in publisher.report.refused]
    assert rules == [(2, "3", ["channel"]), (1, "2", ["source"])]
    assert (publisher.waiting, publisher.report.accepted) == ((), 1)
    publisher.publish(issued("4"))
    publisher.close()
    assert ids(log) == {"1", "4"}


@pytest.mark.long
def test_a_batch_of_any_size_is_sent_in_parts(service: Running, log: LogSettings) -> None:
    """Else whoever catches up after a day would be refused."""
    with Publisher.open(service.url, token=service.token, batch_size=25_000) as publisher:
        for number in range(25_000):
            publisher.publish(issued(f"e-{number}", coupon_id=f"c-{number}", attributes={"text": "x" * 600}))
    assert publisher.report.accepted == len(ids(log)) == 25_000


@pytest.mark.long
def test_an_event_that_is_too_large_for_http_is_named(service: Running, log: LogSettings) -> None:
    """Else one huge order would keep a shop's events waiting for ever."""
    lines = [{"sku": f"s-{n}", "category": "x" * 900} for n in range(5_000)]
    huge = paid_for_much("huge").model_dump(mode="json") | {"topic": "order.events", "lines": lines}
    publisher = Publisher.open(service.url, token=service.token)
    assert [publisher.publish(event) for event in (huge, issued("1"))] == [True, True]
    with pytest.raises(EventsTooLarge, match=rf"event huge of order\.events: [\d,]+ bytes .*{EVENT_BYTES:,}.*split"):
        publisher.flush()
    publisher.close()
    assert (publisher.report.accepted, publisher.waiting, ids(log)) == (1, (), {"1"})


def test_nothing_can_be_read_and_it_says_so(service: Running) -> None:
    """Else `consume --log https://…` would end in a traceback, or wait for ever."""
    log = open_log(LogSettings(url=service.url, token=service.token))
    with pytest.raises(SettingsError, match="published to it, not read"):
        log.partitions()
    with pytest.raises(SettingsError, match="published to it, not read"):
        log.read({}, 1)
    with pytest.raises(SettingsError, match="creates its topics itself"):
        log.create_topics()
    with pytest.raises(LogError, match=r"coupon\.operations: is not published to over HTTP"):
        log.append([Record(OPERATIONS, b"k", b"v")])
    log.close()
    with pytest.raises(LogClosed, match="closed; open it again"):
        log.append([])
    with pytest.raises(LogClosed, match="closed; open it again"):
        log.partitions([COUPON])


def test_an_idle_connection_that_was_closed_costs_nothing(log: LogSettings, tmp_path: Path) -> None:
    """Else the first event after a quiet minute, or after a restart of the service, would be an error."""
    with publishing(log, tmp_path) as service:
        publisher = Publisher.open(service.url, token=service.token)
        publisher.publish(issued("1"))
        publisher.flush()
        connection = publisher._log._service._connection  # type: ignore[attr-defined]
        connection.sock.shutdown(2)
        publisher.publish(issued("2"))
        publisher.close()
    assert ids(log) == {"1", "2"}


# ── A service that cannot take events ────────────────────────────────────────────────────────────────────────


class Clock(SimpleNamespace):
    """Time that passes only in pauses. `pauses`: how long each was, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.pauses = 0.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(http_service, "time", clock)
    return clock


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[Http, str]]:
    """A server with these answers, and then the usual one."""
    server = Http()
    server.answers.extend(answers)
    with serving(server.serve, server.ending) as port:
        yield server, f"http://127.0.0.1:{port}"


def appended(*event_ids: str) -> Answer:
    items = [{"item": i, "status": "appended", "position": f"coupon.events:0:{i}"} for i in range(len(event_ids))]
    return Answer(body=json.dumps({"items": items}).encode())


def refusing(status: int, detail: str = "busy", **headers: str) -> Answer:
    body = json.dumps({"status": status, "detail": detail}).encode()
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def published(url: str, *event_ids: str, **options: Any) -> Publisher:
    """Publish these events with one append."""
    publisher = Publisher.open(url, token=TOKEN, **{"attempts": 1, **options})
    for event_id in event_ids:
        publisher.publish(issued(event_id))
    publisher.flush()
    return publisher


@pytest.mark.parametrize("trouble", [refusing(429), refusing(502), refusing(503), Answer(0)], ids=str)
def test_events_are_sent_again_until_the_service_takes_them(trouble: Answer, clock: Clock) -> None:
    """Else every deployment of the service would lose events upstream."""
    with answering(*[trouble] * 3, appended("1", "2")) as (server, url):
        publisher = published(url, "1", "2")
    assert (publisher.report.accepted, publisher.waiting, len(server.requests)) == (2, (), 4)
    assert len({request.body for request in server.requests}) == 1
    assert len(clock.pauses) == 3 and clock.pauses[2] > clock.pauses[0], "pauses grow"


def test_the_service_says_when_to_come_again(clock: Clock) -> None:
    """Else a service that recovers would be held down by those who wait for it."""
    with answering(refusing(429, Retry_After="7"), refusing(503, Retry_After="3"), appended("1")) as (_, url):
        published(url, "1")
    assert clock.pauses == [7.0, 3.0]


def test_a_later_flush_also_waits_as_long_as_the_service_asked(clock: Clock) -> None:
    """Else a publisher that repeats its flush would ignore what the service asked for."""
    with answering(refusing(503, Retry_After="90"), appended("1")) as (_, url):
        publisher = Publisher.open(url, token=TOKEN, attempts=1, timeout_s=20)
        publisher.publish(issued("1"))
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                publisher.flush()
        clock.now += 75
        publisher.flush()
    assert (clock.pauses, publisher.report.accepted) == ([15.0], 1)


def test_a_service_that_stays_away_is_named_and_the_events_wait(clock: Clock) -> None:
    """Else a publisher would hang for ever, or forget what it was given."""
    url = f"http://127.0.0.1:{closed_port()}"
    publisher = Publisher.open(url, token=TOKEN, attempts=1, timeout_s=30)
    publisher.publish(issued("1"))
    with pytest.raises(LogUnavailable, match=rf"{url}.*does not answer.*later"):
        publisher.flush()
    assert (publisher.waiting, publisher.report.accepted) == (("1",), 0)
    assert 15 < clock.now <= 30


def test_what_one_part_lost_is_not_said_of_the_others(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a failure in the middle of a large batch would leave the publisher with a wrong account of it."""
    monkeypatch.setattr("coupon_ledger.ledger.http_log.PART_EVENTS", 2)
    with answering(appended("1", "2"), *[refusing(503)] * 40) as (server, url):
        publisher = Publisher.open(url, token=TOKEN, attempts=1, timeout_s=10)
        for event_id in "12345":
            publisher.publish(issued(event_id))
        with pytest.raises(LogError, match=r"3 of 5 records were not appended .*busy"):
            publisher.flush()
        assert (publisher.report.accepted, publisher.waiting) == (2, ("3", "4", "5"))
        server.answers.clear()
        server.answers.extend([appended("3", "4"), appended("5")])
        publisher.flush()
    assert (publisher.report.accepted, publisher.waiting) == (5, ())


def test_a_proxy_with_a_lower_limit_gets_smaller_requests(clock: Clock) -> None:
    """Else a publisher behind such a proxy could never catch up."""
    limit = refusing(413, "too large")
    with answering(limit, limit, limit, appended("2"), appended("3", "4")) as (_, url):
        publisher = Publisher.open(url, token=TOKEN, attempts=1)
        for event_id in "1234":
            publisher.publish(issued(event_id))
        with pytest.raises(EventsTooLarge, match=r"event 1 of coupon\.events: .*too large"):
            publisher.flush()
    assert (publisher.report.accepted, publisher.waiting) == (3, ())


WRONG = {
    "revoked": (refusing(401, "the token is unknown; ask an admin"), SettingsError, "token is unknown"),
    "role": (
        refusing(403, "the role marketing may not do this"),
        SettingsError,
        "role marketing .*another|such a role",
    ),
    "no-publish": (refusing(404, "Not Found"), SettingsError, "no events can be published there"),
    "redirect": (Answer(302, headers={"Location": "https://elsewhere"}), SettingsError, "redirects to https://else"),
    "other": (Answer(200, b"<html>"), SettingsError, "does not answer as coupon-ledger does"),
    "refused": (refusing(422, "log x: no topics; `coupon-ledger init`"), LogError, "nothing .* appended: .*init"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_waiting_does_not_mend_is_said_at_once(name: str, clock: Clock) -> None:
    """Else a wrong address or token would look like a service that is away."""
    answer, kind, text = WRONG[name]
    with answering(answer) as (server, url):
        publisher = Publisher.open(url, token=TOKEN)
        publisher.publish(issued("1"))
        with pytest.raises(kind, match=text) as raised:
            publisher.flush()
    assert type(raised.value) is kind and TOKEN not in str(raised.value)
    assert (len(server.requests), clock.pauses, publisher.waiting) == (1, [], ("1",))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://coupons.example.com", "unencrypted; use https"),
        ("http://127.0.0.1.example.com", "unencrypted; use https"),
        ("https://", "cannot be used"),
        ("https://host:0", "cannot be used"),
        ("https://host:99999", "cannot be used"),
        ("https://user:secret@host", "cannot be used"),
        ("https://host/?a=1", "cannot be used"),
        ("https://ho st", "cannot be used"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str, text: str) -> None:
    """Else the token would be sent unencrypted, or to a wrong place."""
    with pytest.raises(SettingsError, match=text) as raised:
        Publisher.open(url, token=TOKEN)
    assert "secret@" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"token": ""}, "needs a token"),
        ({"token": "a\nb"}, "token"),
        ({"ca_file": "nothing.pem"}, "ca-file: nothing.pem"),
        ({"topic_prefix": "prod."}, "topic-prefix"),
        ({"schema_registry": "http://registry"}, "schema-registry"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], text: str) -> None:
    """Else events would go to other topics than the publisher means, or nowhere."""
    with pytest.raises(SettingsError, match=text):
        Publisher.open("https://localhost", **{"token": TOKEN, **settings})


# ── TLS, the command, what is loaded ─────────────────────────────────────────────────────────────────────────


def test_a_certificate_is_verified_with_the_named_authority(log: LogSettings, tmp_path: Path, clock: Clock) -> None:
    """Else the token would be given to whoever answers at that address."""
    chain, _ = certificate(tmp_path, ["localhost"])
    with publishing(log, tmp_path, (chain, tmp_path / "key.pem")) as service:
        named = service.url.replace("127.0.0.1", "localhost")
        with Publisher.open(named, token=service.token, ca_file=str(chain)) as publisher:
            publisher.publish(issued("1"))
        for url, ca_file in ((named, ""), (service.url, str(chain))):
            publisher = Publisher.open(url, token=service.token, ca_file=ca_file)
            publisher.publish(issued("2"))
            with pytest.raises(SettingsError, match=r"certificate is not trusted .*ca-file"):
                publisher.flush()
    assert (ids(log), clock.pauses) == ({"1"}, [])


@pytest.mark.long
def test_a_file_is_published_to_a_service(
    service: Running, log: LogSettings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else only programs could publish over HTTP, and no cron job."""
    (home / "e.ndjson").write_bytes(ndjson([issued("1"), issued("2", source="till"), issued("3", channel=4)]))
    monkeypatch.setenv("COUPON_LEDGER_TOKEN", service.token)
    ran = ledger("publish", "e.ndjson", "--log", service.url)
    assert (ran.code, ids(log)) == (3, {"1"})
    rejected = [json.loads(line) for line in (home / "e.ndjson.rejected.ndjson").read_text().splitlines()]
    assert [(r["event_id"], r["problems"][0]["field"]) for r in rejected] == [("3", "channel"), ("2", "source")]
    done("init", "--log", "sqlite:///other.db", "--database", "x.duckdb")
    one_sentence(ledger("consume", "--log", service.url, "--database", "x.duckdb"), 2, "published to", "not read")
    monkeypatch.setenv("COUPON_LEDGER_TOKEN", "cl_wrong")
    (home / "good.ndjson").write_bytes(ndjson([issued("4")]))
    one_sentence(ledger("publish", "good.ndjson", "--log", service.url), 2, "token is unknown")


def test_the_token_is_never_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would stand in the terminal's history, and in the bug report with the settings."""
    assert {r["setting"]: r["value"] for r in done("config", "--output", "json").json}["token"] == ""
    monkeypatch.setenv("COUPON_LEDGER_TOKEN", TOKEN)
    shown = done("config", "--output", "json")
    assert {r["setting"]: r["value"] for r in shown.json}["token"] == "********"
    assert TOKEN not in shown.out + repr(LogSettings(token=TOKEN))


LOADED = """
import sys
from coupon_ledger import Publisher
publisher = Publisher.open(sys.argv[1], token=sys.argv[2])
publisher.publish({"topic": "coupon.events", "type": "issued", "event_id": "e-1", "source": "shop", "coupon_id": "c",
                   "occurred_at": "2026-11-11T00:00:01Z", "channel": "app"})
publisher.close()
from coupon_ledger import Client
Client(sys.argv[1], token=sys.argv[2])
print(*sys.modules)
"""


@pytest.mark.long
def test_publishing_and_asking_over_http_load_nothing_heavy(service: Running) -> None:
    """Else a shop would install an analytical database, or a web server, to say that a coupon was used."""
    command = [sys.executable, "-c", LOADED, service.url, service.token]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "coupon_ledger.api.http_client" in loaded
    assert not loaded & {"fastapi", "starlette", "uvicorn", "duckdb", "numpy", "polars", "pyarrow", "kafka", "rich"}


def test_problems_are_read_from_whatever_comes() -> None:
    """Else a proxy's error page would end a publisher in a traceback."""
    assert http_service.problems_of([{"field": "a", "rule": "b"}, 1]) == (Problem("a", "b"),)
    assert http_service.problems_of("no list") == ()
