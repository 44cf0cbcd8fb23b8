"""What is printed for people shows hostile data and does not act on it; CSV for spreadsheets calculates nothing."""

from __future__ import annotations

import csv
import io
import json
import sys
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from coupon_ledger.cli.terminal import _UNSAFE, Guarded, visible
from coupon_ledger.ledger.topics import CAMPAIGN, ORDER, USER
from scripts.examples import example
from tests.command_line import Ran, coupon_event, done, ledger, ndjson, one_sentence
from tests.test_cli import commands

HOSTILE: Final = "x\x1b]0;t\x07\x1b[2J\x9b31m\u202egpj\u2066\u200b\ufeff\u2028\x7f\x85"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database whose ids, names, codes and texts are hostile; the working folder of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("home"))
        done("init")
        done("publish", "-", stdin=ndjson(hostile_events()))
        done("consume")
        yield Path.cwd()


def hostile_events() -> list[dict[str, Any]]:
    coupon = {"coupon_id": HOSTILE, "campaign_id": HOSTILE, "user_id": HOSTILE, "code": HOSTILE, "channel": HOSTILE}
    told = {"source": HOSTILE, "reason": HOSTILE, "attributes": {HOSTILE: HOSTILE}}
    order = {"order_id": HOSTILE, "user_id": HOSTILE, "channel": HOSTILE, "store": HOSTILE, "coupon_ids": [HOSTILE]}
    lines = [{"sku": HOSTILE, "category": HOSTILE, "net_minor": 5}]
    campaign = {"campaign_id": HOSTILE, "name": HOSTILE, "channel": HOSTILE, "funded_by": {HOSTILE: 10_000}}
    return [
        {"topic": CAMPAIGN, **example(CAMPAIGN, "published"), **campaign},
        *(coupon_event(kind, f"{kind}{HOSTILE}", **coupon, **told) for kind in ("created", "claimed", "used", "used")),
        coupon_event("used", f"again{HOSTILE}", **coupon, order_id=HOSTILE),
        {"topic": ORDER, **example(ORDER, "paid"), **order, "lines": lines},
        {"topic": USER, **example(USER, "touched"), "user_id": HOSTILE, "channel": HOSTILE, "campaign_id": HOSTILE},
    ]


def hidden(text: str) -> list[str]:
    """Characters that steer or hide, but for line ends, tabs and the command's own bold."""
    text = text.replace("\x1b[0m", "").replace("\x1b[1m", "")
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"]


def shown(ran: Ran) -> str:
    text = ran.out + ran.err
    assert not hidden(text), sorted(map(repr, set(hidden(text))))
    return text


@pytest.mark.long
def test_the_characters_are_those_of_unicode() -> None:
    """Else a character that steers would be forgotten in the list."""
    unsafe = {chr(n) for n in range(sys.maxunicode + 1) if _UNSAFE.fullmatch(chr(n))}
    known = set(hidden("".join(map(chr, range(sys.maxunicode + 1)))))
    assert known <= unsafe
    assert {unicodedata.category(c) for c in unsafe - known} <= {"Cn"}  # of a newer Unicode than Python's


def test_json_stays_the_same_json() -> None:
    """Else a program would read other data than the ledger holds."""
    for text in (HOSTILE, "\\" + HOSTILE, "\U000e0041", "\ud800"):
        assert json.loads(visible(json.dumps([text], ensure_ascii=False))) == [text]


def test_a_guarded_stream_is_a_stream() -> None:
    """Else what prints bytes, or asks whether it is a terminal, would fail."""
    raw = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    guard = Guarded(raw)
    assert guard.write("a\x1b") == 2
    guard.flush()
    assert (guard.buffer.getvalue(), guard.isatty(), guard.encoding) == (b"a\\u001b", False, "utf-8")
    with pytest.raises(TypeError):
        guard.write(b"bytes")  # type: ignore[arg-type]


ASKED: Final = (
    ("state", HOSTILE),
    ("history", HOSTILE),
    ("coupons", "--all"),
    ("coupons", "--count"),
    ("user", HOSTILE),
    ("order", HOSTILE),
    ("campaigns",),
    ("campaigns", "show", HOSTILE),
    ("violations",),
    ("metrics", "query", "used_events", "--by", "campaign,channel"),
    ("attribution", "show"),
    ("attribution", "show", "--explain", HOSTILE),
    ("review", HOSTILE),
    ("report", "finance", "split", "--by", "campaign,funder"),
    ("report", "finance", "losses"),
    ("report", "finance", "categories"),
    ("diff", "--from", "2020-01-01"),
    ("tail", "--from-start", "--no-follow"),
    ("verify",),
)


@pytest.mark.long
@pytest.mark.parametrize("arguments", ASKED, ids=lambda a: " ".join(a[:2]) if a[1:] != (HOSTILE,) else a[0])
@pytest.mark.parametrize("output", ["table", "json"])
def test_hostile_data_is_shown(arguments: tuple[str, ...], output: str) -> None:
    """Else an id made by an attacker could rewrite what an operator sees, or hide in it."""
    options = () if arguments[0] == "review" else ("--output", output)
    ran = ledger(*arguments, *options)
    assert "Traceback" not in ran.err
    shown(ran)


