"""One table of labels: every column and code that people meet has one name in English and one in Chinese."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from coupon_ledger.analysis.customers import SEGMENTS
from coupon_ledger.ledger import alert_events, labels
from coupon_ledger.ledger.alert_routing import KINDS as KINDS_OF_MESSAGES
from coupon_ledger.ledger.alert_routing import REASONS
from coupon_ledger.ledger.alert_state import STATUSES
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.labels import Label, fields, of_code
from coupon_ledger.ledger.operations import ACTIONS
from coupon_ledger.ledger.rules import CHOICES, EXPIRY, NEEDS, STATES, VIOLATIONS
from coupon_ledger.ledger.words import catalogue
from coupon_ledger.questions.attribution.models import KINDS
from coupon_ledger.questions.audits import AUDITS
from coupon_ledger.questions.customers.customers import STEPS, TIERS
from coupon_ledger.questions.experiments import result
from coupon_ledger.questions.local import Local
from coupon_ledger.questions.metrics.definitions import DIMENSIONS, METRICS
from coupon_ledger.questions.registry import QUESTIONS
from coupon_ledger.reports.labels import label, label_of_metric, named, word
from coupon_ledger.reports.parts import MOVES
from coupon_ledger.reports.view import View, showing
from tests import test_rooms
from tests.alert_world import store_events
from tests.folding import scratch_store

ROOT: Final = Path(__file__).parent.parent
ROOMS: Final = ("schemas", "ledger", "analysis", "projections", "questions", "consumers", "reports", "api", "cli")
CHINESE: Final = re.compile(r"[\u4e00-\u9fff]+")


# ── Nothing without a label ──────────────────────────────────────────────────────────────────────────────────

NAMED: Final[Mapping[str, Mapping[str, Any]]] = {
    "alert-backtest-behind": {"alerts": []},
    "alert-events": {"after": [[0, 0]]},
    "usable": {"checks": [["c-1", None, None, None]], "when": datetime(2026, 11, 10)},
    "diff": {"from_at": datetime(2026, 11, 10), "known_from": datetime(2026, 11, 10)},
    "restated": {"known_from": datetime(2026, 11, 10)},
    "change-explained": {"metric": "use_rate", "by": "channel", "known_at_before": datetime(2026, 11, 10)},
    "histories": {"coupons": ["c-1"]},
    "expiring": {"within_s": 86_400},
    "across": {"coupons": []},
    "digest-buckets": {"table": "coupons"},
    "digest-rows": {"table": "coupons", "bucket": 0},
    "audit": {"name": next(iter(AUDITS))},
    "metrics": {"names": "orders,net_sales_minor", "compare": "previous", "since": datetime(2026, 11, 10)},
    "metric-explained": {"names": "orders"},
    "evidence": {"first": -(2**63), "last": 2**63 - 1},
    "experiment-begun": {"until": datetime(2026, 11, 10)},
    "customer-clusters": {"most": 2},
    "customer-drivers": {"outcome": "repurchase"},
    "experiment": {"currency": "CNY"},
    "experiment-people": {"currency": "CNY"},
    "experiment-plan": {"currency": "CNY", "until": datetime(2026, 11, 20), "days": 5, "active_days": 30},
    "experiment-comparison": {
        "currency": "CNY", "start": datetime(2026, 11, 14), "expiry": datetime(2026, 11, 15), "after_days": 1,
    },
}  # fmt: skip
"""Parameters without which a question cannot be answered, or has fewer columns."""
FIRST: Final = {"coupon": "c-1", "campaign": "k", "user": "u-1", "alert": "a-1"}


def columns_of(schema: Mapping[str, pl.DataType]) -> Iterator[str]:
    """The columns, and the fields of what is nested in them."""
    for name, kind in schema.items():
        yield name
        while isinstance(kind, pl.List):
            kind = kind.inner  # type: ignore[assignment]
        if isinstance(kind, pl.Struct):
            yield from columns_of({f.name: f.dtype for f in kind.fields})  # type: ignore[misc]


def columns_of_users(frame: pl.DataFrame) -> Iterator[str]:
    """The columns, nested ones too, in which some text names a user of the world."""
    for column in frame:
        if isinstance(column.dtype, pl.List):
            yield from columns_of_users(column.explode().to_frame())
        elif isinstance(column.dtype, pl.Struct):
            yield from columns_of_users(column.struct.unnest())
        elif column.dtype == pl.String and column.str.contains(r"\bu-[0-9]+\b").any():
            yield column.name


REFUSED: Final = {
    "dead-letter": "",  # the columns of dead-letters
    "customer-drivers": "currency feature odds_ratio low high p correlation",
    "experiment-comparison": "method evidence metric targeted others supported effect low high p total_effect total_low"
    " total_high placebo_effect placebo_low placebo_high placebo_p booked_minor discount_minor roi roi_low roi_high"
    " conclusion conclusion_note warnings",
}
"""What the world has too few people or records for, with the columns that would be answered."""


ALERT: Final = alert_events.event(
    "fired",
    event_id="a-1",
    occurred_at=datetime(2026, 11, 10, tzinfo=UTC),
    fingerprint="f-1",
    alert_id="a-1",
    rule="two_claims",
    labels={"user_id": "u-1"},
)


@pytest.fixture(scope="module")
def local_and_order(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Local, str]]:
    """A world with enough people for groups of customers, and an order of it that stands."""
    with pytest.MonkeyPatch.context() as patch, scratch_store(tmp_path_factory.mktemp("labels")) as store:
        patch.setattr(test_rooms, "PERSONS", 100)
        world = test_rooms.World(6)
        test_rooms.fill(store, world)
        store_events(store, [ALERT])
        with closing(Local(store)) as local:
            yield local, world.orders[0]["order_id"]


@pytest.mark.slow
@pytest.mark.vital
def test_every_column_of_an_answer_has_a_label(local_and_order: tuple[Local, str]) -> None:
    """Else the column of a new question is read as its code, by whoever reads Chinese."""
    local, order = local_and_order
    personal: set[str] = set()
    refused, columns = set(), dict.fromkeys("".join(f"{text} " for text in REFUSED.values()).split(), "refused")
    for name, question in QUESTIONS.items():
        needed = [p.name for p in question.parameters.values() if p.required]
        parameters = {n: FIRST.get(n, order) for n in needed} | dict(NAMED.get(name, {}))
        try:
            for frame in local.ask(name, **parameters).frames:
                columns |= dict.fromkeys(columns_of(frame.schema), name)
                personal |= set(columns_of_users(frame))
        except LedgerError as error:
            assert name in REFUSED, f"{name}: {error}"
            refused.add(name)
    assert refused == REFUSED.keys() and len(columns) > 400
    assert not [f"{column} of {question}" for column, question in columns.items() if named(column) is None]
    assert personal <= labels.personal_columns(), "else a service shows them to whom they are not for"


def test_every_code_has_a_label() -> None:
    types = {kind for needs in NEEDS.values() for kind in needs}
    reasons = {*CHOICES["expired_reason"], EXPIRY["hold"]}
    chosen = {value for values in CHOICES.values() for value in values}
    known = {*types, *STATES, *reasons, *VIOLATIONS, *chosen, *ACTIONS, *KINDS, *SEGMENTS, *TIERS, *STEPS, *MOVES}
    known |= {*alert_events.TYPES, *alert_events.OUTCOMES, *STATUSES, *KINDS_OF_MESSAGES, *REASONS}
    known |= {metric.unit for metric in METRICS.values()}
    known |= {view for metric in METRICS.values() for view in metric.view.split(" and ")}
    assert not sorted(code for code in known if of_code(code) is None)
    assert not sorted(name for name in DIMENSIONS if named(name) is None)
    assert labels.experiment_metrics().keys() == set(result.METRICS)
    assert not sorted(name for name in labels.experiment_metrics().values() if named(name) is None)
    assert labels.section("codes.segments").keys() == set(SEGMENTS)
    assert labels.section("codes.tiers").keys() == set(TIERS)
    assert labels.section("codes.events").keys() == types
    assert labels.section("in_state").keys() == {*STATES, "again"}


# ── One name for each ────────────────────────────────────────────────────────────────────────────────────────

HOMONYMS: Final = {
    "error": "a standard error; an alert whose rule could not be evaluated",
    "asked": "what a check asks; that somebody asked a question",
    "assigned": "people in an arm; the event that puts one there",
    "high": "the upper end of an interval; how severe an alert is",
    "linked": "the other ids of a person; the event that links two",
    "ok": "whether a check holds; that it does",
    "threshold": "what an alert's value is compared with; a type of coupon",
    "view": "events or cohorts, of a metric; looking at a page, of a person",
    "warning": "what speaks against a result; how severe an alert is",
}
"""Words that are both a column and a code, of two meanings."""


def entries() -> Iterator[tuple[str, str, Label]]:
    """Every key with its place and label. A column of texts (`lists`) is another thing than the number of them."""
    yield from (("fields", name, field.label) for name, field in fields().items())
    yield from (
        (f"codes.{part}", key, one)
        for part in labels.table()["codes"]
        for key, one in labels.section(f"codes.{part}").items()
    )
    yield from (("metrics", name, metric.label) for name, metric in METRICS.items())


def test_no_key_has_two_labels() -> None:
    """Else a report says 拉新 and the metrics say 获客."""
    seen: dict[str, dict[Label, str]] = {}
    for place, key, one in entries():
        seen.setdefault(key, {})[one] = place
    assert {key for key, names in seen.items() if len(names) > 1} == HOMONYMS.keys()
    places = [(place, key) for place, key, _ in entries() if place.startswith("codes")]
    assert len(places) == len({key for _, key in places}), "a code stands in one section"


def test_every_label_is_in_both_languages() -> None:
    for place, key, one in entries():
        assert one.en and one.zh and not CHINESE.search(one.en), (place, key)
        assert one.en == one.en.strip() and one.zh == one.zh.strip(), (place, key)
    latin = {key for _, key, one in entries() if not CHINESE.search(one.zh)}
    assert latin == {"ip", "roi_cuped", "sql"}


def test_a_field_says_what_its_values_are_in_known_words() -> None:
    for name, field in fields().items():
        assert field.number is None or field.number in labels.NUMBERS, name
        assert field.text is None or field.text in labels.TEXTS, name
        assert field.of_metric in (None, "value", "mean"), name


def test_the_fields_are_in_alphabetical_order() -> None:
    """Else the same column is listed anew under another name beside it, and nobody sees it."""
    assert list(fields()) == sorted(fields())


def test_a_name_is_that_of_the_table_wherever_it_is_read() -> None:
    with showing(View("zh")):
        assert (word("acquisition"), label("acquisition_minor")) == ("获客", "获客")
        assert METRICS["acquisition_cost_minor"].chinese == "获客成本"
        assert (word("released"), label("released"), label("released_coupons")) == ("解锁", "解锁", "解锁券数")
        assert (word("paid"), label("paid_at"), word("use_without_paid_order")) == ("支付", "支付时间", "无支付订单")
        assert label_of_metric("net_minor") == label("net_sales_minor") == METRICS["net_sales_minor"].chinese
        assert label("coupon_orders_target") == f"{METRICS['coupon_orders'].chinese}目标"
    with showing(View("en")):
        assert label("coupon_margin_minor") == "margin of coupon orders" == METRICS["coupon_margin_minor"].english


OUTDATED: Final = "拉新 解除 付款 面额 折扣 回购 分配人数 净核销数 用券依赖 在外的券".split()
"""Terms that the table has another word for."""


def test_sentences_use_the_terms_of_the_table() -> None:
    texts = [*catalogue().values(), *(metric.chinese for metric in METRICS.values())]
    texts += [one.zh for _, key, one in entries() if key not in ("percent", "percent_off_bp")]
    assert not [(term, text) for term in OUTDATED for text in texts if term in text]


# ── Nowhere else ─────────────────────────────────────────────────────────────────────────────────────────────

ALLOWED: Final = {"动态人群", "数字追溯", "样本量", "留存与复购", "中文"}
"""Chinese names of subjects in the help of commands, which no label and no sentence has; a key that machines get."""


def typed_by_people(file: Path) -> bool:
    """Whether the Chinese in this file is what people type in questions, which is no label."""
    return file.parent.name == "plain_words" or file in (ROOT / "cli" / "ask.py", ROOT / "api" / "assistant.py")


def chinese_constants() -> Iterator[tuple[str, str]]:
    """Texts with Chinese in the code of the product, and where each stands."""
    for file in (path for room in ROOMS for path in (ROOT / room).rglob("*.py") if not typed_by_people(path)):
        code = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(code)) if CHINESE.search(code) else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CHINESE.search(node.value):
                yield node.value, f"{file.name}:{node.lineno}"


def test_no_label_stands_in_the_code() -> None:
    """Else a second name grows beside the table. The Chinese in help texts and in keys of machine formats is a gloss in
    brackets behind an English word, and repeats a term of the table."""
    terms = "\n".join([*catalogue().values(), *(one.zh for _, _, one in entries())])
    texts = list(chinese_constants())
    assert not [place for text, place in texts if CHINESE.search(re.sub(r"\([^()a-z]*\)", "", text)) and text != "中文"]
    words = [(word, place) for text, place in texts for word in CHINESE.findall(text)]
    assert not [(word, place) for word, place in words if word not in terms and word not in ALLOWED]
