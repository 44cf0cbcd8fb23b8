"""Access rights: what is out of scope, or personal, is in no answer and no error. No table is visible by default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from coupon_ledger.ledger.errors import Forbidden, LedgerError, NotThere
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.live.signature import key_hash
from coupon_ledger.projections.live.views import VIEWS
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.access.access import Access, Scope
from coupon_ledger.questions.access.compiled import HIDDEN, VISIBLE, VISIBLE_UNSCOPED
from coupon_ledger.questions.access.roles import roles
from coupon_ledger.questions.local import Local
from coupon_ledger.questions.registry import QUESTIONS
from tests.command_line import DATABASE, coupon_event, done, ndjson

pytestmark = pytest.mark.long

KEY = b"k" * 32
MASKED = Access(personal=False, key=KEY)
ONE = Scope(campaigns=("k-mine",))
ELSEWHERE = "foreign"
"""In every id of what is out of scope."""
PERSONAL = "secret"
"""In every personal value."""
PAST = {"at": "2026-11-11T00:00:30"}
REQUIRED: dict[str, Any] = {
    "coupon": "c-mine", "user": "secret-u-mine", "order": "o-mine", "campaign": "k-mine", "coupons": ["c-mine"],
    "names": ["used_events", "use_rate", "discount_cost_minor"], "within_s": 2_592_000,
    "from_at": "2026-11-10T00:00:00", "known_from": "2026-11-11T00:00:00",
}  # fmt: skip
SLOW = ("customer-clusters", "customer-drivers")
"""They load scikit-learn, and read what the other questions about customers read."""


def world(name: str) -> list[dict[str, Any]]:
    """A campaign with a coupon that is used on an order, by a user with a profile."""
    user, coupon = f"secret-u-{name}", f"c-{name}"
    at = {"source": "test", "occurred_at": "2026-11-11T00:00:00Z"}
    common = {"coupon_id": coupon, "campaign_id": f"k-{name}", "channel": f"ch-{name}"}
    own = {"user_id": user, "ip": "secret-ip", "device_id": "secret-device", "phone_prefix": "secret-phone"}
    value = {"face_value_minor": 500, "currency": "CNY"}
    return [
        {"topic": "campaign.events", "type": "published", "event_id": f"k-{name}-1", "campaign_id": f"k-{name}",
         "name": name, "coupon_type": "cash", **at},
        {"topic": "user.events", "type": "profiled", "event_id": f"u-{name}-1", "user_id": user,
         "attributes": {"segment": "new", "phone": "secret-attribute"}, **at},
        {"topic": "order.events", "type": "paid", "event_id": f"o-{name}-1", "order_id": f"o-{name}", "user_id": user,
         "currency": "CNY", "gross_minor": 3000, "net_minor": 2500, "store": f"s-{name}", "channel": f"ch-{name}",
         "coupon_ids": [coupon], **at},
        coupon_event("created", f"{coupon}-1", **common, **value),
        coupon_event("claimed", f"{coupon}-2", occurred_at="2026-11-11T00:00:02Z", **common, **own),
        coupon_event("used", f"{coupon}-3", occurred_at="2026-11-11T00:01:00Z", **common, **own,
                     order_id=f"o-{name}", discount_minor=500),
        coupon_event("used", f"{coupon}-4", occurred_at="2026-11-11T00:02:00Z", **common,
                     user_id=user, order_id=f"o-{name}", discount_minor=500),
    ]  # fmt: skip


def database(folder: Path, events: list[dict[str, Any]]) -> Path:
    at = ("--log", f"sqlite:///{folder / 'log.db'}", "--database", folder / DATABASE)
    done("init", *at)
    done("publish", "-", *at[:2], stdin=ndjson(events))
    done("consume", *at)
    return folder / DATABASE


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """What is in scope, and what is not."""
    path = database(tmp_path_factory.mktemp("both"), world("mine") + world(ELSEWHERE))
    with open_database(path, read_only=True) as store:
        yield store


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Only what is in scope."""
    path = database(tmp_path_factory.mktemp("alone"), world("mine"))
    with open_database(path, read_only=True) as store:
        yield store


def said(store: Store, access: Access, name: str, **parameters: Any) -> str:
    """The answer's rows as JSON, or the error's kind and text."""
    local = Local(store, access=access)
    try:
        rows = pl.concat(list(local.ask(name, **parameters).frames)).to_dicts()
        return json.dumps(rows, default=str, ensure_ascii=False)
    except LedgerError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        local.close()


def asked() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every question with values for what it requires, now and in the past."""
    for name, question in QUESTIONS.items():
        if name in SLOW:
            continue
        known = question.parameters
        needed = {n: REQUIRED[n] for n in known if n in REQUIRED and (known[n].required or n.endswith("from"))}
        needed |= {"from_at": REQUIRED["from_at"]} if "from_at" in known else {}
        yield name, needed
        if question.stand_in is not None:
            yield name, needed | PAST


ASKED = [pytest.param(name, values, id=f"{name}-{'past' if 'at' in values else 'now'}") for name, values in asked()]


@pytest.mark.parametrize(("name", "values"), ASKED)
def test_no_answer_names_what_is_out_of_scope(both: Store, name: str, values: dict[str, Any]) -> None:
    """A marketer would see another team's campaign."""
    text = said(both, MASKED.within(ONE), name, **values)
    assert ELSEWHERE not in text
    assert PERSONAL not in text.replace("user secret-u-mine:", "")  # an error repeats what was asked
    assert "could not be answered" not in text and "it reads what your role" not in text


