"""Questions over HTTP: every format holds the direct answer, pages are of one state, and nothing is sent twice."""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from pyarrow import parquet
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from coupon_ledger.api.answers import json_rows
from coupon_ledger.api.service.formats import FORMATS, csv_text, format_of
from coupon_ledger.api.service.kept_answers import KeptAnswers
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.wide import as_decimals
from coupon_ledger.questions.local import Local
from coupon_ledger.questions.registry import QUESTIONS, AsOf
from tests.command_line import DATABASE, coupon_event
from tests.services import Service, serving
from tests.test_cli import shop_events

ASKED: list[tuple[str, dict[str, Any]]] = [
    ("coupons", {}),
    ("history", {"coupon": "c-1"}),
    ("order", {"order": "o-1"}),
    ("violations", {}),
    ("campaigns", {}),
    ("finance-split", {}),
    ("totals", {}),
    ("user", {"user": "u-1"}),
]
ARROW = "application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("accept", "named", "expected"),
    [
        ("", None, "json"),
        ("*/*", None, "json"),
        ("text/html, text/csv;q=0.5, application/json;q=0.4", None, "csv"),
        ("text/*", None, "csv"),
        ("application/json;q=0, */*", None, "ndjson"),
        ("application/*;q=0.1, text/csv;q=0.2", None, "csv"),
        (ARROW, "parquet", "parquet"),
        ("text/html", None, 406),
        ("text/csv;q=0", None, 406),
        ("text/csv;q=x", None, 406),
        (";;;,,,", None, 406),
        ("*/*", "xml", 422),
    ],
)
def test_the_format_is_the_one_that_the_client_prefers(accept: str, named: str | None, expected: str | int) -> None:
    """Else a client would get what it has said it cannot read."""
    if isinstance(expected, str):
        assert format_of(accept, named).name == expected
        return
    with pytest.raises(Refusal) as error:
        format_of(accept, named)
    assert error.value.status == expected


@pytest.fixture
def kept() -> Iterator[KeptAnswers]:
    answers = KeptAnswers()
    yield answers
    answers.close()


@pytest.mark.parametrize("size", [1, 7, 10, 29])
def test_pages_make_up_the_answer(kept: KeptAnswers, size: int) -> None:
    """Else rows would be missing between two pages, or come twice."""
    nested = [[n, None] for n in range(30)]
    whole = pl.DataFrame({"n": range(30), "s": [None, "é", ""] * 10, "l": nested, "b": [b"\0"] * 30})
    frames = iter([whole.head(0), whole.head(10), whole.slice(10, 3), whole.slice(13)])
    page, name = kept.first(AsOf(1, None, None, []), frames, size, "me")
    assert name is not None
    found = [page.rows]
    while page.then is not None:
        assert kept.page(name, page.then, size, "somebody else") is None
        following = kept.page(name, page.then, size, "me")
        assert following is not None
        page = following
        found.append(page.rows)
    assert pl.concat(found).equals(whole)
    assert {frame.height for frame in found[:-1]} == {size}
    assert kept.page("unknown", 0, size, "me") is None


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, dict[str, pl.DataFrame]]]:
    """A service over a day of a shop, and the direct answers from its database, taken after it had stopped once."""
    folder = tmp_path_factory.mktemp("shop")
    with serving(folder) as service:
        reply = service.publish(shop_events(), role="admin")
        assert (reply.status, reply.json["refused"]) == (200, 0)
        assert service.get("/v1/questions/totals", headers={"Wait-For": reply.json["wait_for"]}).status == 200
    direct = direct_answers(folder)
    with serving(folder) as service:
        yield service, direct


def direct_answers(folder: Path) -> dict[str, pl.DataFrame]:
    with open_database(folder / DATABASE, read_only=True) as store:
        local = Local(store)
        answers = {name: pl.concat(list(local.ask(name, **parameters).frames)) for name, parameters in ASKED}
        local.close()
    return answers


@pytest.mark.long
@pytest.mark.parametrize(("name", "parameters"), ASKED, ids=lambda value: value if isinstance(value, str) else "")
def test_every_format_holds_the_direct_answer(
    shop: tuple[Service, dict[str, pl.DataFrame]], name: str, parameters: dict[str, Any]
) -> None:
    """Else two programs that ask the same would see different figures."""
    service, direct = shop
    path, expected = f"/v1/questions/{name}", direct[name]
    parts = json_rows(expected, QUESTIONS[name].json, separator=b"\n")
    rows = [json.loads(line) for part in parts for line in part.splitlines()]
    assert rows or name == "finance-split"
    answers = {form.name: service.get(path, headers={"Accept": form.media_type}, **parameters) for form in FORMATS}
    assert {(reply.status, reply.headers["Ledger-Commits"] > "0") for reply in answers.values()} == {(200, True)}
    assert answers["json"].json["rows"] == rows
    assert [json.loads(line) for line in answers["ndjson"].body.splitlines()] == rows
    assert answers["csv"].body.decode() == csv_text(expected)
    table = as_decimals(expected).to_arrow(compat_level=pl.CompatLevel.oldest())
    assert pa.ipc.open_stream(answers["arrow"].body).read_all().equals(table)
    assert parquet.read_table(io.BytesIO(answers["parquet"].body)).to_pylist() == table.to_pylist()
    posted = service.ask("POST", path, json.dumps(parameters).encode(), headers={"Content-Type": "application/json"})
    assert posted.json["rows"] == rows


