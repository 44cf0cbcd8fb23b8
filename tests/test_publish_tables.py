"""`publish` of CSV and Parquet: the same events, the same bytes, the same reasons as from NDJSON."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.codec import SCHEMA_NAME, decode
from coupon_ledger.ledger.columns import polars_schema
from coupon_ledger.ledger.events import MODELS
from coupon_ledger.ledger.formats.csv_rows import csv_items
from coupon_ledger.ledger.formats.ndjson import lines_of, ndjson_items
from coupon_ledger.ledger.formats.parquet_rows import ParquetRows, _items
from coupon_ledger.ledger.formats.rows import Refused, column_kinds
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER
from scripts.examples import example
from tests.command_line import (
    Data,
    coupon_event,
    done,
    ends,
    finish,
    ledger,
    one_sentence,
    opened_log,
    start,
    wait_until,
)
from tests.examples import examples
from tests.wire import rows_of

Row = dict[str, Any]
Outcome = Record | tuple[int, object, set[tuple[str, str]]]

ORDER_EVENT: Data = {
    **example(ORDER, "paid"),
    "discounts": [{"kind": "coupon", "amount_minor": 500, "funder": "brand"}, {"kind": "member", "amount_minor": 1}],
    "lines": [{"sku": '苹果, "red"\nbig', "quantity": 2, "net_minor": -3}, {"sku": "s"}],
    "coupon_ids": ["c-1", "券,2"],
}
CAMPAIGN_EVENT: Data = {
    **example(CAMPAIGN, "published"),
    "claim_from": "2026-11-10T16:00:00.000001+08:00",
    "applies_to": {"skus": ["a"], "categories": []},
    "funded_by": {"platform": 6000, "brand": 4000},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ── The same event in three formats ──────────────────────────────────────────────────────────────────────────


def as_csv(topic: str, events: Sequence[Mapping[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(column_kinds(topic)), restval="", extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in event.items()} for event in events)
    return out.getvalue().encode("utf-8", "surrogatepass")


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def as_parquet(topic: str, events: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Written by polars, as an analyst would."""
    kinds = column_kinds(topic)
    rows = [{name: _value(kinds[name], event.get(name)) for name in kinds} for event in events]
    pl.DataFrame(rows, schema=polars_schema(SCHEMA_NAME[topic])).write_parquet(path)
    return path


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value)
    return datetime.fromisoformat(value) if kind == "instant" else value


def from_ndjson(topic: str, content: bytes) -> list[Outcome]:
    return outcomes(ndjson_items(lines_of(io.BytesIO(content)), topic))


def from_csv(topic: str, content: bytes) -> list[Outcome]:
    return outcomes(csv_items(lines_of(io.BytesIO(content)), topic, "file"))


def from_parquet(topic: str, path: Path) -> list[Outcome]:
    return outcomes(ParquetRows(path, topic).items())


def outcomes(items: Iterator[Any]) -> list[Outcome]:
    """The records, and per refused row its place in the file, its id and every reason."""
    found: list[Outcome] = []
    for item in items:
        if isinstance(item, Refused):
            found.append((len(found), item.event_id, {(p.field, p.rule) for p in item.problems}))
        elif item is not None:
            found.append(item)
    return found


def in_three_formats(topic: str, events: Sequence[Mapping[str, Any]], folder: Path) -> list[Outcome]:
    """What each format gives, which must be the same."""
    lines = "".join(json.dumps(event) + "\n" for event in events).encode()
    found = from_ndjson(topic, lines)
    assert from_csv(topic, as_csv(topic, events)) == found
    assert from_parquet(topic, as_parquet(topic, events, folder / "events.parquet")) == found
    return found


