"""Messages reach real servers that accept, refuse, hang, answer late, ask to wait, and recover."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import pytest
from pydantic import SecretStr

from coupon_ledger.delivery.channels import Channel
from coupon_ledger.delivery.deliverer import Deliverer, job_of, send_test
from coupon_ledger.delivery.messages import AlertMessage
from coupon_ledger.delivery.queue import DEAD_AFTER, ChannelState, MessageQueue, state
from coupon_ledger.delivery.sending import SendingProcess
from coupon_ledger.ledger.errors import QueueUnusable
from tests.loopback import Answer, Http, Smtp, certificate, closed_port, serving, until

pytestmark = [pytest.mark.slow, pytest.mark.vital]

SECRET = "geheim-7"
QUICK = 0.05


def message(key: str = "a-1/firing/1", **fields: Any) -> AlertMessage:
    values: dict[str, Any] = {
        "alert_id": "a-1",
        "rule": "device-farm",
        "severity": "critical",
        "kind": "firing",
        "summary": {"en": "34 users on device d-99", "zh": "设备 d-99 上有 34 个用户"},
        "keys": {"device_id": "d-99", "campaign_id": "11.11"},
        "since": datetime(2026, 11, 11, 2, 3, 4),
    }
    return AlertMessage(key=key, **{**values, **fields})


@pytest.fixture
def http() -> Iterator[tuple[Http, str]]:
    server = Http()
    with serving(server.serve, server.ending) as port:
        yield server, f"http://127.0.0.1:{port}/alerts"


@pytest.fixture
def smtp() -> Iterator[tuple[Smtp, str]]:
    server = Smtp()
    with serving(server.serve, server.ending) as port:
        yield server, f"mailto://127.0.0.1:{port}?from=ledger@shop.example&to=risk@shop.example,ops@shop.example"


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[MessageQueue]:
    with closing(MessageQueue(tmp_path / "messages.db")) as opened:
        yield opened


def webhook(url: str, **fields: Any) -> Channel:
    return Channel(name="hook", url=url, secret=SecretStr(SECRET), **{"timeout": 2, **fields})


@contextmanager
def delivering(queue: MessageQueue, *channels: Channel, **options: Any) -> Iterator[Deliverer]:
    deliverer = Deliverer(queue, {c.name: c for c in channels}, **{"rest": lambda _: QUICK, **options})
    try:
        yield deliverer
    finally:
        deliverer.close()


# ── Webhook ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_webhook_is_signed_as_a_receiver_verifies_it(http: tuple[Http, str]) -> None:
    """Else receivers could not tell our messages from anybody's."""
    server, url = http
    assert send_test(webhook(url)).result == "sent"
    [request] = server.requests
    signed = request.headers["webhook-id"] + "." + request.headers["webhook-timestamp"] + "." + request.body.decode()
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == "v1," + expected
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    assert request.headers["idempotency-key"] == request.headers["webhook-id"]
    assert json.loads(request.body)["kind"] == "test"


def test_a_base64_secret_signs_with_its_bytes(http: tuple[Http, str]) -> None:
    """Else the libraries of standardwebhooks.com refuse every message."""
    server, url = http
    key = bytes(range(24))
    secret = SecretStr("whsec_" + base64.b64encode(key).decode())
    assert send_test(Channel(name="hook", url=url, secret=secret)).result == "sent"
    [request] = server.requests
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_a_redirect_takes_no_message_elsewhere(http: tuple[Http, str]) -> None:
    """Else whoever controls the address's name could have signed messages sent to others."""
    server, url = http
    server.then = Answer(307, headers={"Location": url + "/elsewhere"})
    assert send_test(webhook(url)).result == "failed"
    assert len(server.requests) == 1


def test_a_message_is_tried_until_a_failing_server_recovers(queue: MessageQueue, http: tuple[Http, str]) -> None:
    """Else an alert is lost because a server was being restarted. Each attempt has the same key."""
    server, url = http
    server.answers.extend([Answer(500), Answer(0), Answer(503), Answer(200)])
    with delivering(queue, webhook(url)) as deliverer:
        assert queue.enqueue(message(), ["hook"]) == 1
        deliverer.wake()
        until(lambda: queue.state_of("a-1/firing/1", "hook") == "sent")
    assert {request.headers["webhook-id"] for request in server.requests} == {"a-1/firing/1"}
    assert len(server.requests) == 4
    [hook] = state(queue)
    assert (hook.waiting, hook.sent, hook.failures) == (0, 1, 0)