@pytest.mark.long
def test_pages_are_of_one_state(service: Service) -> None:
    """Else a report that is read in pages would mix two states."""
    mark = uuid.uuid4().hex[:8]
    events = [coupon_event("created", f"e-{n}", coupon_id=f"c-{mark}-{n}", campaign_id=mark) for n in range(25)]
    wait_for = {"Wait-For": service.publish(events).json["wait_for"]}
    path = "/v1/questions/coupons"
    whole = service.get(path, headers=wait_for, campaign=mark).json
    page = service.get(path, campaign=mark, page_size=10).json
    rows, cursors = page["rows"], []
    while page["next"]:
        more = coupon_event("created", "e", coupon_id=f"c-{uuid.uuid4().hex}", campaign_id=mark)
        wait_for = {"Wait-For": service.publish(more).json["wait_for"]}
        assert service.get("/v1/questions/totals", headers=wait_for).status == 200
        cursors.append(page["next"])
        page = service.get(path, cursor=page["next"]).json
        assert page["as_of"] == whole["as_of"]
        rows += page["rows"]
    assert rows == whole["rows"]
    assert len(cursors) == 2
    cursor = cursors[0]
    assert service.get(path, cursor=cursor).status == 200
    # Of somebody else, of another question, changed, with other parameters.
    flipped = base64.urlsafe_b64encode(b"\0" * 16 + b'["coupons", "x", 0, 9]').decode().rstrip("=")
    assert service.get(path, role="manager", cursor=cursor).status == 410
    assert service.get("/v1/questions/violations", cursor=cursor).status == 422
    assert service.get(path, cursor=cursor, campaign="other").status == 422
    for wrong in (cursor[:-2], cursor + "AA", flipped, "garbage", "é", "=" * 9, "A" * 4_000):
        assert service.get(path, cursor=wrong).status == 422, wrong
    for size in ("0", "-1", "x", "1e3", "100001", "\u0663"):
        assert service.get(path, page_size=size).status == 422, size


@pytest.mark.long
def test_an_answer_that_the_client_has_is_not_sent_again(service: Service) -> None:
    """Else pages that look every second would ask the database every second; or would show old figures."""
    path = "/v1/questions/totals"
    tag = service.get(path).headers["ETag"]
    again = service.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    assert service.get(path, headers={"If-None-Match": tag}, role="manager").status == 200
    assert service.get(path, headers={"If-None-Match": tag, "Accept": "text/csv"}).status == 200
    event = coupon_event("created", "e", coupon_id=f"c-{uuid.uuid4().hex}")
    wait_for = service.publish(event).json["wait_for"]
    after = service.get(path, headers={"If-None-Match": tag, "Wait-For": wait_for})
    assert (after.status, after.headers["ETag"] != tag) == (200, True)


@pytest.mark.long
@pytest.mark.parametrize("text", ["x", "coupon.events", "coupon.events:0", "coupon.events:0:-1", "a:b:c,", "é:1:1"])
def test_a_position_that_is_none_is_refused(service: Service, text: str) -> None:
    reply = service.get("/v1/questions/totals", headers={"Wait-For": text.encode().decode("latin-1")})
    assert reply.status == 422
    assert "TOPIC:PARTITION:OFFSET" in reply.json["detail"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_answers_are_those_that_the_description_says(service: Service, mode: Any) -> None:
    """Else a program that was made from the description would meet errors and shapes that it does not know."""
    description = schemathesis.openapi.from_dict(service.get("/v1/openapi.json").json)
    description.config.update(base_url=f"http://127.0.0.1:{service.port}")
    headers = {"Authorization": f"Bearer {service.tokens['admin']}"}
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    operations: Any = description.get_all_operations()
    answered = 0
    for operation in (result.ok() for result in operations):
        if operation.path == "/v1/live":
            continue  # has no end
        if mode is schemathesis.GenerationMode.NEGATIVE and not (list(operation.iter_parameters()) or operation.body):
            continue  # nothing can be wrong with it

        @settings(
            max_examples=2, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def conforms(case: Any) -> None:
            response = case.call(headers=headers, timeout=60)
            assert response.status_code not in (500, 502), (case.path, case.query, response.text)
            case.validate_response(response, checks=checks, headers=headers)

        conforms()
        answered += 1
    assert answered > len(QUESTIONS) // 2