@pytest.mark.parametrize("topic", INPUT_TOPICS)
def test_every_format_gives_the_same_bytes(topic: str, home: Path) -> None:
    """Else a nightly file and a live stream of the same facts would be conflicts of each other."""
    events = [example(topic, kind) for of, kind in MODELS if of == topic]
    events += [{ORDER: ORDER_EVENT, CAMPAIGN: CAMPAIGN_EVENT}.get(topic, events[0])]
    found = in_three_formats(topic, events, home)
    assert len(found) == len(events)
    assert all(isinstance(outcome, Record) for outcome in found)
    if topic == ORDER:
        last = found[-1]
        assert isinstance(last, Record)
        assert decode(last.value)[1]["lines"][0]["sku"] == '苹果, "red"\nbig'


JSON_TEXTS = [
    '{"b":1,"a":[true,null]}', '"all"', "{}", "no JSON", "null", '{"a":1.0}', '{"a":1e400}', '{"a":1,"a":2}', "[NaN]",
    '{"p":10000}', '{"p":10000.0}', '{"skus":["a"]}', '{"a":"\\ud800"}', '{"券": 1}', "[" * 300 + "]" * 300,
    "9" * 5_000,
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    "topic", [topic if topic == ORDER else pytest.param(topic, marks=pytest.mark.slow) for topic in INPUT_TOPICS]
)
@given(data=st.data())
@examples(15)
def test_every_format_refuses_the_same_rows_for_the_same_reasons(
    topic: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Else a bad event could be smuggled in as a table, or a good one be lost there."""
    rows = data.draw(st.lists(mixed_rows(topic), min_size=1, max_size=4))
    folder = tmp_path_factory.mktemp("drawn")
    path = folder / "events.parquet"
    pl.DataFrame(rows, schema=polars_schema(SCHEMA_NAME[topic])).write_parquet(path)
    shown = [{name: instant(v) if isinstance(v, datetime) else v for name, v in row.items()} for row in rows]
    by_columns = from_parquet(topic, path)
    assert from_csv(topic, as_csv(topic, shown)) == by_columns
    lines = "".join(line for row in shown if (line := _line(topic, row)) is not None)
    if lines.count("\n") == len(rows):
        assert from_ndjson(topic, lines.encode()) == by_columns


def mixed_rows(topic: str) -> st.SearchStrategy[Row]:
    """A good event with some fields from anywhere; no empty texts, which a CSV cell cannot tell from null."""
    anything = rows_of(SCHEMA_NAME[topic])
    fields = st.sets(st.sampled_from(sorted(set(column_kinds(topic)) - {"type"})), max_size=4)
    return st.builds(
        _mixed, st.just(topic), st.sampled_from(types(topic)), anything, fields, st.sampled_from(JSON_TEXTS)
    )


def _mixed(topic: str, kind: str, anything: Row, fields: set[str], json_text: str) -> Row:
    kinds = column_kinds(topic)
    good = example(topic, kind)
    row = {name: _value(kinds[name], good.get(name)) for name in kinds}
    for name in fields:
        row[name] = json_text if kinds[name] == "json" else anything[name] if anything[name] != "" else None
    return row


def _line(topic: str, row: Row) -> str | None:
    """The row as NDJSON, JSON fields as they stand; None where these are no JSON that could stand there."""
    texts = {name: row[name] for name, kind in column_kinds(topic).items() if kind == "json" and row[name]}
    if any(text in ("no JSON", "9" * 5_000, "[NaN]", '{"a":1,"a":2}') for text in texts.values()):
        return None
    line = json.dumps({name: value for name, value in row.items() if name not in texts and value is not None})
    return line[:-1] + "".join(f', "{name}": {text}' for name, text in texts.items()) + "}\n"


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────────────────

HEADER = "type,event_id,occurred_at,source,coupon_id,channel,discount_minor,attributes\n"
GOOD = "issued,e-{},2026-11-11T00:00:00Z,shop,c-1,app,,\n"


def test_bad_rows_of_a_csv_file_are_reported_and_the_others_appended(home: Path) -> None:
    """Else one bad row would hold up a whole export, or nobody could find and mend it."""
    done("init")
    bad = [
        'issued,e-2,2026-11-11,shop,c-1,app,"5,00",{broken\n',
        "issued,e-3,2026-11-11T00:00:00Z,shop,c-1\n",
        'issued,e-4,2026-11-11T00:00:00Z,shop,c-1,"one "two,,\n',
    ]
    (home / "day.csv").write_text(HEADER + GOOD.format(1) + "\n" + "".join(bad) + GOOD.format(5))
    ran = ledger("publish", "day.csv", "--topic", COUPON)
    assert ran.code == 3
    assert ran.err.splitlines() == [
        "line 4: attributes: not JSON (Expecting property name enclosed in double quotes at column 2); occurred_at:"
        " must be an RFC 3339 instant such as 2026-11-11T00:00:00Z; discount_minor: must be a whole number (minor"
        " units, no decimals, no quotes)",
        "line 5: has 5 cells, but there are 8 columns",
        "line 6: not CSV (',' expected after '\"')",
        "appended 2 events, refused 3; see day.csv.rejected.ndjson",
    ]
    report = [json.loads(line) for line in (home / "day.csv.rejected.ndjson").read_text().splitlines()]
    assert [(entry["line"], entry["event_id"], entry["text"]) for entry in report] == [
        (4, "e-2", bad[0].rstrip("\n")),
        (5, "e-3", bad[1].rstrip("\n")),
        (6, None, bad[2].rstrip("\n")),
    ]
    assert ends(INPUT_TOPICS) == 2


def test_a_quote_that_stays_open_takes_no_other_row_with_it(home: Path) -> None:
    """Else a stray quote would swallow the rest of the file."""
    done("init")
    content = HEADER + 'issued,e-1,2026-11-11T00:00:00Z,shop,c-1,"app,,\n' + "".join(map(GOOD.format, range(2, 9)))
    ran = ledger("publish", "-", "--format", "csv", "--topic", COUPON, stdin=content.encode())
    assert ran.err.splitlines()[0] == "line 2: not CSV (unexpected end of data)"
    assert (ran.code, ends(INPUT_TOPICS)) == (3, 7)


@pytest.mark.long
def test_a_cell_may_hold_lines_and_rows_after_it_keep_their_numbers() -> None:
    """Else a text with a line break would be two broken rows, and a report would point at the wrong line."""
    done("init")
    wide = 'issued,e-1,2026-11-11T00:00:00Z,shop,c-1,"two\nlines, ""quoted""",,"{""a"": [1, ""券""]}"\r\n'
    not_utf8 = GOOD.format(3).encode().replace(b"shop", b"\xff\xfe")
    content = (HEADER + wide).encode() + not_utf8 + (HEADER.split(",")[0] + "\n").encode()
    ran = ledger("publish", "-", "--format", "csv", "--topic", COUPON, stdin=b"\xef\xbb\xbf" + content)
    assert [line.split(": ")[:2] for line in ran.err.splitlines()[:2]] == [
        ["line 4", "not UTF-8 (invalid start byte at byte 33)"],
        ["line 5", "has 1 cells, but there are 8 columns"],
    ]
    done("consume")
    [step] = done("history", "c-1", "--output", "json").json
    assert step["data"] == {"channel": 'two\nlines, "quoted"', "attributes": {"a": [1, "券"]}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER.replace("channel", "chanel"), ["no column 'chanel' on coupon.events; did you mean channel?"]),
        (
            HEADER.replace("channel", "chanel,kanal"),
            ["no column 'chanel', 'kanal' on coupon.events; did you mean channel?"],
        ),
        ("foo," + HEADER.replace("channel", "type"), ["no column 'foo'", "column type stands more than once"]),
        (HEADER.replace("attributes", "channel"), ["column channel stands more than once"]),
        (HEADER.replace("event_id", "code").replace("source", "reason"), ["lacks the column event_id, source"]),
        ("\xff\n", ["no column 'ÿ'"]),
        ('"type\n', ["line 1", "names", "not CSV"]),
    ],
    ids=["unknown", "two unknown", "unknown and twice", "twice", "lacking", "no words", "open quote"],
)
def test_columns_that_do_not_fit_the_topic_are_named(home: Path, content: str, words: list[str]) -> None:
    """Else every row of a wrong file would be refused one by one, or a misspelt column be dropped in silence."""
    done("init")
    (home / "day.csv").write_text(content + GOOD.format(1), encoding="utf-8")
    one_sentence(ledger("publish", "day.csv", "--topic", COUPON), 2, "file day.csv", *words)
    assert ends(INPUT_TOPICS) == 0