def test_retry_after_is_honoured(queue: MessageQueue, http: tuple[Http, str]) -> None:
    """Else the service shuts us out for longer."""
    server, url = http
    server.answers.append(Answer(429, headers={"Retry-After": "1"}))
    with delivering(queue, webhook(url)) as deliverer:
        queue.enqueue_all([(message("k-1"), ["hook"]), (message("k-2"), ["hook"])])
        deliverer.wake()
        until(lambda: queue.channel("hook").sent == 2)
    waited = server.requests[1].at - server.requests[0].at
    assert waited > 0.9, "also the other message has to wait"


@pytest.mark.parametrize("answer", [Answer(wait_s=60), Answer(drip=True)], ids=["hangs", "drips"])
def test_a_server_that_never_finishes_holds_up_only_its_channel(
    queue: MessageQueue, http: tuple[Http, str], answer: Answer
) -> None:
    """Else one dead receiver would silence all the others, or the owner."""
    server, url = http
    server.then = answer
    other = Http()
    with serving(other.serve, other.ending) as port:
        fine = Channel(name="fine", url=f"http://127.0.0.1:{port}/", secret=SecretStr(SECRET))
        with delivering(queue, webhook(url, timeout=0.5), fine) as deliverer:
            started = time.monotonic()
            queue.enqueue(message(), ["hook", "fine"])
            deliverer.wake()
            assert time.monotonic() - started < 0.5, "enqueuing waits for nobody"
            until(lambda: queue.state_of("a-1/firing/1", "fine") == "sent")
            until(lambda: queue.channel("hook").failures >= 1)
            assert queue.state_of("a-1/firing/1", "hook") != "sent"
            started = time.monotonic()
        assert time.monotonic() - started < 10, "and it can be stopped"


def test_a_late_answer_in_time_counts(http: tuple[Http, str]) -> None:
    server, url = http
    server.then = Answer(wait_s=0.5)
    assert send_test(webhook(url, timeout=5)).result == "sent"


def test_a_refused_message_does_not_hold_up_the_next(queue: MessageQueue, http: tuple[Http, str]) -> None:
    """Else one message that a receiver cannot read would stop all that follow."""
    server, url = http
    server.answers.append(Answer(400))
    server.then = Answer(200)
    with delivering(queue, webhook(url), rest=lambda _: 30.0) as deliverer:
        queue.enqueue_all([(message("bad"), ["hook"]), (message("good"), ["hook"])])
        deliverer.wake()
        until(lambda: queue.state_of("good", "hook") == "sent")
        assert queue.state_of("bad", "hook") == "waiting"


def test_a_message_that_is_always_refused_is_given_up(queue: MessageQueue, http: tuple[Http, str]) -> None:
    server, url = http
    server.then = Answer(422)
    with delivering(queue, webhook(url)) as deliverer:
        queue.enqueue(message(), ["hook"])
        deliverer.wake()
        until(lambda: queue.state_of("a-1/firing/1", "hook") == "given_up")
    assert len(server.requests) == 3
    assert queue.channel("hook").failures == 0, "a receiver that answers is not dead"


def test_a_dead_channel_is_reported_once_and_so_is_its_return(queue: MessageQueue, http: tuple[Http, str]) -> None:
    """Else nobody learns that alerts do not arrive; or they learn it at every attempt."""
    server, url = http
    server.then = Answer(500)
    dead: list[ChannelState] = []
    alive: list[ChannelState] = []
    with delivering(queue, webhook(url), on_dead=dead.append, on_alive=alive.append) as deliverer:
        queue.enqueue(message(), ["hook"])
        deliverer.wake()
        until(lambda: len(server.requests) > DEAD_AFTER + 2)
        server.then = Answer(200)
        until(lambda: alive)
    assert [(c.name, c.failures, c.error) for c in dead] == [("hook", DEAD_AFTER, "HTTP status 500")]
    assert [c.name for c in alive] == ["hook"]


