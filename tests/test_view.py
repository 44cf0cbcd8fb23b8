"""What people see: one zone, tables that fit, natural order, totals."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coupon_ledger.cli.output import Fit, print_rows
from coupon_ledger.cli.tables import cut, echo_wrapped
from coupon_ledger.cli.view import WIDTH
from coupon_ledger.reports.columns import in_natural_order
from coupon_ledger.reports.parts import MOVES
from coupon_ledger.reports.text import text_width
from coupon_ledger.reports.view import View
from tests.command_line import coupon_event, done, ledger, ndjson, one_sentence


@pytest.fixture
def shop(home: Path) -> None:
    """Two coupons, one with a long id and text, used on either side of midnight in Shanghai."""
    long = "c-" + "9" * 60
    events = []
    for key, at in (("c-1", "2026-11-10T15:30:00Z"), (long, "2026-11-10T16:30:00Z")):
        common = {"coupon_id": key, "occurred_at": at, "campaign_id": "k-10" if key == "c-1" else "k-2"}
        events += [
            coupon_event("created", f"{key}-1", currency="JPY", face_value_minor=500, **common),
            coupon_event("issued", f"{key}-2", **common),
            coupon_event("claimed", f"{key}-3", **common),
            coupon_event("used", f"{key}-4", currency="JPY", discount_minor=12_345, order_id=f"o-{key}", **common),
        ]
    done("init")
    done("publish", "-", stdin=ndjson(events))
    done("consume")


@pytest.mark.long
def test_a_day_begins_at_the_same_instant_in_every_command(shop: None) -> None:
    """2026-11-11 begins at 16:00 UTC in Shanghai: one use is before it. Else two commands show two numbers."""
    for zone, used in ((), 1), (("--zone", "UTC"), 2), (("--zone", "Asia/Shanghai"), 1):
        at = ("--at", "2026-11-11", *zone)
        states = {row["state"]: row["coupons"] for row in done("coupons", "--count", *at, "--output", "json").json}
        [campaigns] = [sum(row["used"] for row in done("campaigns", *at, "--output", "json").json)]
        [metric] = done("metrics", "query", "used_events", "--until", "2026-11-11", *zone, "--output", "json").json
        reported = done("report", "funnel", "coupons", *at, "--output", "json").json
        found = states["used"], campaigns, metric["used_events"], sum(row["used"] for row in reported)
        assert found == (used,) * 4, zone
    one_sentence(ledger("state", "c-1", "--at", "2026-11-10"), 1, "c-1")


@pytest.mark.long
def test_what_happens_at_midnight_is_of_the_day_that_begins(home: Path) -> None:
    """A nightly import stamps its events at midnight: a month's closing and the next one's opening would share them."""
    midnight = {"coupon_id": "c-1", "occurred_at": "2026-11-10T16:00:00Z"}
    events = [coupon_event("created", "e-1", currency="CNY", face_value_minor=500, **midnight)]
    events += [coupon_event(kind, f"e-{kind}", **midnight) for kind in ("issued", "claimed")]
    done("init")
    done("publish", "-", stdin=ndjson(events))
    done("consume")
    for option in ("--at", "--until"):
        asked = ("report", "finance", "statement", option, "2026-11-11", "--output", "json")
        assert sum(row["closing_coupons"] for row in done(*asked).json) == 0, option
    one_sentence(ledger("state", "c-1", "--at", "2026-11-11"), 1, "c-1")
    assert done("state", "c-1", "--at", "2026-11-10T16:00:00Z", "--output", "json").json["state"] == "claimed"
    said = done("coupons", "--at", "2026-11-11").err
    assert "only what happened before 2026-11-11 00:00:00" in said
    changed = done("diff", "--from", "2026-11-11", "--to", "2026-11-12", "--output", "json").json
    assert [row["coupon_id"] for row in changed] == ["c-1"]


@pytest.mark.long
def test_the_zone_is_that_of_flag_or_setting_and_is_named(shop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instants for people are by its clocks; machines get UTC."""
    assert "times in Asia/Shanghai" in done("state", "c-1").out
    assert "2026-11-10 23:30:00" in done("state", "c-1").out
    assert "2026-11-10 16:30:00" in done("state", "c-1", "--zone", "Europe/Berlin").out
    monkeypatch.setenv("COUPON_LEDGER_ZONE", "America/New_York")
    told = done("state", "c-1")
    assert "times in America/New_York" in told.out and "2026-11-10 10:30:00" in told.out
    assert "America/New_York" in told.err
    assert done("state", "c-1", "--output", "json").json["used_at"] == "2026-11-10T15:30:00.000000Z"
    one_sentence(ledger("state", "c-1", "--zone", "Mars"), 2, "Mars", "IANA")