def test_a_table_needs_its_topic_and_lines_may_take_it(home: Path) -> None:
    """Else events would land on a guessed topic."""
    done("init")
    (home / "day.csv").write_text(HEADER + GOOD.format(1))
    one_sentence(ledger("publish", "day.csv"), 2, "day.csv", "--topic", ORDER)
    one_sentence(ledger("publish", "-", "--format", "parquet", "--topic", COUPON), 2, "standard input")
    event = coupon_event("created", "e-1")
    del event["topic"]
    assert done("publish", "-", "--topic", COUPON, stdin=json.dumps(event).encode()).out == "appended 1 event\n"


def test_strict_holds_for_tables(home: Path) -> None:
    """Else who wants all or nothing would get half."""
    done("init")
    (home / "day.csv").write_text(HEADER + GOOD.format(1) + "issued\n")
    assert "appended nothing (--strict)" in ledger("publish", "day.csv", "--topic", COUPON, "--strict").err
    assert ends(INPUT_TOPICS) == 0


@pytest.mark.slow
def test_csv_through_a_pipe_is_appended_as_it_comes() -> None:
    """Else `tail -F day.csv | coupon-ledger publish -` would keep events to itself."""
    done("init")
    process = start("publish", "-", "--format", "csv", "--topic", COUPON, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(HEADER.encode())
    for number in (1, 2):
        process.stdin.write(GOOD.format(number).encode())
        process.stdin.flush()
        wait_until(lambda number=number: ends(INPUT_TOPICS) == number, f"event {number}")  # type: ignore[misc]
    ran = finish(process)
    assert (ran.code, ran.out) == (0, "appended 2 events\n")


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────────────────


def coupon_table(**columns: pa.Array) -> pa.Table:
    """Issued coupons; some columns otherwise."""
    n = max(map(len, columns.values()), default=3)
    instants = pa.array([datetime.fromisoformat("2026-11-11T00:00:00Z")] * n, pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "type": pa.array(["issued"] * n),
            "event_id": pa.array([f"e-{i}" for i in range(n)]),
            "occurred_at": instants,
            "source": pa.array(["shop"] * n).dictionary_encode(),
            "coupon_id": pa.array([f"c-{i}" for i in range(n)], pa.large_string()),
            "channel": pa.array(["app"] * n, pa.string_view()),
            **columns,
        }
    )