@pytest.mark.long
def test_every_command_shows_hostile_words() -> None:
    """Else an error or a usage message would act on what it quotes."""
    for path in commands():
        for arguments in ((HOSTILE,), (f"--{HOSTILE}",), ("--output", HOSTILE), ("--at", HOSTILE, HOSTILE)):
            if path[0] not in ("archive", "restore", "backup", "restore-db", "simulate", "completion"):
                shown(ledger(*path, *arguments))


def test_names_of_fields_and_files_are_shown(home: Path) -> None:
    """Else the name of a field could do what its value cannot."""
    ran = ledger("publish", "-", stdin=json.dumps(coupon_event("created", "e", **{HOSTILE: 1})).encode())
    assert r"\u202egpj\u2066" in shown(ran)
    assert r"\u202egpj\u2066" in shown(ledger("publish", f"gone-{HOSTILE}"))


# ── Spreadsheets ─────────────────────────────────────────────────────────────────────────────────────────────

FORMULAS: Final = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1")


@pytest.fixture(scope="module")
def formulas(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A database whose ids are formulas."""
    folder = tmp_path_factory.mktemp("formulas")
    at = ("--log", f"sqlite:///{folder / 'log.db'}")
    database = ("--database", str(folder / "db.duckdb"))
    done("init", *at, *database)
    costs = {"type": "cost_booked", "cost_kind": "media", "amount_minor": -5, "currency": "CNY"}
    cost = {"topic": CAMPAIGN, "event_id": "c", "source": "s", "occurred_at": "2026-11-11T00:00:00Z"} | costs
    coupons = (coupon_event("created", text, coupon_id=text, campaign_id=text) for text in FORMULAS)
    done("publish", "-", *at, stdin=ndjson([*coupons, cost | {"campaign_id": "=k"}]))
    done("consume", *at, *database)
    return database


@pytest.mark.long
def test_csv_for_spreadsheets_calculates_nothing(formulas: tuple[str, ...]) -> None:
    """Else opening an export would run what an attacker wrote into an id."""
    raw = done("coupons", "--output", "csv", "--for-excel", *formulas).raw
    assert raw.startswith(b"\xef\xbb\xbf") and raw.count(b"\xef\xbb\xbf") == 1
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert {row["coupon"] for row in rows} == {f"'{text}" for text in FORMULAS if text != "\r=1"} | {r"\r=1"}
    plain = list(csv.DictReader(io.StringIO(done("coupons", "--output", "csv", *formulas).raw.decode(), newline="")))
    assert {row["coupon_id"] for row in plain} == set(FORMULAS)


def test_csv_for_spreadsheets_shows_hostile_data(home: Path) -> None:
    """Else what hides on no terminal would hide, or steer, in the cells of an export."""
    asked = ("coupons", "--all", "--output", "csv")
    text = done(*asked, "--for-excel").raw.decode("utf-8-sig")
    assert not hidden(text)
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert row["coupon"] == visible(HOSTILE)
    [row] = csv.DictReader(io.StringIO(done(*asked).raw.decode(), newline=""))
    assert row["coupon_id"] == HOSTILE


def test_a_cell_of_a_spreadsheet_has_no_bold_of_its_own() -> None:
    """Else an escape that the command itself uses would pass through a cell, as would what stands before a formula."""
    from coupon_ledger.cli.output import _spreadsheet_cell

    texts = ("\x1b[1mx\x1b[0m", "a\x00\x1bb", "\ufeff=1", "\x00=1", "=\x00", "a\tb\nc")
    shown = [r"\u001b[1mx\u001b[0m", r"a\u0000\u001bb", r"\ufeff=1", r"\u0000=1", r"'=\u0000", "a\tb\nc"]
    assert [_spreadsheet_cell(text) for text in texts] == shown


def test_numbers_below_zero_stay_numbers_for_spreadsheets() -> None:
    """Else sums over an export would leave them out."""
    from coupon_ledger.cli.output import _csv_cell, _spreadsheet_cell

    values = (-5, -0.5, Decimal("-12.50"), "-5", None)
    assert [_spreadsheet_cell(_csv_cell(value)) for value in values] == [-5, -0.5, Decimal("-12.50"), "'-5", ""]


def test_a_spreadsheet_has_labels_and_major_units() -> None:
    """Finance would read cents as yuan, and look names like face_value_minor up in a manual."""
    from coupon_ledger.cli.tables import spreadsheet_row

    row = {"campaign_id": "k", "currency": "JPY", "lost_minor": -1234, "cases": 2}
    assert spreadsheet_row(row) == {"campaign": "k", "currency": "JPY", "lost": Decimal(-1234), "cases": 2}
    assert spreadsheet_row(row | {"currency": "KWD"})["lost"] == Decimal("-1.234")
    assert spreadsheet_row(row | {"currency": None})["lost"] == -1234


def test_for_excel_is_of_csv() -> None:
    """Else it would be taken, and do nothing."""
    for order in (("--for-excel", "--output", "json"), ("--output", "table", "--for-excel"), ("--for-excel",)):
        one_sentence(ledger("coupons", *order), 2, "--for-excel", "--output csv")


# ── Files that cannot be written yet ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["x.pdf", "x.xlsx", "x.docx", "x.PDF"])
def test_a_review_is_not_written_under_a_name_of_something_else(home: Path, name: str) -> None:
    """Else a file would open as broken."""
    one_sentence(ledger("review", HOSTILE, "--to", name), 2, f"file {name}", "cannot be written as", ".html")
    one_sentence(ledger("coupons", "--to", name), 2, f"file {name}", "Parquet")
    assert not (home / name).exists()