def test_a_report_of_a_dead_channel_that_fails_is_made_again(queue: MessageQueue) -> None:
    """Else an error in the alert about the channel would hide both."""
    reports = []

    def report(channel: ChannelState) -> None:
        reports.append(channel.failures)
        if len(reports) == 1:
            raise RuntimeError("the database is closed")

    nobody = webhook(f"http://127.0.0.1:{closed_port()}/")
    with delivering(queue, nobody, on_dead=report) as deliverer:
        queue.enqueue(message(), ["hook"])
        deliverer.wake()
        until(lambda: queue.channel("hook").dead)
    assert reports == [DEAD_AFTER, DEAD_AFTER + 1]


def test_a_channel_that_is_mended_is_tried_at_once(queue: MessageQueue, http: tuple[Http, str]) -> None:
    """Else whoever mends an address waits for ten minutes, and does not know whether it is right."""
    _, url = http
    wrong = webhook(f"http://127.0.0.1:{closed_port()}/")
    with delivering(queue, wrong, rest=lambda _: 600.0) as deliverer:
        queue.enqueue(message(), ["hook"])
        deliverer.wake()
        until(lambda: queue.channel("hook").failures)
        deliverer.use({"hook": webhook(url)})
        until(lambda: queue.state_of("a-1/firing/1", "hook") == "sent")


def test_a_channel_sends_no_more_a_minute_than_it_may(queue: MessageQueue, http: tuple[Http, str]) -> None:
    """Else the robot is muted in the middle of an attack. The most severe messages go first."""
    server, url = http
    severities = ["info", "warning", "critical", "high", "critical"]
    queue.enqueue_all([(message(f"k-{n}", severity=s), ["hook"]) for n, s in enumerate(severities)])
    with delivering(queue, webhook(url, per_minute=3)):
        until(lambda: queue.channel("hook").sent == 3)
        time.sleep(0.3)
        assert queue.channel("hook").sent == 3
    assert [json.loads(r.body)["key"] for r in server.requests] == ["k-2", "k-4", "k-3"]
    with delivering(queue, webhook(url, per_minute=3)):  # a restart does not start a new minute
        time.sleep(0.3)
        assert queue.channel("hook").sent == 3


def test_quiet_hours_hold_back_what_is_not_urgent(queue: MessageQueue, http: tuple[Http, str]) -> None:
    """Else people mute the channel at night, and critical alerts with it."""
    server, url = http
    hour = time.gmtime().tm_hour
    hours = f"{(hour - 1) % 24:02}:00-{(hour + 2) % 24:02}:00"
    queue.enqueue_all([(message("k-1", severity="info"), ["hook"]), (message("k-2"), ["hook"])])
    with delivering(queue, webhook(url, quiet=hours, zone="UTC")):
        until(lambda: queue.state_of("k-2", "hook") == "sent")
        until(lambda: (queue.next_due("hook") or 0) > time.time() + 3_000)
    assert queue.state_of("k-1", "hook") == "waiting"
    assert len(server.requests) == 1


def test_two_processes_do_not_deliver_from_one_queue(queue: MessageQueue) -> None:
    """Else every message would come twice."""
    with delivering(queue), pytest.raises(QueueUnusable, match="another process delivers"):
        Deliverer(queue, {})


def test_messages_wait_for_a_channel_that_is_gone_and_come_back(queue: MessageQueue, http: tuple[Http, str]) -> None:
    """Else a slip in the rules file loses messages."""
    _, url = http
    with delivering(queue) as deliverer:
        queue.enqueue(message(), ["hook"])
        assert queue.state_of("a-1/firing/1", "hook") == "waiting"
        deliverer.use({"hook": webhook(url)})
        until(lambda: queue.state_of("a-1/firing/1", "hook") == "sent")


def test_no_secret_in_what_is_said_of_a_failure(queue: MessageQueue, caplog: pytest.LogCaptureFixture) -> None:
    """Else a log that is shared gives away the channel."""
    port = closed_port()
    channel = Channel(name="m", url=f"mailto://me:{{secret}}@127.0.0.1:{port}?to=a@b.example", secret=SecretStr(SECRET))
    bad = Channel(name="x", url="nonsense-7://{secret}/x", secret=SecretStr(SECRET))
    with delivering(queue, channel, bad) as deliverer:
        queue.enqueue(message(), ["m", "x"])
        deliverer.wake()
        until(lambda: queue.channel("m").failures and queue.channel("x").failures)
    said = caplog.text + "".join(str(c) for c in state(queue)) + repr(channel) + repr(send_test(bad))
    assert "apprise does not know" in said and SECRET not in said


