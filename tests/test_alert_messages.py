"""Texts of messages: what they say, in both languages; what an attacker cannot put into them; whom they do not name."""

from __future__ import annotations

import json
import re
import time
from dataclasses import astuple
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pydantic import SecretStr

from coupon_ledger.delivery.channels import Channel, read
from coupon_ledger.delivery.job import Rendered
from coupon_ledger.delivery.kinds import KINDS, kind_of
from coupon_ledger.delivery.messages import KINDS as MESSAGE_KINDS
from coupon_ledger.delivery.messages import AlertMessage, Item
from coupon_ledger.delivery.rendering import TITLES, render
from coupon_ledger.delivery.safe_text import HIDDEN, one_line
from coupon_ledger.delivery.webhook import signature
from coupon_ledger.ledger.words import catalogue

URLS = {
    "wecom": "wecombot://{secret}",
    "dingtalk": "dingtalk://{secret}",
    "feishu": "feishu://{secret}",
    "slack": "slack://{secret}",
    "mail": "mailto://mail.example?to=a@b.example",
    "webhook": "https://hook.example/",
    "gateway": "twilio://AC1:{secret}@15551234567",
}


def channel(kind: str = "mail", **fields: Any) -> Channel:
    return Channel(name=kind, url=URLS[kind], secret=SecretStr("geheim-7"), **fields)


def message(**fields: Any) -> AlertMessage:
    values: dict[str, Any] = {
        "key": "a-1/firing/1",
        "alert_id": "3f2a9c",
        "rule": "device-farm",
        "severity": "critical",
        "kind": "firing",
        "summary": {"en": "34 users claimed on one device", "zh": "34 个用户在同一设备上领取"},
        "keys": {"device_id": "d-99", "campaign_id": "k-11"},
        "metric": "claimed",
        "value": 34.0,
        "threshold": 20.0,
        "money_minor": 123_456,
        "currency": "CNY",
        "playbook": "Unpublish the campaign, see https://wiki.example/farm (step 2)",
        "link": "https://ledger.example/alerts/3f2a9c",
        "since": datetime(2026, 11, 11, 2, 3, 4),
        "further": 3,
    }
    return AlertMessage(**{**values, **fields})


def everything(text: Rendered) -> str:
    return json.dumps(astuple(text), ensure_ascii=False)


def test_a_message_says_what_how_much_since_when_what_to_do() -> None:
    """Else whoever is woken up has to look it all up first."""
    text = render(message(), channel()).text
    for part in ("34 users claimed on one device", "1,234.56 CNY", "34", "threshold 20", "2026-11-11 10:03:04",
                 "Asia/Shanghai", "https://wiki.example/farm", "alerts show 3f2a9c", "3 further alerts",
                 "campaign k-11",                 "https://ledger.example/alerts/3f2a9c"):  # fmt: skip
        assert part in text, part
    assert render(message(), channel()).title == "[critical] device-farm"


def test_a_message_in_chinese_has_no_english_word() -> None:
    """Else whoever reads Chinese only has to guess."""
    for kind in MESSAGE_KINDS:
        text = render(message(kind=kind, until=datetime(2026, 11, 11, 3)), channel(language="zh"))
        said = re.sub(r"`[^`]*`|https?://\S+|device-farm|3f2a9c|k-11|Asia/Shanghai|CNY|Unpublish.*", "",
                      f"{text.title}\n{text.text}\n{text.short}")  # fmt: skip
        assert not re.findall(r"[A-Za-z]{2,}", said), said
    assert set(TITLES) == set(MESSAGE_KINDS) and all(title in catalogue() for title in TITLES.values())


def test_times_are_those_of_the_channels_zone() -> None:
    text = render(message(since=datetime(2026, 11, 11, 2, 3, 4, tzinfo=UTC)), channel(zone="Europe/Berlin")).text
    assert "2026-11-11 03:03:04 (Europe/Berlin)" in text


