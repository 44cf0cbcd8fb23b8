"""A campaign reviewed: every section says its numbers, or why it has none; nothing of anybody's data becomes markup."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import cast

import polars as pl
import pytest

from coupon_ledger.api.client import asking
from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.asking import Source
from coupon_ledger.questions.customers import customers
from coupon_ledger.questions.registry import Answer, AsOf
from coupon_ledger.questions.states import states as questions
from coupon_ledger.questions.states.parameters import OneCampaign
from coupon_ledger.reports.review import SECTIONS, CampaignAnswers
from tests.command_line import done, ledger, ndjson, one_sentence
from tests.test_customers import COUPONS, ORDERS, TOUCHES
from tests.test_finance import event

pytestmark = pytest.mark.long

NAME = "<b>K|1</b>"
TARGETS = [
    event("campaign.events", "published", "k", -4, name=NAME, coupon_type="cash"),
    event("campaign.events", "target_set", "k", -3, metric="net_uses", target=4),
    event("campaign.events", "target_set", "k", -2.5, metric="net_uses", target=3),
    event("campaign.events", "target_set", "k", -2, metric="industry_use_rate", target=2_500),
]


@pytest.fixture(scope="module", autouse=True)
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("review"))
        told = [{k: v for k, v in e.items() if v is not None} for e in (*TARGETS, *ORDERS, *COUPONS, *TOUCHES)]
        done("init")
        done("publish", "-", stdin=ndjson(told))
        done("consume")
        yield


def test_a_review_holds_the_result_against_goal_and_industry() -> None:
    """The last target counts; two of three coupons are in use, that is 66.67% against 25% of the industry."""
    review = json.loads(done("review", "k", "--format", "json").out)
    assert list(review["sections"]) == list(SECTIONS) and review["as_of"]["commits"] > 0
    tables = {name: section["tables"] for name, section in review["sections"].items()}
    [goal] = tables["goal"]["goal"]
    assert (goal["goal"], goal["result"], goal["reached"]) == (3, 2, pytest.approx(2 / 3, abs=1e-4))
    [industry] = tables["comparison"]["industry (行业均值)"]
    assert industry["industry"] == 0.25 and industry["times"] == pytest.approx(industry["campaign"] / 0.25, abs=1e-4)
    assert sum(row["used_it"] for row in tables["customers"]["segments (客户分层)"]) == 2
    [discount] = tables["cost"]["discount (优惠)"]
    assert (discount["discount_minor"], discount["without_sale_minor"]) == (20, 0)
    of_budget = {row["discount_minor"] for row in tables["cost"]["budget and booked costs (预算与成本)"]}
    credited = {row["discount_minor"] for row in tables["channels"]["what it earned, by model of attribution (归因)"]}
    assert of_budget == credited == {20}, "one campaign, one discount"
    assert {row["day"]: row["used_events"] for row in tables["trend"]["by day"]}["2025-11-11"] == 2


def test_what_the_data_do_not_carry_is_said_in_its_place() -> None:
    """Nobody was assigned to arms, and seven orders prove nothing: a number here would be a guess."""
    review = json.loads(done("review", "k", "--section", "incrementality", "--format", "json").out)
    section = review["sections"]["incrementality"]
    assert (section["refused"] and "refused" in section["refused"]) or section["refused"]
    assert "Refused" in done("review", "k", "--section", "incrementality").out


@pytest.mark.slow
def test_a_page_needs_nothing_from_anywhere_and_shows_data_as_text(tmp_path: Path) -> None:
    """It is sent around: neither a script nor a name with signs in it may do anything in the reader's browser."""
    page = tmp_path / "review.html"
    done("review", "k", "--to", page)
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") >= 4 and html.count("<table>") > 8 and "Campaign review" in html
    assert "<script" not in html and "<b>K" not in html
    loaded = re.findall(r"(?:src|href)=.(?!#)([^\"']+)", html)
    assert [address for address in loaded if not address.startswith("#")] == []
    assert "{{" not in html and "default-src 'none'" in html


@pytest.mark.slow
def test_markdown_tables_hold_whatever_stands_in_the_data() -> None:
    for lang, target in (("en", "| net uses | 3 | 2 | 66.7% |"), ("zh", "| 有效核销券数 | 3 | 2 | 66.7% |")):
        text = done("review", "k", "--lang", lang).out
        for line in text.splitlines():
            if line.startswith("|"):
                assert line.endswith("|")
        assert target in text


