"""Whoever reads Chinese reads Chinese only: every sentence, name and code that people are shown has its 中文."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from string import Formatter

import click
import pytest

from coupon_ledger.cli import attribution, coupons, report
from coupon_ledger.cli.view import TerminalView, flags
from coupon_ledger.ledger.labels import codes
from coupon_ledger.ledger.operations import ACTIONS
from coupon_ledger.ledger.rules import DATA, STATES, types
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.ledger.words import GRAMMAR, TEMPLATE_KINDS, Note, Speaker, catalogue, note
from coupon_ledger.questions.attribution.models import KINDS, WHEN
from coupon_ledger.questions.audits import AUDITS, question_of
from coupon_ledger.questions.experiments import facts, result
from coupon_ledger.questions.metrics.definitions import METRICS
from coupon_ledger.reports import as_of, experiment, parts, review
from coupon_ledger.reports.labels import named, word
from tests.command_line import coupon_event, done, ledger, ndjson

ROOT = Path(__file__).parent.parent
SPEAK = {"say": 0, "note": 0, "warn": 0, "Note": 0, "caveat": 1}
"""Functions that take a template, and the place of it."""
HOMES = tuple(
    f"coupon_ledger.{home}" for home in ("reports.labels", "cli.tables", "ledger.words", "questions.experiments.facts")
)


def written_out() -> Iterator[tuple[str, str]]:
    """Templates that stand in a call, and where."""
    for room in ("ledger", "cli", "api", "delivery", "reports", "questions", "projections", "analysis"):
        for file in (ROOT / room).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            ours = {
                alias.asname or alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module in HOMES
                for alias in node.names
            } | ({"caveat"} if file.name == "facts.py" else set())
            for node in ast.walk(tree):
                name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
                if name not in ours:
                    continue
                if not isinstance(node, ast.Call) or len(node.args) <= SPEAK.get(name, 99):
                    continue
                template = node.args[SPEAK[name]]
                if isinstance(template, ast.Constant):
                    yield str(template.value), f"{file.name}:{node.lineno}"


def in_tables() -> Iterator[tuple[str, str]]:
    tables = [table for table in vars(parts).values() if isinstance(table, dict)]
    titles = {part.title for table in tables for part in table.values() if isinstance(part, parts.Part)}
    assert len(titles) > 15
    yield from ((title, "parts of reports") for title in titles)
    for table in (parts.LINES, parts.ACCOUNTS, experiment.TITLES, review.TABLE_TITLES,
                  attribution._NOTES, facts._RULES,
                  result._EARNED):  # fmt: skip
        yield from ((text, "a table") for text in table.values())
    yield from ((text, "cuts") for texts in as_of.CUTS.values() for text in texts)
    yield from ((text, "doubts") for doubt in parts.DOUBTS.values() for text in doubt)
    yield from ((question_of(name), "audits") for name in AUDITS)
    meant = {text for m in METRICS.values() for text in (m.meaning, m.caveat, *m.grain.split("; ")) if text}
    yield from ((text, "metrics") for text in meant)
    yield from ((text, "models of attribution") for text in (*WHEN.values(), *KINDS.values()))
    yield from ((text, "a table") for text in (*coupons._EXCUSED.values(), parts.WITHOUT_BUDGET, parts.MONTHS_LATER))
    for query in ("campaign_conservation", "conservation"):
        [file] = (ROOT / "questions").rglob(f"{query}.sql")
        yield from ((text, query) for text in re.findall(r"'(\w[\w -]+ = [\w -]+)'", file.read_text(encoding="utf-8")))
    yield from ((title, "sections of reviews") for title, _ in review.SECTIONS.values())
    yield from ((text, "results") for name, text in vars(result).items() if isinstance(text, str) and "{" in text)


def fields(template: str) -> set[tuple[str, str]]:
    return {(name, kind or "") for _, name, kind, _ in Formatter().parse(template) if name is not None}


@pytest.mark.long
def test_every_sentence_has_a_chinese_text() -> None:
    templates = [*written_out(), *in_tables()]
    assert len(templates) > 150
    assert not sorted({(text, place) for text, place in templates if text not in catalogue()})


def test_a_chinese_text_has_the_values_of_its_template_and_no_others() -> None:
    """Else a number is left out in one language, or the command ends in an error in it."""
    for template, text in catalogue().items():
        assert fields(text) <= fields(template), template
        lost = {name for name, kind in fields(template) if kind not in GRAMMAR} - {name for name, _ in fields(text)}
        assert not lost, (template, lost)
        assert all(kind in TEMPLATE_KINDS or not kind for _, kind in fields(template)), template


def test_a_note_survives_the_way_through_json_and_is_said_in_both_languages() -> None:
    inner = note("{n:count} customers, or all alike: too few to tell groups apart", n=1234)
    told = Note("{currency}: {why}", {"currency": "CNY", "why": [inner, inner]})
    again = Note.loads(told.dumps())
    assert again == Note(told.template, {"currency": "CNY", "why": [inner, inner]})
    assert str(again).startswith("CNY: 1,234 customers")
    assert Speaker("zh").say(again).startswith("CNY：客户 1,234 人")
    at = note("data's clock {at:instant}", at=datetime(2026, 11, 11))
    assert str(Note.loads(at.dumps())) == "data's clock 2026-11-11T00:00:00Z"
    worth = Note("{cost:money}", {"cost": (98_282, "USD")})
    assert str(Note.loads(worth.dumps())) == "982.82 USD"


PARTS = [
    *(f"finance {name}" for name in parts.FINANCE),
    *(f"segments {name}" for name in parts.SEGMENTS),
    *(f"cohorts {name}" for name in parts.COHORTS),
    *(f"funnel {name}" for name in parts.FUNNEL),
    *(f"channels {name}" for name in parts.CHANNELS),
    "roi",
    "restated --known-from 2026-11-12",
    "experiments",
]
KNOWN = frozenset("ID ROI CNY USD app shop Asia Shanghai report finance doubts goods-rate wide limit output ndjson json"
" k-1 "
                  "coupon-ledger experiment assign CUPED p".split())  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A shop with orders, uses of which one is double, a refund and a booked cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("world"))
        patch.setenv("LC_ALL", "C.UTF-8")
        events = []
        for n in range(6):
            key, user, order = f"c-{n}", f"u-{n % 3}", f"o-{n}"
            day = f"2026-11-1{n}T00:00:00Z"
            common = {"coupon_id": key, "user_id": user, "occurred_at": day}
            events += [
                coupon_event(
                    "created", f"{key}-1", coupon_id=key, occurred_at=day, currency="CNY", face_value_minor=500
                ),
                coupon_event("issued", f"{key}-2", coupon_id=key, occurred_at=day),
                coupon_event("claimed", f"{key}-3", **common),
                coupon_event("used", f"{key}-4", order_id=order, currency="CNY", **common),
            ]
            paid = {"topic": "order.events", "type": "paid", "event_id": f"{order}-1", "source": "shop",
                    "order_id": order, "user_id": user, "currency": "CNY", "gross_minor": 9000,
                    "net_minor": 8500, "occurred_at": day,
                    "channel": "app", "coupon_ids": [key], "cost_of_goods_minor": 4000 if n else None,
                    "discounts": [{"kind": "coupon", "amount_minor": 500, "funder": "platform"}]}  # fmt: skip
            events.append({name: value for name, value in paid.items() if value is not None})
        events.append(coupon_event("used", "c-1-5", coupon_id="c-1", user_id="u-1", order_id="o-1",
                                   occurred_at="2026-11-12T00:00:00Z"))  # fmt: skip
        done("init")
        done("publish", "-", stdin=ndjson(events))
        done("consume")
        yield


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
def test_a_report_in_chinese_has_no_english_word(part: str, world: None) -> None:
    ran = ledger("report", *shlex.split(part), "--lang", "zh", "--wide")
    assert ran.code in (0, 2), ran.err  # 2: refused, for the reason that is said
    words = re.findall(r"[A-Za-z][A-Za-z_-]+", re.sub(r"\b[cou]-\d+\b|\bk-1\b|--[a-z-]+", "", ran.out + ran.err))
    assert not sorted({word for word in words if word not in KNOWN}), ran.out + ran.err


COMMANDS = [
    "campaigns",
    "campaigns show k-1",
    "order o-1",
    "user u-1",
    "history c-1",
    "violations",
    "violations --count",
    "diff --from 2026-11-11 --to 2026-11-12",
    "attribution show",
    "report roi --campaign k-1 --since 2026-11-01",
    "operations",
    "user u-1 --person",
    "attribution show --explain o-1",
    "report finance losses --explain",
    "verify",
    "status",
]


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_chinese_has_no_english_word(command: str, world: None) -> None:
    ran = ledger(*shlex.split(command), "--wide", "--lang", "zh") if "status" not in command else ledger(
        "--lang", "zh", *shlex.split(command)
    )  # fmt: skip
    assert ran.code == 0, ran.err
    written = re.sub(r"`[^`]*`|[0-9a-f]{32}|\b[0-9a-f]{12}\b", " ", ran.out + ran.err)  # commands and digests
    named = re.compile(r"[a-z]+_[a-z_]+|[a-z]+\.events|--[a-z-]+|\b[ckou]-\d+(-\d+)?\b|coupon-ledger\S*|sqlite\S*")
    if command.startswith("verify"):  # checks and tables are named as options take them
        written = re.sub(r"(?m)^[a-z]+(?= )", " ", written)
    words = re.findall(r"[A-Za-z][A-Za-z_-]+", named.sub(" ", written))
    assert not sorted({word for word in words if word not in KNOWN}), ran.out + ran.err
    for code in (*codes(), *(f"{event}_when_{state}" for event in types(COUPON) for state in STATES)):
        assert "_" not in code or command == "verify" or not re.search(rf"\b{code}\b", written), code


def test_every_code_of_a_violation_has_its_words() -> None:
    violations = {f"{event}_when_{state}" for event in types(COUPON) for state in STATES}
    violations |= {*DATA["guards"], *DATA["cross"]["campaign"], *DATA["cross"]["between_topics"], *ACTIONS}
    with click.Context(click.Command("words")):
        flags().shown = TerminalView(lang="zh")
        assert not [code for code in violations if word(code) == code or not word(code)]
        assert (word("extended_when_used"), word("used_when_used")) == ("核销后延期", "重复核销")
        assert word("my_own_when_new") == "my_own_when_new"
        flags().shown = TerminalView(lang="en")
        assert (word("at_risk"), word("extended_when_used"), word("my_arm")) == (
            "at risk", "extended when used", "my_arm")  # fmt: skip


@pytest.mark.long
def test_a_review_in_chinese_has_no_english_word(world: None, tmp_path: Path) -> None:
    page = tmp_path / "review.html"
    done("review", "k-1", "--lang", "zh", "--to", page)
    text = re.sub(r"<style.*?</style>|<script.*?</script>|<svg.*?</svg>|<pre>.*?</pre>|<code>.*?</code>", "",
                  page.read_text(encoding="utf-8"), flags=re.DOTALL)  # fmt: skip
    words = re.findall(
        r"[A-Za-z][A-Za-z_-]+", re.sub(r"<[^>]*>|&\w+;|\b[cou]-\d+\b|\bk-1\b|`[^`]*`|--[a-z-]+", " ", text)
    )
    assert not sorted({word for word in words if word not in KNOWN})


@pytest.mark.long
def test_the_language_is_that_of_flag_setting_or_locale(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done("init")
    assert "nothing found" in done("campaigns").out
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert done("campaigns").out == "无\n"
    assert "nothing found" in done("campaigns", "--lang", "en").out
    monkeypatch.setenv("COUPON_LEDGER_LANG", "en")
    assert "nothing found" in done("campaigns").out
    assert done("--lang", "zh", "campaigns").out == "无\n"


@pytest.mark.long
def test_every_column_of_the_reports_has_a_chinese_name(world: None) -> None:
    for part in PARTS:
        ran = ledger("report", *shlex.split(part), "--output", "json")
        rows = ran.json if ran.code == 0 else []
        for row in rows if isinstance(rows, list) else []:
            assert not [name for name in row if named(name) is None and name != "name"], part


def test_doubts_are_whole_sentences_with_and_without_their_number() -> None:
    """One is no plural; in Chinese no measure word stands without its number."""
    for doubt in parts.DOUBTS:
        row = {"doubt": doubt, "cases": 1, "amount_minor": 500, "currency": "CNY"}
        english, chinese_text = str(parts.doubt_in_words(row)), Speaker("zh").say(parts.doubt_in_words(row))
        assert re.match(r"1 (paid )?(order|refund|coupon|campaign|use) ", english), english
        assert "（1）：" in chinese_text and "涉及 5.00 CNY" in chinese_text
        assert not re.match("[个张笔次]", Speaker("zh").say(parts.doubt_without_number(doubt)))


def test_what_is_left_of_budgets_is_explained_beside_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [
        {"currency": "CNY", "budget_minor": 10_000, "spent_minor": 5_000, "left_minor": 5_000},
        {"currency": "CNY", "budget_minor": None, "spent_minor": 900, "left_minor": None},
    ]
    report._say_spent_without_budget(rows, [{"currency": "CNY", "spent_minor": 5_900, "left_minor": 5_000}])
    assert "includes 9.00 CNY of campaigns without a budget" in capsys.readouterr().out
    report._say_spent_without_budget(rows[:1], [{"currency": "CNY", "spent_minor": 5_000, "left_minor": 5_000}])
    assert capsys.readouterr().out == ""