def test_bad_rows_of_a_parquet_file_can_be_mended_and_sent(home: Path) -> None:
    """Else what a warehouse exported would be refused without a way back in."""
    done("init")
    table = coupon_table(discount_minor=pa.array([1, -1, None], pa.int32()), attributes=pa.array(['{"a": 1}'] * 3))
    pq.write_table(table, home / "day.parquet")
    ran = ledger("publish", "day.parquet", "--topic", COUPON)
    assert ran.code == 3
    assert ran.err.splitlines() == [
        "row 2: discount_minor: must be at least 0",
        "appended 2 events, refused 1; see day.parquet.rejected.ndjson",
    ]
    entry = json.loads((home / "day.parquet.rejected.ndjson").read_text())
    assert (entry["row"], entry["event_id"]) == (2, "e-1")
    mended = json.loads(entry["text"]) | {"discount_minor": 1}
    assert mended["attributes"] == {"a": 1}
    assert done("publish", "-", stdin=json.dumps(mended).encode()).out == "appended 1 event\n"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_instants_of_every_unit_are_exact_or_refused(home: Path, unit: str) -> None:
    """Else a warehouse's time stamps would be off, or cut in silence."""
    beyond = {"s": 10**12, "ms": 10**15, "us": 10**18, "ns": 1}[unit]
    value = {"s": 1, "ms": 1_001, "us": 1_000_001, "ns": 1_000_001_000}[unit]
    table = coupon_table(occurred_at=pa.array([value, beyond], pa.timestamp(unit, "Asia/Shanghai")))
    pq.write_table(table, home / "day.parquet")
    good, refused = from_parquet(COUPON, home / "day.parquet")
    assert isinstance(good, Record) and not isinstance(refused, Record)
    fraction = {"s": 0, "ms": 1_000, "us": 1, "ns": 1}[unit]
    assert decode(good.value)[1]["occurred_at"] == datetime.fromisoformat(f"1970-01-01T00:00:01.{fraction:06}Z")
    assert [field for field, _ in refused[2]] == ["occurred_at"]