@pytest.mark.parametrize(("name", "values"), ASKED)
def test_no_answer_shows_personal_data(both: Store, name: str, values: dict[str, Any]) -> None:
    """A role without personal data would learn who a customer is."""
    text = said(both, MASKED, name, **values)
    assert PERSONAL not in text.replace("user secret-u-mine:", "")
    assert "could not be answered" not in text and "it reads what your role" not in text


@pytest.mark.parametrize("scope", [ONE, Scope(channels=("ch-mine",)), Scope(stores=("s-mine",))], ids=str)
@pytest.mark.parametrize(("name", "values"), [p for p in ASKED if not QUESTIONS[str(p.values[0])].whole])
def test_an_answer_is_that_of_a_world_with_the_visible_objects_only(
    both: Store, alone: Store, scope: Scope, name: str, values: dict[str, Any]
) -> None:
    """A count would give away what else there is."""
    if {"offset", "partition"} & QUESTIONS[name].parameters.keys() or name in ("history", "histories", "restated"):
        pytest.skip("it shows positions in the log")
    unrestricted = said(alone, Access(scope=Scope(campaigns=("k-mine",))), name, **values)
    assert said(both, Access(scope=scope), name, **values) == unrestricted == said(alone, Access.FULL, name, **values)


def test_what_is_out_of_scope_does_not_exist(both: Store) -> None:
    """An error would tell that there is such a coupon."""
    access = MASKED.within(ONE)
    for name, parameter, prefix in (("state", "coupon", "c"), ("history", "coupon", "c"), ("order", "order", "o"),
                                    ("campaign", "campaign", "k"), ("user", "user", "secret-u")):  # fmt: skip
        hidden, missing = (f"{prefix}-{end}" for end in (ELSEWHERE, "nowhere"))
        error = said(both, access, name, **{parameter: hidden})
        assert error.startswith(("NotThere", "UnknownCoupon"))
        assert error.replace(hidden, missing) == said(both, access, name, **{parameter: missing})


def test_every_table_has_a_rule(both: Store) -> None:
    """A new table would be forgotten: it must be visible or hidden on purpose."""
    tables = {name for (name,) in both.rows("SELECT table_name FROM duckdb_tables() WHERE NOT temporary")}
    assert tables == {*VISIBLE, *VISIBLE_UNSCOPED, *HIDDEN}


def test_a_table_without_a_view_is_not_found(both: Store) -> None:
    """A question that forgets its rights would read the live table."""
    local = Local(both, access=MASKED.within(ONE))
    list(local.ask("totals").frames)
    found = {name for (name,) in local._cursor.rows("SELECT view_name FROM duckdb_views() WHERE NOT internal"
             " AND database_name = current_database() AND schema_name = 'main'")}  # fmt: skip
    assert found == {*VISIBLE, *VIEWS}
    local.close()
    again = Local(both)
    assert again.ask("totals").row()["coupons"] == 2  # rights end with their question
    again.close()


def test_a_user_is_found_by_the_pseudonym_only(both: Store) -> None:
    """Nobody could follow one customer, or everybody could test a guess."""
    local = Local(both, access=MASKED)
    pseudonym = local.ask("state", coupon="c-mine").row()["owner"]
    row = local.ask("user", user=pseudonym).row()
    assert row["used"] == 1 and row["attributes"] == '{"segment":"new"}'
    assert local.ask("coupons", owner=pseudonym).row()["coupon_id"] == "c-mine"
    with pytest.raises(NotThere):
        local.ask("user", user="secret-u-mine")
    hashed = local._cursor.rows(f"SELECT pseudonym_hash(0, 'secret-u-{ELSEWHERE}'), pseudonym('secret-u-{ELSEWHERE}')")
    assert hashed == [(key_hash(hashed[0][1]), hashed[0][1])]
    local.close()


def test_a_role_asks_questions_of_its_areas_only(both: Store) -> None:
    """A publisher would read finance's figures."""
    access = roles()["publisher"].access(KEY, ONE)
    assert said(both, access, "finance-split").startswith("Forbidden: question finance-split: your role")
    assert said(both, access, "campaigns").startswith("[")
    assert {area for role in roles().values() for area in role.areas} == {q.area for q in QUESTIONS.values()}


def test_rights_travel_as_text_and_broken_ones_are_refused() -> None:
    """An owner that cannot read rights would take them for all."""
    for role in roles().values():
        access = role.access(KEY, Scope(campaigns=("k'1", "活动"), stores=()))
        assert access.dumps().isascii() and Access.loads(access.dumps()) == access
    for text in ("", "{}", "null", '{"personal": true}', MASKED.dumps().replace("false", '"no"'),
                 MASKED.dumps().replace(KEY.hex(), "00")):  # fmt: skip
        with pytest.raises(Forbidden):
            Access.loads(text)
