# ruff: noqa: E501 - questions and commands are not broken
"""Questions in plain words: what people type is understood as what they mean, or not answered at all."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.words import catalogue
from coupon_ledger.questions.plain_words.readings import Outcome, Understood, Unsure, Vocabulary
from coupon_ledger.questions.plain_words.understanding import REASONS, TITLES, understand
from coupon_ledger.questions.registry import QUESTIONS
from tests.command_line import COMMAND, DATABASE, coupon_event, done, ledger, ndjson
from tests.examples import examples

CASES = Path(__file__).parent / "plain_words"
CLOCK = datetime(2017, 11, 15, 6, 30)
NAMES = Vocabulary(
    {
        "13": "Campaign 13 (Type A)",
        "18": "Campaign 18 (Type A)",
        "618": "618 Sale",
        "k-1": "Summer Sale",
        "8": "双十一大促",
    },
    {
        "channel": ("app", "mail", "web", "wechat"),
        "store": ("367", "405", "s-1"),
        "region": ("east", "上海"),
        "segment": ("vip", "new"),
        "coupon_type": ("cash", "percent", "threshold", "shipping", "gift", "other"),
    },
)


def cases(name: str) -> Any:
    return tomllib.loads((CASES / name).read_text(encoding="utf-8"))


def read(text: str) -> Outcome:
    return understand(text, NAMES, CLOCK, "Asia/Shanghai")


def written(value: Any) -> Any:
    return f"{value.isoformat()}Z" if isinstance(value, datetime) else value


def exact(case: Any, outcome: Outcome) -> bool:
    if not isinstance(outcome, Understood):
        return False
    reading = outcome.reading
    parameters = {name: written(value) for name, value in reading.parameters.items() if name != "zone"}
    order = reading.order and ("descending" if reading.descending else "ascending")
    return (reading.question, parameters, order, reading.top) == (
        case["question"],
        case["parameters"],
        case.get("order"),
        case.get("top"),
    )


@pytest.mark.long
def test_people_get_what_they_asked_for_and_never_a_confident_wrong_answer() -> None:
    tally: Counter[tuple[str, str, bool]] = Counter()
    wrong = []
    for case in cases("understood.toml")["case"]:
        outcome = read(case["asked"])
        good = exact(case, outcome)
        tally[case["lang"], case["kind"], good] += 1
        if not good and isinstance(outcome, Understood) and outcome.confidence == "sure":
            wrong.append(case["asked"])
    for lang, kind in sorted({key[:2] for key in tally}):
        right, failed = tally[lang, kind, True], tally[lang, kind, False]
        print(f"{lang:6} {kind:12} {right:4} of {right + failed}")
    right = sum(n for key, n in tally.items() if key[2])
    print(f"exact: {right} of {tally.total()}")
    assert tally.total() >= 200
    assert not wrong
    assert right >= 0.95 * tally.total()


def test_what_the_data_cannot_know_is_not_answered() -> None:
    """Else a number is shown that has nothing to do with the question."""
    asked = cases("unanswered.toml")["asked"]
    assert len(asked) >= 40
    assert not [text for text in asked if isinstance(read(text), Understood)]


@pytest.mark.parametrize(
    "text", ["discount by cost", "redemtion rate by chanel", "sales last week", "profit of campaign 18"]
)
def test_a_guess_says_that_it_is_one(text: str) -> None:
    outcome = read(text)
    assert (
        not isinstance(outcome, Understood) or (outcome.confidence == "likely" and outcome.doubts) or not outcome.doubts
    )


def test_an_unknown_word_is_named_and_the_nearest_reading_offered() -> None:
    outcome = read("use rate by channel in paris")
    assert isinstance(outcome, Unsure)
    assert str(outcome.why) == "not understood: paris"
    assert outcome.alternatives[0].parameters["names"] == ["use_rate"]


WORDS = st.sampled_from(
    "use rate discount by channel last week 前 天 昨天 各 渠道 campaign 18 coupon C1 top 5 vs 双十一 11 nov 9 pm to from 999 % \x00 \U0001f600".split()
)


@pytest.mark.long
@examples(60)
@given(st.one_of(st.text(max_size=600), st.lists(WORDS, max_size=40).map(" ".join)))
def test_no_text_breaks_it(text: str) -> None:
    """Whatever is typed, people get a reading or a reason, and each reading can be asked."""
    outcome = read(text)
    readings = [outcome.reading] if isinstance(outcome, Understood) else []
    for reading in (*readings, *outcome.alternatives):
        QUESTIONS[reading.question].read(reading.question, reading.parameters)


def test_every_reading_of_the_cases_can_be_asked() -> None:
    for case in cases("understood.toml")["case"]:
        QUESTIONS[case["question"]].read(case["question"], case["parameters"])


def test_titles_and_reasons_are_in_chinese_too() -> None:
    assert not [text for text in (*TITLES.values(), *REASONS.values()) if text not in catalogue()]


def test_a_period_is_that_of_the_readers_zone() -> None:
    outcome = understand(
        "uses yesterday", NAMES, datetime(2017, 11, 15, 2, tzinfo=UTC).replace(tzinfo=None), "America/New_York"
    )
    assert isinstance(outcome, Understood)
    assert outcome.reading.parameters["since"] == datetime(2017, 11, 13, 5)


@pytest.fixture
def consumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    events = [
        coupon_event("created", "e-1"),
        coupon_event("issued", "e-2", occurred_at="2026-11-11T00:01:00Z"),
        coupon_event("claimed", "e-3", occurred_at="2026-11-11T00:02:00Z", user_id="u-1"),
    ]
    done("init")
    done("publish", "-", stdin=ndjson(events))
    done("consume")


@pytest.mark.long
@pytest.mark.usefixtures("consumed")
def test_the_number_is_that_of_the_same_question_asked_directly() -> None:
    said = done("ask", "how many coupons were claimed on 2026-11-11", "--output", "json").json
    direct = done(
        "metrics", "query", "claimed_coupons", "--since", "2026-11-11", "--until", "2026-11-12", "--output", "ndjson"
    )
    assert said["rows"][0]["claimed_coupons"] == direct.rows[0]["claimed_coupons"] == 1
    assert said["confidence"] == "sure"
    assert ledger("ask", "weather").code == 1
    assert ledger("ask", "asdf").code == 2
    assert "领取券数" in done("ask", "昨天领了多少券", "--lang", "zh").out


@pytest.mark.long
@pytest.mark.usefixtures("consumed")
def test_an_assistant_asks_over_stdio() -> None:
    """Else assistants get no answer, or a crash in place of the reason."""
    from mcp.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    async def talk() -> list[Any]:
        server = StdioServerParameters(command=str(COMMAND), args=["mcp", "--database", str(Path(DATABASE).absolute())])
        async with Client(stdio_client(server)) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            answers = [
                await client.call_tool("ask", {"question": "how many coupons were claimed on 2026-11-11"}),
                await client.call_tool("question", {"name": "metrics", "parameters": {"names": ["nope"]}}),
                await client.call_tool("question", {"name": "metrics", "parameters": {"names": ["claimed_events"]}}),
            ]
            definition = await client.read_resource("metric://use_rate")
            return [tools, *answers, definition]

    tools, asked, failed, direct, definition = asyncio.run(talk())
    assert tools == {"ask", "question", "questions_list", "metrics_list"}
    assert json.loads(asked.content[0].text)["rows"][0]["claimed_coupons"] == 1
    assert failed.is_error
    assert "metric nope: there is none of that name" in failed.content[0].text
    assert json.loads(direct.content[0].text)["rows"][0]["claimed_events"] == 1
    assert json.loads(definition.contents[0].text)["name"] == "use_rate"


def test_an_answer_of_many_rows_is_cut_and_says_so() -> None:
    from coupon_ledger.api.assistant import MOST_CHARACTERS, _bounded

    text = _bounded({"rows": [{"text": "x" * 1000}] * 1000, "more": False})
    assert len(text) <= MOST_CHARACTERS
    assert json.loads(text)["more"]