def test_items_that_are_null_are_refused(home: Path) -> None:
    """Else a null within a list would end the whole file, or become something else."""
    lines = [[{"sku": "s", "cost_minor": 1}], [None], [{"sku": None, "cost_minor": 1}], [], None]
    coupon_ids = [["c"], ["c"], ["c"], ["c", None], []]
    events = [{**ORDER_EVENT, "lines": a, "coupon_ids": b} for a, b in zip(lines, coupon_ids, strict=True)]
    for event in events:
        event.pop("topic")
    table = pa.Table.from_pylist([{**e, "occurred_at": datetime.fromisoformat(e["occurred_at"])} for e in events])
    pq.write_table(table, home / "day.parquet")
    found = from_parquet(ORDER, home / "day.parquet")
    assert [isinstance(outcome, Record) for outcome in found] == [True, False, False, False, True]
    assert found == from_csv(ORDER, as_csv(ORDER, events))


def test_text_that_is_none_is_refused_by_its_row(home: Path) -> None:
    """Else a file of a careless writer would end in a panic, or bytes that are no text reach the log."""
    offsets, data = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 3))), pa.py_buffer(b"a\xffb")
    channel = pa.Array.from_buffers(pa.string(), 3, [None, offsets, data])
    pq.write_table(coupon_table(channel=channel), home / "day.parquet")
    first, second, third = from_parquet(COUPON, home / "day.parquet")
    assert isinstance(first, Record) and isinstance(third, Record) and third.key == b"c-2"
    assert second == (1, None, {("", "holds text that is not UTF-8")})


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("discount_minor", pa.array([1.0]), ["discount_minor is double", "int64"]),
        ("discount_minor", pa.array([1], pa.uint64()), ["discount_minor is uint64", "int64"]),
        ("occurred_at", pa.array([1], pa.timestamp("us")), ["occurred_at is timestamp[us]", "with a time zone"]),
        ("occurred_at", pa.array(["2026-11-11T00:00:00Z"]), ["occurred_at is string", "with a time zone"]),
        ("coupon_id", pa.array([7]), ["coupon_id is int64", "text"]),
        ("attributes", pa.array([{"a": 1}]), ["attributes is struct", "text that holds JSON"]),
        ("nonsense", pa.array([7]), ["no column 'nonsense'"]),
    ],
)
def test_columns_of_another_type_are_named(home: Path, name: str, column: pa.Array, words: list[str]) -> None:
    """Else numbers would be rounded and time zones guessed."""
    done("init")
    pq.write_table(coupon_table(**{name: column}), home / "day.parquet")
    one_sentence(ledger("publish", "day.parquet", "--topic", COUPON), 2, "file day.parquet", *words)