def test_a_message_survives_the_queue() -> None:
    """Else what is delivered after a restart is another message."""
    whole = message(items=(Item({"en": "one"}, {"ip": "10.0.0.1"}),), until=datetime(2026, 11, 12))
    assert AlertMessage.from_json(json.loads(json.dumps(whole.as_json()))) == whole
    assert AlertMessage.from_json(json.loads(json.dumps(message(link=None).as_json()))) == message(link=None)


@pytest.mark.parametrize("key", ["", "a\r\nBcc: x@y.example", "é", "k" * 201])
def test_a_key_that_cannot_be_a_header_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        message(key=key)


# ── Attackers ────────────────────────────────────────────────────────────────────────────────────────────────

ATTACKS = [
    "<script>alert(1)</script>",
    "<!channel> <@U123> <https://evil.example|your bank>",
    '<at user_id="all">all</at>',
    "[click](https://evil.example) ![x](https://evil.example/x.png)",
    "**bold** _em_ `code` # head",
    "x\r\nBcc: everybody@shop.example",
    "a\u202ecod.exe\u200b",
    "line\u2028break\x00\x1b[31m",
    "@all http://evil.example www.evil.example",
    '"><img src=x onerror=alert(1)>',
]
texts = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=80), st.sampled_from(ATTACKS).map(lambda a: a * 50))