# ── Mail ─────────────────────────────────────────────────────────────────────────────────────────────────────


def mail_channel(url: str, **fields: Any) -> Channel:
    return Channel(name="mail", url=url, **{"timeout": 3, **fields})


def test_a_mail_has_both_forms_and_one_identity(queue: MessageQueue, smtp: tuple[Smtp, str]) -> None:
    """Else some programs show nothing, and a repeated mail is shown twice."""
    server, url = smtp
    with delivering(queue, mail_channel(url, language="zh")) as deliverer:
        queue.enqueue(message(), ["mail"])
        queue.enqueue(message("a-1/resolved/1", kind="resolved"), ["mail"])
        deliverer.wake()
        until(lambda: queue.channel("mail").sent == 2)
    mails = [email.message_from_bytes(body, policy=email.policy.default) for _, body in server.mails]
    assert [to for to, _ in server.mails] == [["risk@shop.example", "ops@shop.example"]] * 2
    first, second = mails
    assert first["Subject"] == "【紧急】device-farm" and second["Subject"] == "【已恢复】device-farm"
    assert first["Message-ID"] != second["Message-ID"] and first["References"] == second["References"]
    assert first["Auto-Submitted"] == "auto-generated"
    plain, html = (part.get_content() for part in first.iter_parts())
    assert "34 个用户" in plain and "34 个用户" in html and "d-99" not in plain + html


@pytest.fixture
def process() -> Iterator[SendingProcess]:
    with closing(SendingProcess()) as started:
        yield started


def test_a_mail_server_that_hangs_is_given_the_time_of_the_channel(
    smtp: tuple[Smtp, str], process: SendingProcess
) -> None:
    """Else a mail server that is half dead takes minutes of every attempt."""
    server, url = smtp
    for command in ("connect", "EHLO", "DATA", "body"):
        server.hang = command
        outcome = process.send(job_of(mail_channel(url, timeout=0.5), message()))
        assert outcome.result == "failed" and outcome.reason.endswith("timed out"), command


def test_replies_of_a_mail_server(smtp: tuple[Smtp, str], process: SendingProcess) -> None:
    """Else a mail is lost that the server would take later, or sent for a day though it never will."""
    server, url = smtp
    for replies, result in (
        ({"connect": "421 busy"}, "failed"),
        ({"body": "451 later"}, "failed"),
        ({"body": "552 too large"}, "refused"),
        ({"RCPT risk@shop.example": "550 unknown", "RCPT ops@shop.example": "550 unknown"}, "failed"),
        ({"RCPT risk@shop.example": "550 unknown"}, "sent"),
    ):
        server.replies = replies
        outcome = process.send(job_of(mail_channel(url), message()))
        assert outcome.result == result, outcome
        [reply] = set(replies.values())
        assert reply.partition(" ")[2] in outcome.reason and reply[:3] in outcome.reason


def test_a_recipient_who_is_greylisted_gets_the_mail_later_and_the_others_once(
    queue: MessageQueue, smtp: tuple[Smtp, str]
) -> None:
    """Else one of two people never reads the alert, or the other reads it again and again."""
    server, url = smtp
    server.replies = {"RCPT ops@shop.example": "450 greylisted"}
    with delivering(queue, mail_channel(url)) as deliverer:
        queue.enqueue(message(), ["mail"])
        deliverer.wake()
        until(lambda: queue.channel("mail").failures >= 2)
        server.replies = {}
        until(lambda: queue.state_of("a-1/firing/1", "mail") == "sent")
    assert [to for to, _ in server.mails] == [["risk@shop.example"], ["ops@shop.example"]]


# ── Services, through apprise ────────────────────────────────────────────────────────────────────────────────

