"""Amounts have bounds, sums of them have none: thousands of the largest amounts are beyond 64 bits, in every report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from coupon_ledger.api.answers import pieces, spooled
from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER
from coupon_ledger.projections.connection import frames_of
from coupon_ledger.projections.wide import as_decimals, as_integers
from coupon_ledger.questions.local import Local
from tests.folding import scratch_store
from tests.test_attribution_paths import consume

START = datetime(2026, 11, 1, tzinfo=UTC)
LARGEST = 2**53 - 1
ORDERS = 1_100
"""So many of the largest amounts are more than 2^63."""
WHOLE = ORDERS * LARGEST


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    events: list[tuple[str, dict[str, Any]]] = []

    def tell(topic: str, kind: str, key: str, days: float, **fields: Any) -> None:
        at = START + timedelta(days=days)
        head = {"event_id": f"{kind}-{key}", "type": kind, "occurred_at": at, "source": "s", KEY_FIELD[topic]: key}
        events.append((topic, {**head, **fields}))

    terms = {
        "name": "K",
        "coupon_type": "cash",
        "currency": "CNY",
        "budget_minor": LARGEST,
        "funded_by": '{"p": 10000}',
    }
    tell(CAMPAIGN, "published", "k", -1, **terms)
    for n in range(ORDERS):
        booked = {"cost_kind": "media", "amount_minor": LARGEST, "currency": "CNY"}
        events.append((CAMPAIGN, {**_head(f"b{n}", "cost_booked"), "campaign_id": "k", **booked}))
        worth = {"coupon_type": "cash", "face_value_minor": LARGEST, "currency": "CNY", "campaign_id": "k"}
        for key in (f"c{n}", f"out{n}"):
            tell(COUPON, "created", key, 0, **worth)
            tell(COUPON, "issued", key, 0.1, user_id="u", channel="app")
        tell(COUPON, "used", f"c{n}", 1, user_id="u", order_id=f"o{n}", discount_minor=LARGEST)
        line = {"sku": "s", "category": "TEA", "quantity": 1, "net_minor": LARGEST, "cost_minor": LARGEST}
        said = {"discounts": [{"kind": "coupon", "amount_minor": LARGEST}], "coupon_ids": [f"c{n}"], "lines": [line]}
        paid = {"user_id": "u", "currency": "CNY", "gross_minor": LARGEST, "net_minor": LARGEST, "channel": "app"}
        tell(ORDER, "paid", f"o{n}", 1, **paid, **said)
    told = [(topic, Delivery(e, micros(e["occurred_at"]), 0, n)) for n, (topic, e) in enumerate(events)]
    with scratch_store(tmp_path_factory.mktemp("wide")) as store:
        consume(store, told)
        with closing(Local(store)) as opened:
            yield opened


def _head(event_id: str, kind: str) -> dict[str, Any]:
    return {"event_id": event_id, "type": kind, "occurred_at": START, "source": "s"}


@pytest.mark.parametrize(
    ("question", "asked", "column", "wanted"),
    [
        ("finance-split", {"by": "funder,campaign"}, "discount_minor", WHOLE),
        ("finance-split", {"by": "category"}, "discount_minor", WHOLE),
        ("finance-margin", {}, "net_sales_minor", WHOLE),
        ("finance-margin", {}, "cost_minor", WHOLE),
        ("finance-categories", {}, "net_sales_minor", WHOLE),
        ("finance-budgets", {}, "spent_minor", 2 * WHOLE),
        ("finance-budgets", {}, "liability_minor", WHOLE),
        ("finance-cash", {}, "paid_minor", WHOLE),
        ("finance-statement", {}, "closing_minor", WHOLE),
        ("metrics", {"names": "net_sales_minor"}, "net_sales_minor", WHOLE),
        ("metrics", {"names": "cost_minor"}, "cost_minor", 2 * WHOLE),
        ("campaigns", {}, "discount_minor", WHOLE),
        ("campaign", {"campaign": "k"}, "discount_minor", WHOLE),
        ("attribution-roi", {"campaign": "k", "models": "redeemed"}, "cost_minor", 2 * WHOLE),
        ("customers", {}, "net_sales_minor", WHOLE),
        ("customer-segments", {}, "net_sales_minor", WHOLE),
        ("customers-at-use", {}, "discount_minor", WHOLE),
    ],
)
def test_a_sum_beyond_64_bits_is_exact(
    question: str, asked: dict[str, Any], column: str, wanted: int, local: Local
) -> None:
    assert wanted > 2**63
    rows = [row for frame in local.ask(question, **asked).frames for row in frame.to_dicts()]
    assert sum(row[column] or 0 for row in rows) == wanted


@pytest.mark.parametrize("question", ["finance-doubts", "finance-losses", "finance-refunds", "finance-reconciliation"])
def test_no_report_fails_on_wide_sums(question: str, local: Local) -> None:
    for frame in local.ask(question).frames:
        assert not any(dtype == pl.Decimal for dtype in frame.dtypes)


@pytest.mark.long
@pytest.mark.parametrize("question", ["campaigns", "finance-cash"])
def test_wide_sums_come_whole_from_the_process_that_owns_the_database(question: str, local: Local) -> None:
    """By columns as the command line asks, and as JSON."""
    [asked] = local.ask(question).frames
    arrow = b"".join(pieces(spooled(local.ask(question), arrow=True, json_columns=())))
    [read] = frames_of(pa.ipc.open_stream(arrow))
    assert read.to_dicts() == asked.to_dicts() and read.schema == asked.schema
    told = json.loads(b"".join(pieces(spooled(local.ask(question), arrow=False, json_columns=()))))
    assert WHOLE in [value for row in told["rows"] for value in row.values() if isinstance(value, int)]


def test_integers_are_as_narrow_as_their_values() -> None:
    """Nobody who reads a column of 64 bits today gets another type for amounts as they are."""
    inner = {"a": pl.Decimal(38, 0), "b": pl.List(pl.Struct({"c": pl.Decimal(38, 0), "d": pl.String}))}
    frame = pl.DataFrame({"a": [1, None], "b": [[{"c": 2**70, "d": "x"}], None]}, schema=inner)
    read = as_integers(frame)
    assert read.schema == {"a": pl.Int64, "b": pl.List(pl.Struct({"c": pl.Int128, "d": pl.String}))}
    assert read.to_dicts() == [{"a": 1, "b": [{"c": 2**70, "d": "x"}]}, {"a": None, "b": None}]
    assert as_integers(as_decimals(read)).equals(read)


def test_no_query_casts_a_sum_of_amounts_to_64_bits() -> None:
    """The next one would fail on the day when a campaign is large enough."""
    rooms = ("finance", "attribution", "customers", "experiments", "states", "metrics")
    narrow = re.compile(
        r"sum\((?:[^()]|\([^()]*\))*_minor(?:[^()]|\([^()]*\))*\)(?: FILTER \([^()]*\))?(?:, 0\))?::BIGINT"
    )
    texts = [
        (file.name, file.read_text(encoding="utf-8"))
        for room in rooms
        for file in files(f"coupon_ledger.questions.{room}").iterdir()
        if file.name.endswith((".sql", ".py", ".toml"))
    ]
    assert narrow.search("coalesce(sum(lost_minor), 0)::BIGINT") and narrow.search("sum(a_minor) FILTER (x)::BIGINT")
    assert len(texts) > 80 and [name for name, text in texts if narrow.search(text)] == []
