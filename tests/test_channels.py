"""Channels of a rules file: what is wrong with one is said with its line, and the others work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from coupon_ledger.delivery.channels import MASK, Channel, QuietHours, read
from coupon_ledger.ledger.words import Speaker
from coupon_ledger.projections.alerts.rules import SEVERITIES

ENV = {"KEY": "geheim-7"}
GOOD = {"url": "wecombot://{secret}", "secret": {"env": "KEY"}}


def test_a_channel_has_its_values_and_the_defaults_of_its_kind() -> None:
    channels, problems = read(
        {
            "risk": {**GOOD, "language": "zh", "personal_data": True, "per_minute": 5, "quiet": "22:00-08:00",
                     "timeout": "15s"},
            "mail": {"url": "mailto://mail.example?to=a@b.example"},
        },
        environment=ENV,
        zone="UTC",
    )  # fmt: skip
    assert not problems
    risk, mail = channels["risk"], channels["mail"]
    assert (risk.kind.name, risk.rate, risk.timeout, risk.personal_data) == ("wecom", 5, 15, True)
    assert (mail.kind.name, mail.rate, mail.timeout, mail.personal_data) == ("mail", 30, 10, False)
    assert (risk.language, mail.language, mail.zone) == ("zh", "en", "UTC")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("x", "channel bad: no fields"),
        ({}, "channel bad, url: no address"),
        ({"url": 7}, "channel bad, url: no address"),
        ({"url": "somewhere"}, "channel bad, url: no address"),
        ({"url": "wecombot://geheim-7"}, "channel bad, url: the address has its secret in it"),
        ({"url": "mailto://u:geheim-7@m.example?to=a@b.example"}, "the address has its secret in it"),
        ({"url": "mailto://m.example?to=a@b.example", "secret": {"env": "KEY"}}, "no place for the secret"),
        ({"url": "wecombot://{secret}"}, "none is named"),
        ({"url": "https://h.example/"}, "channel bad, secret: a webhook needs a secret"),
        ({"url": "wecombot://{secret}", "secret": "geheim-7"}, "channel bad, secret: the secret may not stand in"),
        ({"url": "wecombot://{secret}", "secret": {"env": "NO"}}, "the environment variable NO is not set"),
        ({"url": "wecombot://{secret}", "secret": {"file": "no"}}, "the file no cannot be read (No such file"),
        ({"url": "wecombot://{secret}", "secret": {"file": "empty"}}, "the file empty is empty or too large"),
        ({"url": "wecombot://{secret}", "secret": {"file": "large"}}, "the file large is empty or too large"),
        ({"url": "wecombot://{secret}", "secret": {"file": "bytes"}}, "the file bytes cannot be read"),
        ({**GOOD, "zone": "Mars"}, "channel bad, zone: 'Mars' is no time zone"),
        ({**GOOD, "zone": "../etc/passwd"}, "is no time zone"),
        ({**GOOD, "quiet": "22-8"}, "channel bad, quiet: quiet hours are written as 22:00-08:00"),
        ({**GOOD, "timeout": "1h"}, "channel bad, timeout: "),
        ({**GOOD, "timeout": 3600}, "channel bad, timeout: "),
        ({**GOOD, "per_minute": 0}, "channel bad, per_minute: "),
        ({**GOOD, "langauge": "zh"}, "channel bad, langauge: "),
    ],
)
def test_a_problem_is_said_and_the_other_channels_work(tmp_path: Path, fields: Any, problem: str) -> None:
    """Else one slip silences every channel, or only the log of a later night says why nothing came."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text("x" * 20_000)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    lines = {("bad",): 7, ("bad", "zone"): 9}
    channels, problems = read({"bad": fields, "good": GOOD}, lines, folder=tmp_path, environment=ENV)
    assert list(channels) == ["good"]
    [said] = problems
    assert problem in str(said) and str(said).startswith(f"line {9 if 'zone' in problem else 7}: ")
    assert "geheim-7" not in str(said)
    assert Speaker("zh").say(said.note()).startswith("第 ")


@pytest.mark.parametrize("channels", [[], "x", 7])
def test_channels_that_are_no_mapping(channels: object) -> None:
    good, [problem] = read(channels)
    assert not good and "not a mapping" in str(problem)
    assert read(None) == ({}, [])


@pytest.mark.long
@given(st.dictionaries(st.text(max_size=5), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=30), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["url", "secret", "quiet", "zone", "timeout", "env", "file"]), inner, max_size=5)
)))  # fmt: skip
def test_whatever_stands_there_is_a_channel_or_a_problem(channels: dict[str, Any]) -> None:
    """Else a slip in the file ends the owner."""
    good, problems = read(channels, environment={})
    assert set(good) | {problem.channel for problem in problems} == set(channels)


def test_a_secret_comes_from_a_file_and_into_its_place(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(" p@ss/w:rd \n")
    url = "mailtos://me:{secret}@mail.example?to=a@b.example"
    channels, problems = read({"m": {"url": url, "secret": {"file": "password"}}}, folder=tmp_path)
    assert not problems
    assert channels["m"].address() == "mailtos://me:p%40ss%2Fw%3Ard@mail.example?to=a@b.example"


def test_a_secret_is_masked_in_every_form() -> None:
    """Else an error message gives away the channel."""
    channel = Channel(name="d", url="dingtalk://{secret}", secret=SecretStr("SECabc1@tok/en+9"))
    for form in ("SECabc1@tok/en+9", "SECabc1", "tok%2Fen%2B9", "SECabc1%40tok%2Fen%2B9"):
        masked = channel.mask(f"cannot reach x://{form}/y")
        assert form not in masked and MASK in masked, masked
    assert "SECabc1" not in repr(channel) + str(channel.model_dump())


# ── Quiet hours ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
@given(
    st.times(), st.times(), st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns"]),
)  # fmt: skip
def test_quiet_hours_end_when_the_clock_says_so(starts: Any, ends: Any, at: datetime, zone: str) -> None:
    """Else a message waits for ever, or comes at night."""
    if starts == ends:
        return
    channel = Channel(name="c", url="http://h.example", zone=zone, quiet=QuietHours(starts=starts, ends=ends))
    now = at.replace(tzinfo=UTC)
    until = channel.quiet_until(now, "warning")
    assert channel.quiet_until(now, "critical") is None
    if until is not None:
        assert now <= until <= now + timedelta(hours=26)


def test_which_severities_wait_and_until_when() -> None:
    channel = Channel(name="c", url="http://h.example", quiet="22:00-08:00", urgent="high")
    night = datetime(2026, 11, 11, 15, 0, tzinfo=UTC)  # 23:00 in Shanghai
    waiting = [severity for severity in SEVERITIES if channel.quiet_until(night, severity)]
    assert waiting == ["warning", "info"]
    assert channel.quiet_until(night, "info") == datetime(2026, 11, 12, 0, 0, tzinfo=UTC)
    assert channel.quiet_until(night + timedelta(hours=9), "info") is None