HOSTS = [
    "qyapi.weixin.qq.com", "oapi.dingtalk.com", "open.feishu.cn", "hooks.slack.com", "api.twilio.com",
]  # fmt: skip
SLACK = "T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7aQ"
SERVICES = {
    "wecom": ("wecombot://{secret}", "abcdef", b'{"errcode":0,"errmsg":"ok"}'),
    "wecom-copied": ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={secret}", "abcdef", b'{"errcode":0}'),
    "dingtalk": ("dingtalk://{secret}", "SEC0123@abcdef", b'{"errcode":0,"errmsg":"ok"}'),
    "dingtalk-copied": ("https://oapi.dingtalk.com/robot/send?access_token={secret}", "abcdef", b'{"errcode":0}'),
    "feishu": ("feishu://{secret}", "abcdef", b'{"code":0,"msg":"success"}'),
    "feishu-copied": ("https://open.feishu.cn/open-apis/bot/v2/hook/{secret}", "abcdef", b'{"code":0}'),
    "slack": ("slack://{secret}", SLACK, b"ok"),
    "slack-copied": ("https://hooks.slack.com/services/{secret}", SLACK, b"ok"),
    "sms": ("twilio://AC0123456789abcdef0123456789abcdef:{secret}@15551234567/15557654321",
            "0123456789abcdef0123456789abcdef", b"{}"),
}  # fmt: skip


@pytest.fixture
def internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Http]:
    """All services, played by one server on loopback that the sending process finds as its proxy."""
    trusted, context = certificate(tmp_path, HOSTS)
    server = Http(context)
    with serving(server.serve, server.ending) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        yield server


def service(name: str, **fields: Any) -> tuple[Channel, bytes]:
    url, secret, ok = SERVICES[name]
    return Channel(name=name, url=url, secret=SecretStr(secret), **{"timeout": 3, **fields}), ok


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gets_its_message_and_says_how_it_fared(internet: Http, process: SendingProcess, name: str) -> None:
    """Else a message counts as delivered that nobody got, or is sent again sooner than the service allows."""
    channel, ok = service(name, language="zh")
    job = job_of(channel, message())
    internet.answers.extend([Answer(body=ok), Answer(500), Answer(429, headers={"Retry-After": "7"})])
    sent = process.send(job)
    assert sent.result == "sent" and "HTTP status 200" in sent.answer
    [request] = internet.requests
    assert request.host in HOSTS
    written = request.body.decode("unicode-escape") if b"\\u" in request.body else unquote_plus(request.body.decode())
    assert "34 个用户" in written and "d-99" not in written
    assert process.send(job).result == "failed"
    assert process.send(job).retry_after_s == 7


REFUSALS: dict[str, list[tuple[bytes, str, float | None]]] = {
    "wecom": [
        (b'{"errcode":93000,"errmsg":"invalid webhook url"}', "failed", None),
        (b'{"errcode":45009,"errmsg":"api freq out of limit"}', "failed", 60),
        (b'{"errcode":40058,"errmsg":"content exceed max length"}', "refused", None),
        (b"<html>a portal of the hotel</html>", "failed", None),
    ],
    "dingtalk": [
        (b'{"errcode":310000,"errmsg":"sign not match"}', "failed", None),
        (b'{"errcode":130101,"errmsg":"send too fast"}', "failed", 60),
    ],
    "feishu": [
        (b'{"code":11232,"msg":"frequency limited"}', "failed", 60),
        (b'{"code":9499,"msg":"Bad Request"}', "refused", None),
    ],
    "slack": [(b"invalid_token", "failed", None)],
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_with_status_200_is_one(internet: Http, process: SendingProcess, name: str) -> None:
    """Else messages are lost without a word: this is how 企业微信 and 钉钉 refuse them, and apprise takes it for a
    success."""
    channel, _ = service(name)
    for body, result, wait in REFUSALS[name]:
        internet.then = Answer(body=body)
        outcome = process.send(job_of(channel, message()))
        assert (outcome.result, outcome.retry_after_s) == (result, wait), outcome


def test_a_service_that_hangs_is_given_the_time_of_the_channel(internet: Http) -> None:
    channel, _ = service("wecom", timeout=0.5)
    internet.then = Answer(drip=True)
    assert send_test(channel).result == "failed"


def test_an_sms_is_short(internet: Http, queue: MessageQueue) -> None:
    """Else each alert costs as much as ten."""
    channel, ok = service("sms")
    internet.then = Answer(body=ok)
    with delivering(queue, channel) as deliverer:
        queue.enqueue(message(summary={"en": "word " * 200}), ["sms"])
        deliverer.wake()
        until(lambda: queue.channel("sms").sent == 1)
    [text] = parse_qs(internet.requests[0].body.decode())["Body"]
    assert len(text) <= 140 and text.startswith("[critical] device-farm: word") and text.endswith("a-1")