def test_a_layout_is_kept_and_used_again() -> None:
    """The weekly review has the same sections, by whomever it is made."""
    keep = ("--save-template", "weekly", "--why", "mondays", "--operator", "mei")
    done("review", "k", "--section", "cost", "--section", "goal", "--goods-rate", "80", *keep)
    assert "mondays" in done("review", "--list-templates").out
    again = json.loads(done("review", "k", "--template", "weekly", "--format", "json").out)
    assert list(again["sections"]) == ["cost", "goal"]
    metrics = {row["metric"] for row in again["sections"]["goal"]["tables"]["result"]}
    assert "simple_roi" in metrics
    one_sentence(ledger("review", "k", "--template", "monthly"), 1, "monthly", "weekly")


def test_a_review_as_of_the_past_is_of_the_past() -> None:
    """On the day before the sale no coupon was used yet."""
    then = json.loads(done("review", "k", "--section", "goal", "--at", "2025-11-10", "--format", "json").out)
    result = {row["metric"]: row["value"] for row in then["sections"]["goal"]["tables"]["result"]}
    assert result["net_uses"] == 0


@pytest.mark.slow
def test_every_section_can_be_asked_of_the_past() -> None:
    """What the demo tells people to try."""
    then = json.loads(done("review", "k", "--at", "2025-12-01", "--goods-rate", "75", "--format", "json").out)
    refused = {name for name, section in then["sections"].items() if section["refused"]}
    assert refused == {"incrementality"}


@pytest.mark.slow
def test_questions_of_one_past_are_answered_as_each_by_itself() -> None:
    """A review cuts the past off once: what one question put in place must not be there for the next."""
    past = {"at": datetime(2025, 11, 12)}
    asked: tuple[tuple[str, dict[str, str]], ...] = (
        ("campaign", {"campaign": "k"}),
        ("attribution-roi", {"campaign": "k"}),
        ("customers", {}),
        ("metrics", {"names": "net_uses,simple_roi", "by": "campaign"}),
        ("campaign-segments", {"campaign": "k"}),
        ("campaign-violations", {"campaign": "k"}),
        ("finance-statement", {"campaign": "k"}),
        ("attribution-roi", {"campaign": "k", "models": "redeemed"}),
        ("campaigns", {}),
    )
    told = []
    for together in (True, False):
        with (
            asking(Path("coupon-ledger.duckdb")) as local,
            local.snapshot() if together else nullcontext(local) as source,
        ):
            with pytest.raises(WrongQuestion):  # refused, and the past stays
                source.ask("experiment", campaign="k", **past).row()
            told.append([pl.concat(source.ask(name, **given, **past).frames).to_dicts() for name, given in asked])
    assert told[0] == told[1]


@pytest.mark.slow
def test_the_largest_amounts_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One odd event must not end every report."""
    monkeypatch.chdir(tmp_path)
    huge = {"net_minor": 2**53 - 1, "gross_minor": 2**53 - 1}
    done("init")
    done("publish", "-", stdin=ndjson([{**ORDERS[0], **huge}, {**ORDERS[1], **huge}]))
    done("consume")
    for asked in (
        ("report", "finance", "margin"),
        ("report", "segments", "rfm"),
        ("metrics", "query", "net_sales_minor"),
    ):
        done(*asked)


def test_unknown_campaigns_and_places_are_said() -> None:
    one_sentence(ledger("review", "nobody"), 1, "nobody")
    assert ledger("review").code == 2
    assert ledger("review", "k", "--section", "goal", "--to", "/nonexistent/x.md").code != 0


def test_the_rules_that_a_campaign_broke_are_those_of_its_coupons_and_orders() -> None:
    """Else somebody is blamed for another campaign, or a fault of an order is seen by nobody."""
    [table] = (
        rows
        for title, rows in json.loads(done("review", "k", "--section", "anomalies", "--format", "json").out)[
            "sections"
        ]["anomalies"]["tables"].items()
        if title.startswith("broken")
    )
    mine = {row["coupon_id"] for row in done("coupons", "--campaign", "k", "--output", "ndjson").rows}
    of_orders = {o["order_id"] for o in ORDERS if mine & set(o.get("coupon_ids") or ())}
    counted: dict[str, int] = {}
    for row in done("violations", "--output", "ndjson").rows:
        if row["key"] in mine | of_orders and not row["superseded"]:
            counted[row["violation"]] = counted.get(row["violation"], 0) + 1
    assert {row["violation"]: row["cases"] for row in table} == counted


def test_who_used_another_campaigns_coupon_did_not_use_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Customers have uses of their own beside those of the campaign: mixed up, every segment looks like a success."""
    of_campaign = [("ann", 1, 0), ("bob", 2, 1), ("dan", 1, 0)]
    bought = [(user, "new", "CNY", 3, 2, 100) for user in ("ann", "bob", "cat")]
    theirs = pl.DataFrame(of_campaign, schema=["user_id", "got", "used"], orient="row")
    columns = ["user_id", "segment", "currency", "coupon_orders", "orders", "net_sales_minor"]
    everyone = pl.DataFrame(bought, schema=columns, orient="row")
    monkeypatch.setattr(questions, "campaign_users", lambda *_: theirs)
    monkeypatch.setattr(customers, "in_segments", lambda _: everyone)
    told = {
        "campaign-segments": questions.campaign_segments(cast(Reading, None), OneCampaign(campaign="k")),
        "campaign-users": theirs,
    }

    class FixedAnswers:
        def ask(self, question: str, **_: object) -> Answer:
            about = pl.DataFrame({"name": [None]})
            return Answer(AsOf(1, None, None, []), iter([told.get(question, about)]))

        def snapshot(self) -> AbstractContextManager[Source]:
            return nullcontext(self)

        def close(self) -> None: ...

    section = SECTIONS["customers"][1](CampaignAnswers(FixedAnswers(), "k", {}, None))
    [row] = section.tables["segments (客户分层)"]
    assert (row["customers"], row["got"], row["used_it"], row["net_sales_minor"]) == (3, 2, 1, 100)
    assert row["use_rate"] == 0.5
    assert any(text.startswith("1 of them never bought anything") for text in section.text)


