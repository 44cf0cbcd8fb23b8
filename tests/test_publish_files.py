"""`publish` of files as people have them: other separators, encodings, compressions, workbooks, arrays; and what cannot
be read, named in a sentence."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import openpyxl
import pytest

from coupon_ledger.ledger.codec import decode
from coupon_ledger.ledger.errors import InvalidEvent, UnusableFile
from coupon_ledger.ledger.formats import json_array, xlsx_cells
from coupon_ledger.ledger.formats.json_array import json_array_items
from coupon_ledger.ledger.formats.ndjson import ndjson_items
from coupon_ledger.ledger.formats.rows import Refused, in_zone
from coupon_ledger.ledger.formats.xlsx_rows import shows_digits
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS, ORDER
from scripts.examples import example
from tests.command_line import coupon_event, done, ends, ledger, one_sentence, opened_log
from tests.command_line import ndjson as lines_of

CASES: Final = Path(__file__).parent / "cases"
EVENT: Final = coupon_event("issued", "e-1", coupon_id="券-1", channel='应用,"[]{}')
CSV: Final = "type,event_id,occurred_at,source,coupon_id,channel\nissued,e-1,2026-11-11T00:00:00Z,商店,券-1,应用\n"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty log, to copy: making one takes longer than most tests here."""
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done("init")
    return folder