def test_lists_of_another_type_are_named(home: Path) -> None:
    """Else an item's field would be lost without a word."""
    for item in ({"sku": "s", "weight": 1}, {"sku": 7}, "s"):
        pq.write_table(pa.table({**_needed_order(), "lines": pa.array([[item]])}), home / "day.parquet")
        one_sentence(ledger("publish", "day.parquet", "--topic", ORDER), 2, "column lines is list", "sku (text), categ")


def _needed_order() -> dict[str, pa.Array]:
    instants = pa.array([datetime.fromisoformat("2026-11-11T00:00:00Z")], pa.timestamp("us", "UTC"))
    texts = {name: pa.array([name]) for name in ("type", "event_id", "source", "order_id")}
    return {**texts, "occurred_at": instants}


def test_what_is_no_parquet_is_said_to_be_none(home: Path) -> None:
    """Else a half-copied file would end in a riddle."""
    done("init")
    pq.write_table(coupon_table(), home / "whole.parquet")
    (home / "half.parquet").write_bytes((home / "whole.parquet").read_bytes()[:-9])
    one_sentence(ledger("publish", "half.parquet", "--topic", COUPON), 2, "half.parquet", "cannot be read as Parquet")


def test_rows_of_many_batches_keep_their_numbers_and_their_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a report would name wrong rows, and of two contents under one id the wrong one would stand."""
    done("init")
    monkeypatch.setattr("coupon_ledger.ledger.formats.parquet_rows._BATCH_ROWS", 100)
    n = 250
    channel = pa.array(["app"] * (n - 1) + ["x" * 2_000])
    pq.write_table(coupon_table(channel=channel, coupon_id=pa.array(["c-1"] * n)), home / "day.parquet")
    ran = ledger("publish", "day.parquet", "--topic", COUPON)
    assert ran.err.splitlines()[0] == f"row {n}: channel: must have at most 1,000 characters"
    log = opened_log()
    try:
        partitions = log.partitions([COUPON])
        values = [v for c in log.read(dict.fromkeys(partitions, 0), n) for v in c.values]
    finally:
        log.close()
    assert [decode(values[i])[1]["event_id"] for i in (0, 1, -1)] == ["e-0", "e-1", f"e-{n - 2}"]


@pytest.mark.long
@pytest.mark.parametrize("repeated", [True, False])
def test_texts_that_unpack_to_much_come_in_small_batches(
    home: Path, monkeypatch: pytest.MonkeyPatch, repeated: bool
) -> None:
    """Else a file of kilobytes, one long text in all its rows, would take the memory of the machine."""
    sizes = []

    def seen(topic: str, batch: pa.RecordBatch, start: int) -> Any:
        sizes.append(batch.nbytes)
        return _items(topic, batch, start)

    monkeypatch.setattr("coupon_ledger.ledger.formats.parquet_rows._items", seen)
    monkeypatch.setattr("coupon_ledger.ledger.formats.parquet_rows._BATCH_BYTES", 200_000)
    n = 1_200
    ids = pa.array([f"e-{i}" for i in range(n)])
    table = coupon_table(event_id=ids, coupon_id=ids, channel=pa.array(["x" * 900] * n))
    pq.write_table(table, home / "day.parquet", use_dictionary=repeated, compression="zstd")
    assert (home / "day.parquet").stat().st_size < 60_000
    found = list(ParquetRows(home / "day.parquet", COUPON).items())
    assert [decode(item.value)[1]["event_id"] for item in found if isinstance(item, Record)] == ids.to_pylist()
    assert max(sizes) <= 210_000 < sum(sizes) // 5


def test_dictionaries_of_several_batches_are_one(home: Path) -> None:
    """Else a text would become that of another row where batches are joined."""
    n = 1_500
    names = [f"c-{i // 7}" for i in range(n)]
    channel = pa.array(names).dictionary_encode()
    pq.write_table(coupon_table(coupon_id=pa.array(names), channel=channel), home / "day.parquet", row_group_size=400)
    found = list(ParquetRows(home / "day.parquet", COUPON).items())
    assert [decode(item.value)[1]["channel"] for item in found if isinstance(item, Record)] == names
