"""Parameters of questions that are out of bounds: refused with their name and the bound, by the command line and by the
endpoint alike; never a server error."""

from __future__ import annotations

import dataclasses
import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from coupon_ledger.ledger.errors import LedgerError, WrongQuestion
from coupon_ledger.projections.database import open_database
from coupon_ledger.questions.local import Local
from coupon_ledger.questions.parameters import Parameter
from coupon_ledger.questions.registry import QUESTIONS
from coupon_ledger.questions.states.parameters import Become
from tests.command_line import DATABASE, done, ledger, ndjson, one_sentence
from tests.owners import Owner, owning
from tests.test_cli import shop_events

FIRST: Final = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
LAST: Final = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-12)))
EXTREMES: Final = {
    datetime: (FIRST, LAST, datetime.min, datetime.max.replace(tzinfo=UTC)),
    int: (-1, 0, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30),
    float: (-1.0, 0.0, 1e308, float("inf"), float("nan")),
    str: ("", "\0", "a" * 5_000, "'; SELECT 1 --", ",", "[]", "{}", "all"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with some events, consumed; the working folder of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("home"))
        done("init")
        done("publish", "-", stdin=ndjson(shop_events()))
        done("consume")
        yield Path.cwd()


@pytest.fixture(scope="module")
def local(home: Path) -> Iterator[Local]:
    with open_database(home / DATABASE, read_only=True) as store:
        asked = Local(store)
        yield asked
        asked.close()


def kinds_of(name: str, parameter: Parameter) -> set[type]:
    """The types of single values that it takes; text stands for every structure, too."""

    def within(kind: Any) -> set[type]:
        return {kind} if kind in EXTREMES else {one for part in get_args(kind) for one in within(part)}

    return within(get_type_hints(QUESTIONS[name].model)[parameter.name]) or {str}


def needed(name: str) -> dict[str, Any]:
    """A value for what the question cannot do without."""
    values: dict[type, Any] = {int: 0, str: "c-1", datetime: datetime(2026, 11, 11)}
    return {
        p.name: [] if p.nested else values[next(iter(kinds_of(name, p)))]
        for p in QUESTIONS[name].parameters.values()
        if p.required
    }


@pytest.mark.long
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_parameter_at_the_ends_of_its_type_is_answered_or_refused(local: Local, name: str) -> None:
    """Else a number or an instant that nobody thought of would be a traceback, or a server error."""
    for parameter in QUESTIONS[name].parameters.values():
        for value in (extreme for kind in kinds_of(name, parameter) for extreme in EXTREMES[kind]):
            try:
                for _ in local.ask(name, **{**needed(name), parameter.name: value}).frames:
                    pass
            except LedgerError as error:
                assert str(error), (parameter.name, value)
            except Exception as error:
                raise AssertionError(f"{name} {parameter.name}={str(value)[:60]!r}: {error!r}") from error


def test_a_bound_is_named_with_its_parameter(local: Local) -> None:
    """Else whoever asked would not know what to ask instead."""
    for parameter, value in (("limit", -1), ("limit", 10**30), ("ended_days", 10**9)):
        with pytest.raises(WrongQuestion, match=f"^{parameter} .* from 0 to"):
            local.ask("coupons", **{parameter: value})
    for at in (FIRST, LAST):
        with pytest.raises(WrongQuestion, match=r"^at .*years 1 to 9999"):
            local.ask("state", coupon="c-1", at=at)


@pytest.mark.long
def test_every_number_has_bounds_and_every_parameter_a_description() -> None:
    """Else a number that nobody thought of would reach a query, or a reader of the interface would have to guess."""
    for name, question in QUESTIONS.items():
        for parameter in question.parameters.values():
            if kinds_of(name, parameter) & {int, float} and not parameter.nested:
                assert parameter.bounds is not None, (name, parameter.name)
            assert parameter.description, (name, parameter.name)


@pytest.mark.parametrize(
    ("question", "values", "said"),
    [
        ("coupons", {"campagin": None}, "coupons: no parameter campagin"),
        ("coupons", {"campaign": "\ud800"}, "campaign: holds half a character"),
        ("coupons", {"\ud800": 1}, r"coupons: no parameter \\ud800"),
        ("metrics", {"names": ["a"], "where": {"store": ["\udfff"]}}, "where: holds half a character"),
        ("across", {"coupons": [{"coupon_id": "c-1"}]}, r"coupons\[0\]\.state: is missing"),
        ("histories", {"coupons": 5}, "coupons 5: input should be a valid list"),
        ("coupons", {"limit": True, "since": "soon"}, "since soon: "),
        ("metrics", {"names": "a", "goods_rates": {"": 70_000}}, "goods_rates: are no JSON object of basis points"),
    ],
)
def test_wrong_parameters_are_named(question: str, values: dict[str, Any], said: str) -> None:
    """Else a filter of a mistyped name would let everything pass, and an odd text would be a server error."""
    with pytest.raises(WrongQuestion, match=said) as refused:
        QUESTIONS[question].read(question, values)
    assert str(refused.value).encode()


def test_an_empty_text_is_no_nested_value() -> None:
    """Else a form with an empty field would be refused."""
    asked = QUESTIONS["metrics"].read("metrics", {"names": "a", "where": "", "rates": "", "goods_rates": ""})
    assert (asked.where, asked.rates, asked.goods_rates, asked.by) == (None, None, None, ())
    assert QUESTIONS["attribution"].read("attribution", {"models": ""}).models is None


def test_parameters_are_the_same_after_the_way_as_json() -> None:
    """Else the owner would answer another question than the one that was asked."""
    instant = datetime(2026, 11, 11, 10, tzinfo=timezone(timedelta(hours=8)))
    become: dict[str, Any] = {field.name: None for field in dataclasses.fields(Become)}
    become |= {"coupon_id": "c-1", "state": "used", "used_at": instant, "uses": [["e-1", "o-1"]]}
    rates = [{"currency": "JPY", "rate": "0.05", "to": "CNY"}]
    for name, values in (
        ("across", {"coupons": [become, become | {"uses": []}]}),
        ("metrics", {"names": "a,b", "where": {"store": ["", "s,1"]}, "rates": rates, "goods_rates": {"": 7000}}),
        ("attribution", {"models": ["last", {"name": "m", "kind": "linear"}], "at": instant}),
        ("history", {"coupon": "[1],{x}", "positions": "", "limit": 0}),
        ("experiment-candidates", {"campaign": "8", "strata": ["a", "b"]}),
    ):
        question = QUESTIONS[name]
        parameters = question.read(name, values)
        again = question.read(name, json.loads(question.as_json(parameters)))
        assert vars(again) == vars(parameters), name


@pytest.mark.parametrize(
    "arguments",
    [
        ("state", "c-1", "--at", "0001-01-01T00:00:00+14:00"),
        ("coupons", "--limit", str(10**30)),
        ("coupons", "expiring", "--within", "999999999d"),
        ("coupons", "--since", "999999999d"),
        ("violations", "--limit", "-1"),
        ("dead-letters", "list", "--offset", str(2**64)),
        ("dead-letters", "show", "coupon.events", str(10**30), "0"),
        ("dead-letters", "replay", "--dry-run", "--partition", str(10**30)),
    ],
)
def test_the_command_line_has_the_same_bounds(home: Path, arguments: tuple[str, ...]) -> None:
    """Else a slip of the finger would end in a traceback."""
    one_sentence(ledger(*arguments), 2)


# ── Beside a running consumer ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def owner(home: Path) -> Iterator[Owner]:
    with owning() as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "parameters", "field"),
    [
        ("state", {"coupon": "c-1", "at": "0001-01-01T00:00:00+14:00"}, "at"),
        ("coupons", {"limit": "-1"}, "limit"),
        ("coupons", {"limit": "9" * 30}, "limit"),
        ("coupons", {"ended_days": "99999999999"}, "ended_days"),
        ("expiring", {"within_s": "9999999999999999"}, "within_s"),
        ("digest-buckets", {"table": "nothing"}, "table"),
        ("digest-rows", {"table": "nothing", "bucket": "0"}, "table"),
    ],
)
def test_the_endpoint_refuses_with_the_field_and_the_bound(
    owner: Owner, question: str, parameters: dict[str, Any], field: str
) -> None:
    """Else a wrong parameter would look like a broken server."""
    reply = owner.get(f"/v1/{question}", **parameters)
    assert reply.status == 422, reply.body
    assert reply.json["error"].startswith(field) and reply.json["exit_code"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "body", "status", "said"),
    [
        ("", b'{"campaign": "\\ud800"}', 422, "campaign"),
        ("", b'{"\\ud800": 1}', 422, "no parameter"),
        ("", b"[]", 422, "no JSON object"),
        ("", b"{", 422, "cannot be read as JSON"),
        ("", b"\xff", 422, "cannot be read as JSON"),
        ("?campaign=8", b"{}", 422, "leave them out of the address"),
        ("", b"", 200, ""),
        ("", b'{"campaign": null, "limit": 1}', 200, ""),
    ],
)
def test_a_body_is_answered_or_refused(owner: Owner, query: str, body: bytes, status: int, said: str) -> None:
    """Else a program with a fault would see a broken server."""
    connection = http.client.HTTPConnection(owner.address, timeout=60)
    try:
        connection.request("POST", f"/v1/coupons{query}", body, {**owner.headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    assert response.status == status, answer
    assert status == 200 or (said in answer["error"] and answer["exit_code"] == 2)


@pytest.mark.slow
def test_a_list_in_an_address_is_separated_by_commas_or_json(owner: Owner) -> None:
    """Else ids with commas could not be asked for."""
    answers = [
        owner.answer("histories", coupons=text)["rows"] for text in ("c-1,c-2", '["c-1", "c-2"]', ' ["c-1","c-2"]')
    ]
    assert answers[0] and answers[0] == answers[1] == answers[2]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/expire", "/v1/dead-letters/discard", "/v1/dead-letters/replay"])
def test_what_is_posted_has_bounds_too(owner: Owner, path: str) -> None:
    """Else an instant that nobody thought of would be a server error."""
    reply = owner.post(path, until="0001-01-01T00:00:00+14:00", operator="o", why="w", dry_run="true")
    assert (reply.status, reply.json["exit_code"]) == (422, 2), reply.body
    assert reply.json["error"].startswith("until")


CHECKS: Final = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def description(owner: Owner) -> Any:
    described = schemathesis.openapi.from_dict(owner.get("/v1/openapi.json").json)
    described.config.update(base_url=f"http://{owner.address}")
    return described


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_answers_are_those_that_the_description_says(owner: Owner, description: Any, mode: Any) -> None:
    """Else a tool that reads the description would meet errors and shapes that it does not say. Parameters are drawn by
    schemathesis, valid ones and others."""
    answered = 0
    for operation in (result.ok() for result in description.get_all_operations()):
        if operation.method.upper() != "GET" or operation.path.removeprefix("/v1/") not in QUESTIONS:
            continue
        if mode is schemathesis.GenerationMode.NEGATIVE and not list(operation.iter_parameters()):
            continue  # nothing can be wrong with it

        @settings(
            max_examples=1,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def conforms(case: Any) -> None:
            response = case.call(headers=owner.headers, timeout=60)
            assert response.status_code < 500, (case.path, case.query, response.text)
            case.validate_response(response, checks=CHECKS, headers=owner.headers)

        conforms()
        answered += 1
    assert answered > len(QUESTIONS) // 2