@pytest.fixture(autouse=True)
def home(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an empty log."""
    shutil.copytree(empty, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def published() -> list[dict[str, Any]]:
    """The events in the log, of all topics."""
    log = opened_log()
    try:
        partitions = log.partitions(INPUT_TOPICS)
        chunks = log.read(dict.fromkeys(partitions, 0), 1_000)
        return [decode(value)[1] for chunk in chunks for value in chunk.values]
    finally:
        log.close()


# ── Read ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["csv_semi.csv", "csv_utf16.csv"])
def test_separators_and_encodings_are_recognised(name: str) -> None:
    """Else what a spreadsheet saves here and there would be one column of nonsense."""
    assert done("publish", CASES / name, "--topic", ORDER).out == "appended 1 event\n"
    [event] = published()
    assert (event["event_id"][:1], event["net_minor"], event["currency"]) == ("e", 4500, "EUR")


def test_an_object_as_text_is_the_object(home: Path) -> None:
    """Else one field would be read from text, the next one refused, and a third one kept as text."""
    shutil.copy(CASES / "json_as_text.ndjson", home)
    done("publish", "json_as_text.ndjson")
    of = {event["event_id"]: event for event in published()}
    assert of["t1"]["funded_by"] == '{"platform":10000}'
    assert of["t3"]["attributes"] == '{"a":1}'


ENCODED: Final = {
    "tab": (CSV.replace(",", "\t").encode(), ()),
    "bar": (CSV.replace(",", "|").encode(), ()),
    "sep line": (("sep=;\r\n" + CSV.replace(",", ";").replace("\n", "\r\n")).encode(), ()),
    "named delimiter": (CSV.replace(",", "~").encode(), ("--delimiter", "~")),
    "named tab": (CSV.replace(",", "\t").encode(), ("--delimiter", "tab")),
    "UTF-8 with a mark": (CSV.encode("utf-8-sig"), ()),
    "UTF-16": (CSV.encode("utf-16"), ()),
    "UTF-16 without a mark": (CSV.encode("utf-16-le"), ()),
    "UTF-16 big-endian without a mark": (CSV.encode("utf-16-be"), ()),
    "UTF-32": (CSV.encode("utf-32"), ()),
    "GBK": (CSV.encode("gbk"), ("--encoding", "gbk")),
    "GB18030": (CSV.encode("gb18030"), ("--encoding", "GB18030")),
    "gzip": (gzip.compress(CSV.encode()), ()),
    "gzip of GBK": (gzip.compress(CSV.encode("gbk")), ("--encoding", "gbk")),
}


@pytest.mark.parametrize("case", ENCODED)
@pytest.mark.parametrize("name", ["day.csv", "day.txt", "-"])
def test_a_table_is_the_same_however_it_was_saved(home: Path, case: str, name: str) -> None:
    """Else ids and names would be other ones, or a file that is sound be refused."""
    content, options = ENCODED[case]
    if name != "day.csv" and case == "named delimiter":
        options = (*options, "--format", "csv")
    if name != "-":
        (home / name).write_bytes(content)
    stdin = content if name == "-" else b""
    assert done("publish", name, "--topic", COUPON, *options, stdin=stdin).out == "appended 1 event\n"
    [event] = published()
    assert (event["source"], event["coupon_id"], event["channel"]) == ("商店", "券-1", "应用")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_lines_in_another_encoding_are_read(home: Path, encoding: str) -> None:
    """Else what PowerShell writes could not be published."""
    (home / "events.ndjson").write_bytes(lines_of([EVENT, EVENT | {"event_id": "e-2"}]).decode().encode(encoding))
    assert done("publish", "events.ndjson").out == "appended 2 events\n"
    assert published()[0]["coupon_id"] == "券-1"


def test_bytes_that_are_no_text_in_the_encoding_take_only_their_line(home: Path) -> None:
    """Else one broken character would become a wrong one, or hold up the file."""
    broken = CSV.encode("gb18030").replace("应".encode("gb18030"), b"\xff\xff") + CSV.splitlines()[1].encode("gb18030")
    (home / "day.csv").write_bytes(broken)
    ran = ledger("publish", "day.csv", "--topic", COUPON, "--encoding", "gb18030")
    assert (ran.code, ran.err.splitlines()[0]) == (3, "line 2: holds bytes that are no text in the file's encoding")
    assert len(published()) == 1


# ── JSON arrays ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["day.json", "day.ndjson", "day.json.gz", "-"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_events_is_read(home: Path, name: str, indent: int | None) -> None:
    """Else what most exports write would be one broken line."""
    events = [EVENT, EVENT | {"event_id": "e-2", "attributes": {"a": [[], {}, "]"]}}]
    content = json.dumps(events, indent=indent, ensure_ascii=indent is None).encode()
    content = gzip.compress(content) if name.endswith("gz") else content
    if name != "-":
        (home / name).write_bytes(content)
    assert done("publish", name, stdin=content).out == "appended 2 events\n"
    assert [e["channel"] for e in published()] == ['应用,"[]{}'] * 2


class Dribbling:
    """A source that gives a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self._source, self._size = io.BytesIO(content), size

    def read1(self, _: int, /) -> bytes:
        return self._source.read(self._size)

    def fileno(self) -> int:
        raise OSError


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_elements_are_those_of_the_array_wherever_pieces_end(size: int) -> None:
    """Else events would be cut where a piece of the file ends."""
    texts = [json.dumps(EVENT | {"event_id": f"e-{i}", "attributes": {"a": '\\"],{' * i}}) for i in range(20)]
    texts[3:3] = ['{"a" 1}', "[1, [2]]", "7", '"]"', ""]
    array = b" [" + ",\n".join(texts).encode() + b"] \n"
    items = [item for item in json_array_items(Dribbling(array, size), None, "file") if item is not None]
    lines = [item for text in texts for item in ndjson_items([(text or " - ").encode()], None)]
    assert len(items) == len(texts)
    for number, (item, line) in enumerate(zip(items, lines, strict=True), 1):
        if isinstance(line, Record):
            assert item == line
        else:
            assert isinstance(item, Refused) and isinstance(line, Refused)
            assert item.number == number
            assert texts[number - 1] == "" or item.problems == line.problems


@pytest.mark.parametrize("content", [b"[]", b" [ ] \n", b"[\n]"])
def test_an_empty_array_holds_no_event(content: bytes) -> None:
    """Else an empty export would be an error."""
    assert list(json_array_items(Dribbling(content, 1), None, "file")) == []
    assert done("publish", "-", stdin=content).out == "appended 0 events\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-30], "the JSON array does not end (cut off in row 3?)"),
        (lambda text: text[:-1], "does not end"),
        (lambda text: text + b"{}", "something follows the end of the JSON array, behind row 3"),
    ],
)
def test_an_array_that_is_cut_off_or_goes_on_is_said_to(home: Path, change: Any, words: str) -> None:
    """Else half of a file would pass for all of it."""
    (home / "day.json").write_bytes(change(json.dumps([EVENT] * 3).encode()))
    one_sentence(ledger("publish", "day.json", "--strict"), 2, "file day.json", words)
    assert ends(INPUT_TOPICS) == 0