@pytest.mark.long
def test_a_table_fits_and_says_what_it_leaves_out(shop: None) -> None:
    table = done("coupons")
    assert all(text_width(line) <= WIDTH for line in table.out.splitlines())
    assert "columns left out" in table.err and "…" in table.out
    wide = done("coupons", "--wide")
    assert "c-" + "9" * 60 in wide.out and "left out" not in wide.err
    chosen = done("coupons", "--columns", "coupon_id,discount_minor").out
    assert chosen.split()[:3] == ["discount", "coupon", "(JPY)"] and re.search("^c-1 +12,345$", chosen, re.MULTILINE)
    assert done("coupons", "--columns", "coupon_id", "--output", "csv").out.splitlines()[:2] == ["coupon_id", "c-1"]
    one_sentence(ledger("coupons", "--columns", "nonsense"), 2, "nonsense", "coupon_id")


@pytest.mark.long
def test_campaigns_come_in_natural_order_and_heads_name_the_currency(shop: None) -> None:
    table = done("campaigns", "--wide").out
    assert re.findall(r"^k-\d+", table, re.MULTILINE) == ["k-2", "k-10"]
    assert "12,345" in table and "24,690" not in table and "100.0%" in table
    assert "face value (JPY)" in done("expiries", "--wide").out or "discount (JPY)" in done("coupons", "--wide").out


def test_natural_order_is_for_rows_that_come_in_the_order_of_text() -> None:
    rows = [{"id": name, "n": n} for n, name in enumerate(["a1", "a10", "a2"])]
    assert [row["id"] for row in in_natural_order(rows, ["id", "n"])] == ["a1", "a2", "a10"]
    largest_first = [{"id": name} for name in ("b2", "a1", "b10")]
    assert in_natural_order(largest_first, ["id"]) == largest_first
    days = [{"day": day} for day in ("2026-11-12", "2026-11-02")]
    assert in_natural_order(days, ["day"])[0]["day"] == "2026-11-02"


@pytest.mark.parametrize(
    ("text", "width", "expected"), [("abcdef", 4, "abc…"), ("优惠券券", 5, "优惠…"), ("abc", 3, "abc")]
)
def test_a_long_text_is_cut_to_columns_of_a_terminal(text: str, width: int, expected: str) -> None:
    assert cut(text, width) == expected and text_width(cut(text, width)) <= width


def test_an_instant_is_shown_by_the_clocks_of_the_zone() -> None:
    """Also where the clocks change, and at the ends of time."""
    berlin = View(zone="Europe/Berlin")
    assert berlin.instant(datetime(2026, 7, 1)) == "2026-07-01 02:00:00"
    assert berlin.instant(datetime(2026, 12, 1, tzinfo=UTC)) == "2026-12-01 01:00:00"
    assert View(zone="Asia/Shanghai").instant(datetime(2026, 1, 1, 0, 0, 0, 500_000)) == "2026-01-01 08:00:00.5"
    assert View(zone="Asia/Shanghai").instant(datetime.max) == "9999-12-31 23:59:59.999999"
    assert View(zone="America/New_York").instant(datetime.min) == "0001-01-01 00:00:00"