class Tags(HTMLParser):
    """The tags and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links |= {value or "" for name, value in attributes if name in ("href", "src")}


@pytest.mark.long
@settings(deadline=None)
@given(summary=texts, value=texts, rule=texts, language=st.sampled_from(["en", "zh"]))
def test_text_from_outside_is_no_markup_no_link_and_no_header(
    summary: str, value: str, rule: str, language: str
) -> None:
    """Else whoever names a campaign can mention everybody, forge a link in our name, or add recipients."""
    attacked = message(
        summary={"en": summary, "zh": summary}, keys={"campaign_id": value}, rule=rule, playbook=None, link=None
    )
    for kind in KINDS:
        text = render(attacked, channel(kind, language=language))
        for part in (text.title, text.short):
            assert len(part) <= 140 and part.isprintable() and not re.search(r"[<>@\n]|://|www\.", part)
        assert not re.search(r"[<>@]|://|www\.", text.text + text.markdown)
        assert all(line.isprintable() for line in text.text.splitlines())
        own = re.sub(r"(?m)^\*\*[^*\n]*\*\*", "", text.markdown).replace("`coupon-ledger alerts show 3f2a9c`", "")
        assert not re.search(r"[*\[\]`#!|~\\&]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", own), own
        page = Tags(text.html)
        assert page.tags <= set("html head meta title body h3 table tr th td p".split()) and not page.links
        assert len(text.text.encode()) + len(text.title.encode()) <= KINDS[kind].most_bytes
        assert len(text.markdown.encode()) + len(text.title.encode()) <= KINDS[kind].most_bytes


def test_the_id_stays_when_a_message_is_cut() -> None:
    """Else nobody finds the alert that a long message is about."""
    long = message(summary={"en": "用" * 5_000}, playbook="x" * 2_000, items=tuple([Item({"en": "y" * 500})] * 50))
    text = render(long, channel("wecom"))
    assert "alerts show 3f2a9c" in text.text and len(text.text.encode()) <= 2_000
    assert text.short.endswith("3f2a9c") and len(text.short) <= 140


def test_only_the_link_of_the_ledger_is_a_link() -> None:
    page = Tags(render(message(link="https://ledger.example/a"), channel()).html)
    assert page.links == {"https://ledger.example/a"}
    assert not Tags(render(message(link="javascript:alert(1)"), channel()).html).links


# ── Persons ──────────────────────────────────────────────────────────────────────────────────────────────────

PERSONAL = ["user_id", "phone_prefix", "ip", "device_id", "code", "address", "person"]
identifiers = st.text(
    st.characters(categories=["L", "N", "P"], exclude_characters="•"), min_size=6, max_size=20
).filter(lambda v: one_line(v) == v)


@pytest.mark.long
@settings(deadline=None)
@given(
    name=st.sampled_from(PERSONAL),
    value=identifiers,
    before=st.text(max_size=5),
    after=st.text(max_size=5),
    cut=st.integers(0, 700),
)
def test_no_data_about_persons_leaves_for_a_channel_that_is_not_marked(
    name: str, value: str, before: str, after: str, cut: int
) -> None:
    """Else a group of a hundred people reads who a customer is, and whoever runs the service does."""
    ours = everything(render(message(keys={}), channel("webhook")))
    if value.lower() in ours.lower():
        return
    filler = "-" * cut
    said = message(
        summary={"en": f"{filler}{before}{value}{after}", "zh": f"{value.upper()}，{value}"},
        keys={name: value},
        items=(Item({"en": f"{value}!"}, {"ip": value}),),
    )
    for kind in KINDS:
        for language in ("en", "zh"):
            text = everything(render(said, channel(kind, language=language)))
            assert value.lower() not in text.lower()
            start = value[:5].lower()  # nor the beginning of it, where the text was cut
            assert start not in text.lower() or start in (before + after + ours).lower()


def test_a_marked_channel_and_public_keys_say_what_they_are_about() -> None:
    """Else nobody can act on the alert."""
    assert "d-99" in render(message(), channel(personal_data=True)).text
    hidden = render(message(), channel())
    assert f"device id {HIDDEN}" in hidden.text and "campaign k-11" in hidden.text
    violation = render(message(keys={"code": "used_when_used"}), channel())
    assert "used" in violation.text and HIDDEN not in violation.text


def test_an_id_of_one_digit_takes_no_digits_out_of_numbers() -> None:
    """Else 34 users become •••4."""
    text = render(message(summary={"en": "user 3 claimed 34 times (user_3)"}, keys={"user_id": "3"}), channel()).text
    assert f"user {HIDDEN} claimed 34 times (user_{HIDDEN})" in text


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_none(text: str) -> None:
    kind = kind_of(text)
    assert kind is None or kind.name in KINDS


# ── Documents ────────────────────────────────────────────────────────────────────────────────────────────────

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT = (DOCS / "alert-channels.md").read_text(encoding="utf-8")


def test_the_body_of_a_webhook_is_as_its_schema_says() -> None:
    """Else what receivers have built on it breaks."""
    schema = json.loads((DOCS / "alert-webhook.schema.json").read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    full = message(items=(Item({"en": "one"}, {"ip": "10.0.0.1"}),), until=datetime(2026, 11, 12))
    for sent in (full, message(metric=None, value=None, playbook=None), *(message(kind=k) for k in MESSAGE_KINDS)):
        Draft7Validator(schema).validate(render(sent, channel("webhook")).data)
    names = set(schema["properties"]["alert"]["properties"])
    assert names == set(render(full, channel("webhook")).data["alert"]), "all fields are described"


def test_the_documents_example_of_verification_verifies_what_is_sent() -> None:
    """Else whoever copies it refuses every message, or takes forged ones."""
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(code, "alert-channels.md", "exec"), scope)
    now, body = int(time.time()), b'{"version":1}'
    headers = {
        "webhook-id": "k-1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature("s", "k-1", now, body),
    }
    assert scope["verified"](b"s", headers, body)
    assert not scope["verified"](b"s", headers, body + b" ") and not scope["verified"](b"t", headers, body)
    assert not scope["verified"](b"s", {**headers, "webhook-timestamp": str(now - 600)}, body)


def test_the_documents_channels_are_channels() -> None:
    """Else the first thing that is copied is a mistake."""
    [example] = re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    written = yaml.safe_load(example)["channels"]
    for fields in written.values():
        fields["secret"] = {"env": "SECRET"}  # wherever it is there
    channels, problems = read(written, environment={"SECRET": "x"})
    assert not problems and [c.kind.name for c in channels.values()] == ["wecom", "gateway", "mail", "webhook"]
    fields_named = set(re.findall(r"(?m)^\| `(\w+)` \|", DOCUMENT))
    assert set(Channel.model_fields) - {"name"} <= fields_named
    for kind in KINDS.values():
        assert f"| {kind.per_minute} |" in DOCUMENT, kind