def test_a_total_stands_under_what_can_be_added_up() -> None:
    """People would add it up themselves, the orders of two kinds of discount too."""
    kinds = done("report", "finance", "margin", "--by", "day", "--goods-rate", "60", "--output", "ndjson").rows
    net = sum(row["net_sales_minor"] for row in kinds if row["currency"] == "CNY")
    text = done("report", "finance", "margin", "--by", "day", "--goods-rate", "60", "--limit", "1").out
    [total] = [line for line in text.splitlines() if line.startswith("total ") and f"{net / 100:,.2f}" in line]
    assert total and "Net sales and margin" in text
    assert "total" not in done("report", "finance", "losses").out


def test_cohorts_are_a_triangle_for_people() -> None:
    head, _, *rows, legend = done("report", "cohorts", "retention").out.strip().splitlines()[1:]
    assert head.split()[:3] == ["cohort", "customers", "+1"]
    assert rows and all(re.fullmatch(r"\d{4}-\d\d +[1-9]\d*( +\d+%…?)*", row) for row in rows)
    assert legend.startswith("+1, +2, …: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        "roi", "channels coupons", "channels credit", "funnel coupons", "funnel behaviour", "cohorts retention",
        "segments rfm", "finance split", "finance budget", "finance losses", "finance statement", "finance cash",
    ],
)  # fmt: skip
def test_every_report_is_followed_down_to_coupons_orders_or_people(asked: str) -> None:
    """A number that nobody can follow is one that nobody believes."""
    rows = done("report", *asked.split(), "--explain", "--output", "ndjson").rows
    told = json.dumps(rows)
    assert rows or asked == "finance losses"
    assert not rows or ("user_id" if asked == "funnel behaviour" else "order_id") in told or '"coupon_id"' in told


@pytest.mark.slow
def test_what_a_review_tells_people_to_run_runs() -> None:
    sections = json.loads(done("review", "k", "--goods-rate", "60", "--format", "json").out)["sections"]
    for section in sections.values():
        assert section["commands"] or section["refused"]
        for command in section["commands"]:
            program, *arguments = shlex.split(command)
            assert program == "coupon-ledger" and done(*arguments).code == 0


@pytest.mark.slow
def test_markdown_lies_beside_its_charts(tmp_path: Path) -> None:
    done("review", "k", "--to", tmp_path / "k.md")
    drawn = re.findall(r"\]\(<(.*?)>\)", (tmp_path / "k.md").read_text(encoding="utf-8"))
    assert len(drawn) >= 4 and all((tmp_path / name).read_text(encoding="utf-8").startswith("<svg") for name in drawn)