def test_an_array_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file of gigabytes would end in the machine's memory."""
    monkeypatch.setattr(json_array, "_PIECE_BYTES", 1_000)
    taken = 0

    class Endless:
        def read1(self, size: int, /) -> bytes:
            nonlocal taken
            taken += 1
            return (b"[" if taken == 1 else b"") + json.dumps(EVENT).encode() + b","

        def fileno(self) -> int:
            raise OSError

    items = json_array_items(Endless(), None, "file")
    for number in range(1, 100):
        assert isinstance(next(items), Record)
        assert taken <= number
    monkeypatch.setattr(json_array, "MAX_ROW_BYTES", 5_000)
    with pytest.raises(UnusableFile, match="row 1 is longer than 5,000 bytes"):
        list(json_array_items(Dribbling(b'[{"a": "' + b"x" * 10_000, 1_000), None, "file"))


# ── Workbooks ────────────────────────────────────────────────────────────────────────────────────────────────


def workbook(path: Path, *sheets: list[list[Any]]) -> None:
    book = openpyxl.Workbook()
    for number, rows in enumerate(sheets):
        sheet = book.active if not number else book.create_sheet(f"second {number}")
        assert sheet is not None
        for row in rows:
            sheet.append(row)
    book.save(path)


def order_cells(**changes: Any) -> dict[str, Any]:
    event = {k: v for k, v in example(ORDER, "paid").items() if k != "topic"}
    return event | {"lines": '[{"sku": "s", "quantity": 2}]', "coupon_ids": None} | changes


def order_rows(*rows: dict[str, Any]) -> list[list[Any]]:
    return [list(rows[0]), *(list(row.values()) for row in rows)]


def test_a_workbook_gives_what_its_text_would(home: Path) -> None:
    """Else a file that people have would have to be exported first, and numbers and dates be other ones."""
    cells = order_cells(event_id=12345, occurred_at=datetime(2026, 11, 11, 8, 0, 30), net_minor=5000.0)
    text = order_cells(event_id="12345", occurred_at="2026-11-11T00:00:30Z", net_minor="5000")
    workbook(home / "day.xlsx", [[], *order_rows(cells), [], list(text.values())])
    ran = done("publish", "day.xlsx", "--topic", ORDER, "--zone", "Asia/Shanghai")
    assert ran.out == "appended 2 events\n"
    first, second = published()
    assert first == second
    assert (first["net_minor"], first["lines"][0]["quantity"]) == (5000, 2)


WRONG_CELLS: Final = {
    "decimals": ("net_minor", 5000.5, "must be a whole number (minor units, no decimals, no quotes)"),
    "an id with decimals": ("order_id", 1.5, "must be text; format the column as text"),
    "an id that was rounded": ("order_id", 12345678901234567890, "more than 15 digits, which spreadsheets round"),
    "a date for an id": ("order_id", datetime(2026, 11, 11), "is a date, and must be text"),
    "true": ("order_id", True, "must be text"),
    "a number for an instant": ("occurred_at", 46337.5, "must be a date with its time"),
    "a date without a zone": ("occurred_at", datetime(2026, 11, 11), "must carry a time zone"),
    "text for a number": ("net_minor", "5,00", "must be a whole number"),
    "broken JSON": ("lines", "[{", "not JSON"),
}


@pytest.mark.parametrize("case", WRONG_CELLS)
def test_cells_that_a_spreadsheet_changed_are_refused_by_row_and_field(home: Path, case: str) -> None:
    """Else rounded ids and guessed zones would be folded."""
    field, value, rule = WRONG_CELLS[case]
    workbook(home / "day.xlsx", order_rows(order_cells(), order_cells(**{field: value})))
    ran = ledger("publish", "day.xlsx", "--topic", ORDER)
    assert ran.code == 3
    entry = json.loads((home / "day.xlsx.rejected.ndjson").read_text())
    assert entry["row"] == 3
    assert [p["field"] for p in entry["problems"]] == [field]
    assert rule in entry["problems"][0]["rule"]


def test_a_refused_row_of_a_workbook_can_be_mended_and_sent(home: Path) -> None:
    """Else there would be no way back in."""
    workbook(home / "day.xlsx", order_rows(order_cells(event_id=7, net_minor=0.5)))
    ledger("publish", "day.xlsx", "--topic", ORDER)
    entry = json.loads((home / "day.xlsx.rejected.ndjson").read_text())
    mended = json.dumps(json.loads(entry["text"]) | {"net_minor": 1})
    assert done("publish", "-", stdin=mended.encode()).out == "appended 1 event\n"