def test_a_table_breaks_its_sentences_and_leaves_out_what_says_least(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a question is cut in the middle, or a statement ends without what it comes to."""
    said = "Has every row as many violations of its own events as it counts, of every topic that there is? " * 2
    print_rows([{"check": "one", "what": said.strip()}], "table", fit=Fit(wrap="what"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3 and max(map(text_width, lines)) <= WIDTH
    assert " ".join(" ".join(line[5:].split()) for line in lines[2:]).strip() == said.strip()
    moves = {f"{move}_minor": 0 if move == "returned" else 123_456_789 for move in MOVES}
    rows = [{"campaign_id": "c", "currency": currency, **moves} for currency in ("CNY", "USD")]
    print_rows(rows, "table", fit=Fit(spare=("returned_minor",), keep="closing_minor"))
    heads, *_ = capsys.readouterr().out.splitlines()
    assert "closing" in heads and "opening" in heads and "returned" not in heads


def test_sentences_hang_and_chinese_breaks_where_it_may(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    echo_wrapped("! " + "every finding is a sentence of many words " * 4, indent=2)
    first, *more = capsys.readouterr().out.splitlines()
    assert first.startswith("! ") and more and all(line.startswith("  ") and line[2] != " " for line in more)
    echo_wrapped("各模型适用的问题见 `attribution models list`。" * 6)
    lines = capsys.readouterr().out.splitlines()
    assert all(WIDTH - 14 < text_width(line) <= WIDTH for line in lines[:-1])
    assert not any(line.startswith(("。", "，")) for line in lines)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "hint"), [("campain_id", "did you mean campaign_id?"), ("zzz", "there are campaign_id, name,")]
)
def test_a_misspelled_column_is_answered_with_the_name_that_is_meant(shop: None, name: str, hint: str) -> None:
    for output in ("table", "json"):
        one_sentence(ledger("campaigns", "--columns", name, "--output", output), 2, f"no column {name}; {hint}")


@pytest.mark.long
def test_amounts_have_the_currency_that_is_known(shop: None) -> None:
    """A campaign that names none has that of its discounts; nothing at all has none."""
    assert re.search(r"(?m)^discount +12,345 JPY$", done("campaigns", "show", "k-10").out)
    assert "minor units" not in "".join(done(*what).out for what in (("campaigns",), ("order", "o-c-1")))
    assert re.search(r"(?m)^coupon discount by the uses +12,345 JPY$", done("order", "o-c-1").out)
    plan = done("experiment", "plan", "--mean", "7400", "--sd", "15000", "--people", "20000", "--currency", "CNY").out
    assert "74.00 CNY" in plan and len(re.findall(r"share.*8\.0%", plan)) == 2


@pytest.mark.long
def test_titles_say_what_stands_below_them(shop: None) -> None:
    assert "Net sales and margin by store" in done("report", "finance", "margin", "--by", "store").out
    everything = done("report", "finance", "--goods-rate", "60")
    assert "not by" not in everything.out + everything.err
    last, before = everything.err.splitlines()[-1], everything.err.splitlines()[-2]
    assert last.startswith("as of commit") and before == "--goods-rate changes these parts alone: margin, categories"
    roi = ("report", "roi", "--campaign", "k-10")
    assert "How the numbers join\n" in done(*roi, "--at", "2026-11-12").out
    assert "How the numbers join, whatever the period\n" in done(*roi, "--since", "2026-11-01").out


def test_refused_lines_that_are_not_told_are_counted(home: Path) -> None:
    done("init")
    ran = ledger("publish", "-", stdin=b"nonsense\n" * 7)
    assert "and 2 more, in stdin.rejected.ndjson" in ran.err and "line 5" in ran.err and "line 6" not in ran.err


@pytest.mark.long
def test_a_rule_that_is_none_and_a_period_that_ends_before_it_begins_are_refused(shop: None) -> None:
    """An empty answer would look like good news."""
    one_sentence(ledger("violations", "--code", "used_when_use"), 2, "did you mean used_when_used")
    one_sentence(ledger("violations", "--code", "double_use", "--count"), 2, "double_use", "violations --count")
    assert done("violations", "--code", "used_when_used", "--output", "json").json == []
    period = ("--since", "2026-12-01", "--until", "2026-11-01")
    one_sentence(ledger("report", "finance", "statement", *period), 2, "--until is before --since")