def test_reports_of_roi_channels_and_experiments() -> None:
    [row] = done("report", "roi", "--goods-rate", "60", "--output", "ndjson").rows
    assert row["campaign"] == "k" and row["net_uses"] == 2 and row["discount_cost_minor"] == 20
    # ann's 2000 and cat's 800, 40% of it margin, over 20 of discount
    assert row["coupon_margin_minor"] == 1120 and row["simple_roi"] == pytest.approx(56)
    unknown = done("report", "roi", "--output", "ndjson")
    assert unknown.rows[0]["simple_roi"] is None and "no known cost of goods" in unknown.err
    [channel] = done("report", "channels", "coupons", "--output", "ndjson").rows
    assert (channel["channel"], channel["issued_events"], channel["net_uses"]) == ("app", 3, 2)
    credits = done("report", "channels", "credit", "--output", "ndjson").rows
    by_model: dict[tuple[str, str], float] = {}
    for credit in credits:
        key = (credit["model"], credit["currency"])
        by_model[key] = by_model.get(key, 0) + credit["orders"]
    assert {round(orders, 6) for (_, currency), orders in by_model.items() if currency == "CNY"} == {7}
    assert "no campaign has arms" in done("report", "experiments").out


def test_days_of_a_review_are_those_of_its_zone() -> None:
    """The same sale would lie on two days in two reports."""
    zone = ("--zone", "Pacific/Kiritimati")
    review = json.loads(done("review", "k", "--section", "trend", *zone, "--format", "json").out)
    query = ("metrics", "query", "used_events", "--where", "campaign=k", "--grain", "day")
    there, here = (done(*query, *more, "--output", "json").json for more in (zone, ()))
    days = {row["bucket"]: row["used_events"] for row in there if row["used_events"]}
    assert days != {row["bucket"]: row["used_events"] for row in here if row["used_events"]}
    assert {
        r["day"]: r["used_events"] for r in review["sections"]["trend"]["tables"]["by day"] if r["used_events"]
    } == days
    assert all("--zone Pacific/Kiritimati" in command for command in review["sections"]["trend"]["commands"])


def test_a_budget_stays_in_its_currency_and_is_explained_to_the_cent(tmp_path: Path) -> None:
    """A cost booked abroad would make the budget one of dollars; who asks where the money went would not find it."""
    cost = event("campaign.events", "cost_booked", "k", 1, cost_kind="media", amount_minor=700, currency="USD")
    terms = event("campaign.events", "amended", "k", -1, budget_minor=5_000, currency="CNY")
    where = ("--database", str(tmp_path / "b.duckdb"))
    log = ("--log", f"sqlite:///{tmp_path / 'b.log.db'}")
    done("init", *where, *log)
    done("publish", "-", *log, stdin=ndjson([*COUPONS, *ORDERS, *TARGETS, terms, cost]))
    done("consume", *where, *log)
    budget = done("report", "finance", "budget", "--campaign", "k", *where, "-o", "json").json
    assert {row["currency"]: row["budget_minor"] for row in budget} == {"CNY": 5_000, "USD": None}
    behind = done("report", "finance", "budget", "--campaign", "k", "--explain", *where, "-o", "json").json
    for row in budget:
        assert sum(r["amount_minor"] for r in behind if r["currency"] == row["currency"]) == row["spent_minor"]


def test_people_of_a_funnel_are_those_that_it_counts() -> None:
    """The drill-down listed coupons, also of nobody."""
    counted = {
        r["step"]: r["users"] for r in done("report", "funnel", "behaviour", "--campaign", "k", "-o", "json").json
    }
    listed = done("report", "funnel", "behaviour", "--campaign", "k", "--explain", "-o", "json").json
    assert {step: sum(r["step"] == step for r in listed) for step in counted} == counted and listed


@pytest.mark.parametrize("part", [("roi",), ("funnel", "coupons"), ("finance", "split"), ("channels", "coupons")])
def test_a_campaign_that_nothing_names_is_not_one_that_sold_nothing(part: tuple[str, ...]) -> None:
    """A misspelt name would be reported as a failure of the campaign."""
    one_sentence(ledger("report", *part, "--campaign", "d1l"), 1, "campaign d1l", "coupon-ledger campaigns")


@pytest.mark.parametrize("rate", ["0.75", "DAIRY=1"])
def test_a_rate_that_is_meant_as_a_share_is_refused(rate: str) -> None:
    """Margin would be 99% of sales, without a word."""
    one_sentence(ledger("report", "roi", "--goods-rate", rate), 2, "write 75")


def test_the_page_is_found_wherever_the_command_runs(tmp_path: Path) -> None:
    """Installed, a review as a page would end in a traceback, or take another application's page."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "__init__.py").touch()
    (tmp_path / "reports" / "review.html").write_text("the application's own")
    program = """
from jinja2 import UndefinedError
from coupon_ledger.reports import review_page
try:
    print(review_page._template().render())
except UndefinedError:  # nothing was given to our page
    print("ours")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ours\n", "")