def test_of_several_sheets_one_is_named(home: Path) -> None:
    """Else sheets would be dropped in silence."""
    workbook(home / "day.xlsx", order_rows(order_cells()), order_rows(order_cells(event_id="other")), [])
    one_sentence(ledger("publish", "day.xlsx", "--topic", ORDER), 2, "several sheets (Sheet, second 1)", "--sheet")
    one_sentence(ledger("publish", "day.xlsx", "--topic", ORDER, "--sheet", "x"), 2, "no sheet 'x'")
    done("publish", "day.xlsx", "--topic", ORDER, "--sheet", "second 1")
    assert [e["event_id"] for e in published()] == ["other"]


def test_a_broken_workbook_is_said_to_be_broken(home: Path) -> None:
    """Else it would end in a traceback."""
    workbook(home / "day.xlsx", order_rows(order_cells()))
    whole = (home / "day.xlsx").read_bytes()
    (home / "half.xlsx").write_bytes(whole[: len(whole) // 2])
    one_sentence(ledger("publish", "half.xlsx", "--topic", ORDER), 2, "half.xlsx", "cut off or broken")
    with zipfile.ZipFile(home / "odd.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<no")
    one_sentence(ledger("publish", "odd.xlsx", "--topic", ORDER), 2, "odd.xlsx", "cannot be read as an Excel workbook")


def order_workbook(path: Path, formats: dict[str, str], **cells: Any) -> None:
    """One order whose cells have these number formats."""
    rows = order_rows(order_cells(**cells))
    workbook(path, rows)
    book = openpyxl.load_workbook(path)
    for field, code in formats.items():
        book.active.cell(2, rows[0].index(field) + 1).number_format = code
    book.save(path)


@pytest.mark.parametrize("code", ["00000", "000", "0.00", "#,##0", '"K-"0', "0%", "0E+00", "0\\-", "[<9]0;000"])
def test_an_id_that_its_number_format_shows_otherwise_is_refused(home: Path, code: str) -> None:
    """Else 00019 on the screen would be 19 in the log: another key, for good."""
    order_workbook(home / "day.xlsx", {"order_id": code}, order_id=19)
    ran = ledger("publish", "day.xlsx", "--topic", ORDER)
    assert ran.code == 3
    words = f"row 2: order_id: is the number 19, which its format {code!r} shows otherwise; format the column as text"
    assert ran.err.splitlines()[0].startswith(words)
    assert ends(INPUT_TOPICS) == 0


@pytest.mark.parametrize("code", ["General", "0", "@", "#", "00", "0_ ;[Red]-0\\ ", "0_);(0)", "##0"])
def test_an_id_that_is_shown_as_its_digits_is_these(home: Path, code: str) -> None:
    """Else sound tables would have to be formatted anew; of amounts the number counts, however it is shown."""
    order_workbook(home / "day.xlsx", {"order_id": code, "net_minor": "#,##0.00"}, order_id=19, net_minor=5000)
    done("publish", "day.xlsx", "--topic", ORDER)
    assert [(e["order_id"], e["net_minor"]) for e in published()] == [("19", 5000)]


@pytest.mark.parametrize(
    ("code", "number", "same"),
    [
        ("0;(0)", -5, False),
        ("0;-0", -5, True),
        ("0", -5, True),
        ("00", -5, False),
        ("#", 0, False),
        ("0;-0;", 0, False),
        ("", 5, False),
        (";;", 5, False),
        ('0";"', 5, False),
        ("[h]", 5, False),
        (None, 5, False),
    ],
)
def test_a_number_format_has_parts_for_signs_and_zero(code: str | None, number: int, same: bool) -> None:
    """Else a format would be taken at its first part, and an id at what nobody sees."""
    assert shows_digits(code, number) == same


def repacked(path: Path, part: str, change: Callable[[str], str]) -> None:
    """Change one part of a workbook, or make it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[part] = change(parts.get(part, b"").decode()).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


SHEET: Final = "xl/worksheets/sheet1.xml"
SHARED: Final = "xl/sharedStrings.xml"


def share_texts(path: Path) -> None:
    """Keep the texts of the first sheet as Excel does: once, beside the sheets."""
    texts: list[str] = []

    def shared(found: re.Match[str]) -> str:
        texts.append(found[2])
        return f'{found[1]}t="s"><v>{len(texts) - 1}</v></c>'

    repacked(path, SHEET, lambda xml: re.sub(r'(<c [^>]*)t="inlineStr"><is>(<t[^>]*>[^<]*</t>)</is></c>', shared, xml))
    items = "".join(f"<si>{text}</si>" for text in texts)
    name = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    repacked(path, SHARED, lambda _: f'<sst xmlns="{name}">{items}</sst>')
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    told = f'<Override PartName="/{SHARED}" ContentType="{kind}"/></Types>'
    if SHARED not in zipfile.ZipFile(path).read("[Content_Types].xml").decode():
        repacked(path, "[Content_Types].xml", lambda xml: xml.replace("</Types>", told))


def test_texts_that_rows_share_are_read(home: Path) -> None:
    """Else what Excel itself saves would be read as other text than what other programs save."""
    rows = order_rows(order_cells(reason="", channel="应用 "), order_cells(event_id="2", channel="𝄞"))
    workbook(home / "day.xlsx", rows)
    done("publish", "day.xlsx", "--topic", ORDER)
    share_texts(home / "day.xlsx")
    repacked(home / "day.xlsx", SHARED, lambda xml: xml.replace("<t>2</t>", "<r><t>2</t></r><r><t>b</t></r>"))
    done("publish", "day.xlsx", "--topic", ORDER)
    first, second, again, other = published()
    assert (again, other) == (first, second | {"event_id": "2b"})


@pytest.mark.parametrize("number", [27, 31, 57])
def test_dates_as_chinese_spreadsheets_format_them_are_dates(home: Path, number: int) -> None:
    """Else a day that people see as 2026年11月11日 would be an id such as 46337, or no instant."""
    day = datetime(2026, 11, 11)
    order_workbook(home / "day.xlsx", dict.fromkeys(("occurred_at",), "yyyy-mm-dd"), occurred_at=day, order_id=day)
    repacked(
        home / "day.xlsx", "xl/styles.xml", lambda xml: re.sub(r'numFmtId="1\d+"( |/)', rf'numFmtId="{number}"\1', xml)
    )
    repacked(home / "day.xlsx", "xl/styles.xml", lambda xml: re.sub("<numFmts.*</numFmts>", "", xml))
    ran = ledger("publish", "day.xlsx", "--topic", ORDER, "--zone", "Asia/Shanghai")
    entry = json.loads((home / "day.xlsx.rejected.ndjson").read_text())
    assert (ran.code, [p["field"] for p in entry["problems"]]) == (3, ["order_id"])
    assert "is a date" in entry["problems"][0]["rule"]


def test_a_formula_that_nobody_calculated_is_named(home: Path) -> None:
    """Else people would look for a value that they see in front of them."""
    workbook(home / "day.xlsx", order_rows(order_cells(net_minor="=2*2500"), order_cells(reason='=""')))
    # As a spreadsheet program keeps a formula that comes to no text.
    repacked(
        home / "day.xlsx",
        SHEET,
        lambda xml: re.sub(r'<c (r="\w+")( s="\d+")?><f>""</f><v ?/>', r'<c \1 t="str"><f>""</f><v></v>', xml),
    )
    ran = ledger("publish", "day.xlsx", "--topic", ORDER)
    words = (
        "row 2: net_minor: holds a formula without a value; open the file in the spreadsheet program and save it there"
    )
    assert (ran.code, ran.err.splitlines()[0]) == (3, words)
    assert [e.get("reason") for e in published()] == [None]
    cells = order_cells()
    workbook(home / "names.xlsx", [[*list(cells)[:-1], '="net_minor"'], list(cells.values())])
    one_sentence(
        ledger("publish", "names.xlsx", "--topic", ORDER), 2, "a column's name holds a formula without a value"
    )


def test_a_row_of_formulas_is_a_row(home: Path) -> None:
    """Else rows that a program wrote, and nobody calculated, would be passed over in silence."""
    workbook(home / "day.xlsx", order_rows(order_cells(), dict.fromkeys(order_cells(), "=A2")))
    ran = ledger("publish", "day.xlsx", "--topic", ORDER)
    assert (ran.code, ran.err.splitlines()[0][:7]) == (3, "row 3: ")


def test_a_row_far_below_costs_nothing(home: Path) -> None:
    """Else a number in a small file would hold the command up for hours."""
    workbook(home / "day.xlsx", order_rows(order_cells(), order_cells(event_id="far", net_minor=0.5)))
    repacked(home / "day.xlsx", SHEET, lambda xml: re.sub(r'(r="[A-Z]*)3"', r'\g<1>2000000000"', xml))
    ran = ledger("publish", "day.xlsx", "--topic", ORDER)
    assert ran.err.startswith("row 2000000000: net_minor")


LONG: Final = "x" * 150_000
BOMBS: Final[dict[str, tuple[str, Callable[[str], str], str]]] = {
    "a cell": (SHEET, lambda xml: xml.replace("<v>", f"<v>{LONG * 3}", 1), "holds a cell of more than 100,000 bytes"),
    "many cells": (
        SHEET,
        lambda xml: xml.replace("<c ", "<c/>" * 50_000 + "<c ", 1),
        "'Sheet', behind row 0: holds a row",
    ),
    "a later row": (
        SHEET,
        lambda xml: xml.replace("</row>", "</row><row>" + "<c/>" * 50_000 + "</row>", 1),
        "'Sheet', behind row 1: holds a row of more than 100,000 bytes",
    ),
    "no rows": (SHEET, lambda xml: xml.replace("<sheetData>", "<a/>" * 50_000 + "<sheetData>"), "holds a row of more"),
    "markup in text": (SHEET, lambda xml: xml.replace("<row ", f"<row b='{LONG}' ", 1), "more than 100,000 bytes"),
    "shared text": (
        SHARED,
        lambda xml: xml.replace("<t>", "<t>" + "<!---->" * 30_000, 1),
        "holds a text of",
    ),
    "styles": (
        "xl/styles.xml",
        lambda xml: xml.replace("<fonts", "<a/>" * 50_000 + "<fonts", 1),
        "its styles are too long",
    ),
    "sheets": (
        "xl/workbook.xml",
        lambda xml: xml.replace("<sheets>", "<a/>" * 50_000 + "<sheets>"),
        "its xl/workbook.xml is",
    ),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_workbook_that_unpacks_to_too_much_at_once_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Else a small file from anywhere would take the memory of the machine."""
    part, change, words = BOMBS[case]
    monkeypatch.setattr(xlsx_cells, "MAX_ROW_BYTES", 100_000)
    workbook(home / "day.xlsx", order_rows(order_cells(), order_cells(event_id="2")))
    share_texts(home / "day.xlsx")
    done("publish", "day.xlsx", "--topic", ORDER)
    repacked(home / "day.xlsx", part, change)
    one_sentence(ledger("publish", "day.xlsx", "--topic", ORDER), 2, "file day.xlsx: ", words)
    assert ends(INPUT_TOPICS) == 2


@pytest.mark.long
def test_a_table_of_many_rows_is_no_row(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the bound of one row would be that of a file, and honest ones be refused."""
    monkeypatch.setattr(xlsx_cells, "MAX_ROW_BYTES", 20_000)
    workbook(home / "day.xlsx", order_rows(*(order_cells(event_id=f"e-{n}") for n in range(300))))
    with zipfile.ZipFile(home / "day.xlsx") as archive:
        assert archive.getinfo(SHEET).file_size > 100_000
    assert done("publish", "day.xlsx", "--topic", ORDER).out == "appended 300 events\n"
    assert [e["event_id"] for e in published()] == [f"e-{n}" for n in range(300)]


def test_the_whole_of_a_workbook_has_a_bound(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file of megabytes would keep the machine busy for a day."""
    workbook(home / "day.xlsx", order_rows(order_cells()))
    share_texts(home / "day.xlsx")
    monkeypatch.setattr(xlsx_cells, "MOST_UNPACKED", 10_000)
    one_sentence(
        ledger("publish", "day.xlsx", "--topic", ORDER), 2, "unpacks to more than 10,000 bytes; save the sheet"
    )
    monkeypatch.undo()
    monkeypatch.chdir(home)
    monkeypatch.setattr(xlsx_cells, "MOST_SHARED", 100)
    one_sentence(
        ledger("publish", "day.xlsx", "--topic", ORDER), 2, "holds more than 100 bytes of text; save the sheet"
    )


def test_what_the_zip_says_of_its_size_is_not_believed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file would only have to lie to take the memory of the machine."""
    workbook(home / "day.xlsx", order_rows(order_cells()))
    repacked(home / "day.xlsx", "xl/workbook.xml", lambda xml: xml + " " * 200_000)
    content = (home / "day.xlsx").read_bytes()
    with zipfile.ZipFile(home / "day.xlsx") as archive:
        size = archive.getinfo("xl/workbook.xml").file_size
    directory = content.index(b"PK\x01\x02")
    told = content[:directory] + content[directory:].replace(struct.pack("<L", size), struct.pack("<L", 1_000))
    (home / "day.xlsx").write_bytes(told)
    one_sentence(
        ledger("publish", "day.xlsx", "--topic", ORDER), 2, "its xl/workbook.xml is not as long as the file says"
    )
    monkeypatch.setattr(xlsx_cells, "MOST_UNPACKED", 150_000)
    one_sentence(ledger("publish", "day.xlsx", "--topic", ORDER), 2, "unpacks to more than 150,000 bytes")


_MEASURED: Final = """
import resource, sys
from pathlib import Path
from coupon_ledger.ledger.formats.xlsx_rows import XlsxRows
from coupon_ledger.ledger.errors import UnusableFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(XlsxRows(Path(sys.argv[1]), "order.events").items())
except UnusableFile as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
def test_a_cell_of_a_hundred_megabytes_takes_none(home: Path) -> None:
    """Else the bound would be told, and the memory be taken all the same."""
    workbook(home / "day.xlsx", order_rows(order_cells()))
    repacked(home / "day.xlsx", SHEET, lambda xml: xml.replace("<v>", "<v>" + "x" * 100_000_000, 1))
    command = [sys.executable, "-c", _MEASURED, str(home / "day.xlsx")]
    words, taken = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert words.endswith("holds a cell of more than 4,000,000 bytes (a cell holds at most 32,767 characters); mend it")
    assert int(taken) < 60_000  # KiB


def test_times_that_clocks_skip_or_show_twice_are_refused() -> None:
    """Else an hour of a night would be guessed."""
    berlin = ZoneInfo("Europe/Berlin")
    assert in_zone(datetime(2026, 7, 1, 12), berlin).isoformat() == "2026-07-01T10:00:00+00:00"
    for local, words in ((datetime(2026, 3, 29, 2, 30), "skip"), (datetime(2026, 10, 25, 2, 30), "show twice")):
        with pytest.raises(InvalidEvent, match=words):
            in_zone(local, berlin)


# ── Named ────────────────────────────────────────────────────────────────────────────────────────────────────


def packed(name: str, content: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


OTHERS: Final = {
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", ["is a PDF"]),
    "ZIP": (packed("day.csv", CSV), ["is a ZIP archive", "unpack"]),
    "OpenDocument": (packed("mimetype", "application/vnd.oasis.opendocument.spreadsheet"), ["OpenDocument", ".xlsx"]),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), ["Excel workbook", "without a password"]),
    "SQLite": (b"SQLite format 3\0" + bytes(84), ["is a SQLite database"]),
    "DuckDB": (bytes(8) + b"DUCK" + bytes(84), ["is a DuckDB database"]),
    "xz": (b"\xfd7zXZ\0" + bytes(9), ["compressed with xz"]),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(9), ["compressed with zstd"]),
    "Avro": (b"Obj\x01" + bytes(9), ["is an Avro container"]),
    "Arrow": (b"ARROW1\0\0", ["is an Arrow"]),
    "image": (b"\x89PNG\r\n\x1a\n", ["is an image"]),
    "web page": (b"<!DOCTYPE html><html>", ["is XML or HTML"]),
    "gzip of a workbook": (gzip.compress(packed("xl/workbook.xml", "")), ["packed with gzip", "unpack"]),
    "broken gzip": (gzip.compress(CSV.encode())[:-12], ["cut off or broken"]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_cannot_be_read_is_named(home: Path, case: str) -> None:
    """Else a wrong file would be a thousand broken lines."""
    content, words = OTHERS[case]
    name = "day.csv" if case == "broken gzip" else "day.ndjson"
    (home / name).write_bytes(content)
    one_sentence(ledger("publish", name, "--topic", COUPON), 2, f"file {name}", *words)
    assert not list(home.glob("*.rejected.*"))


def test_a_file_in_gbk_is_not_guessed(home: Path) -> None:
    """Else names in another encoding would be read as other names."""
    (home / "day.csv").write_bytes(CSV.encode("gbk"))
    one_sentence(ledger("publish", "day.csv", "--topic", COUPON), 2, "not UTF-8", "--encoding gb18030")
    (home / "mixed.csv").write_bytes(CSV.encode() + CSV.splitlines()[1].encode("gbk"))
    ran = ledger("publish", "mixed.csv", "--topic", COUPON)
    assert ran.err.splitlines()[0].startswith("line 3: not UTF-8")
    assert ends(INPUT_TOPICS) == 1


def test_the_content_counts_and_not_the_ending(home: Path) -> None:
    """Else a renamed workbook would be read as text, and an option that contradicts the file be believed."""
    workbook(home / "day.csv", order_rows(order_cells()))
    done("publish", "day.csv", "--topic", ORDER)
    wrong = ledger("publish", "day.csv", "--topic", ORDER, "--format", "csv")
    one_sentence(wrong, 2, "is an Excel workbook, not CSV", "--format")


def test_an_empty_file_is_said_to_be_empty(home: Path) -> None:
    """Else an export that failed would look like a day without events."""
    (home / "day.ndjson").touch()
    ran = done("publish", "day.ndjson")
    assert (ran.out, ran.err) == ("appended 0 events\n", "file day.ndjson: is empty\n")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--encoding", "rot13"),
        ("--encoding", "klingon"),
        ("--delimiter", "ab"),
        ("--delimiter", '"'),
        ("--zone", "Mars"),
    ],
)
def test_options_that_mean_nothing_are_refused(home: Path, option: str, value: str) -> None:
    """Else a file would be read by chance."""
    (home / "day.csv").write_text(CSV)
    one_sentence(ledger("publish", "day.csv", "--topic", COUPON, option, value), 2, option, value)


@pytest.mark.long
def test_a_conflicting_repeat_is_found_where_the_help_says(home: Path) -> None:
    """Else a mistake that is appended, and not folded, would stay unseen."""
    done("publish", "-", stdin=lines_of([EVENT, EVENT | {"channel": "web"}]))
    done("consume")
    help_text = " ".join(done("publish", "--help").out.split())
    assert "coupon-ledger violations --code conflicting_duplicate" in help_text
    [found] = done("violations", "--code", "conflicting_duplicate", "--output", "ndjson").rows
    assert found["event_id"] == "e-1"


@pytest.mark.long
def test_an_event_that_the_log_never_takes_is_reported_and_the_others_are_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one huge order would keep the rest of the file out of the log, whenever it is published."""
    monkeypatch.chdir(tmp_path)
    done("init")

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*arguments, **options)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
        return connection

    monkeypatch.setattr("coupon_ledger.ledger.sqlite_log.sqlite3.connect", connect)
    money = {"user_id": "u-1", "currency": "CNY", "gross_minor": 1, "net_minor": 1}
    head = {"topic": "order.events", "type": "paid", "event_id": "e-huge", "source": "shop", "order_id": "o-9"}
    lines = [{"sku": f"{n:0200}"} for n in range(10_000)]
    huge = {**head, "occurred_at": "2026-11-11T00:00:00Z", **money, "lines": lines}
    events = [coupon_event("created", f"e-{n}", coupon_id=f"c-{n}") for n in range(3)]
    Path("events.ndjson").write_bytes(lines_of([*events[:2], huge, events[2]]))
    strict = ledger("publish", "events.ndjson", "--strict")
    assert strict.code not in (0, 3) and "too large" in strict.err and "appended" not in strict.err
    ran = ledger("publish", "events.ndjson")
    assert ran.code == 3 and "appended 3 events, refused 1" in ran.err
    assert "event e-huge: " in ran.err and "bytes" in ran.err
    [row] = [json.loads(line) for line in Path("events.ndjson.rejected.ndjson").read_text().splitlines()]
    assert row["event_id"] == "e-huge" and json.loads(row["text"])["order_id"] == "o-9"
    done("consume")
    assert done("status", "-o", "json").json["coupons"] == 3
