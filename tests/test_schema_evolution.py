"""Events written by any released schema are read for ever, and those of a newer one as far as this release knows it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from coupon_ledger import schemas
from coupon_ledger.ledger import codec, upcasting
from coupon_ledger.ledger.codec import decode, encode_row, single_object_header
from coupon_ledger.ledger.columns import decode_columns
from coupon_ledger.ledger.errors import SettingsError
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.ledger.validity import valid_events
from tests.command_line import Data, coupon_event, done, facts, ledger, ndjson, one_sentence, opened_log
from tests.golden_bytes import VERSIONS, golden
from tests.wire import rich_row

FACTS_AT_VERSION_1 = "0ccc7b1151071e0f68e0fc074dad7ce0"
V1 = [g.message for g in golden("coupon_event", 1)]


VALID: Data = {
    **dict.fromkeys(("percent_off_bp", "face_value_minor", "min_spend_minor", "discount_minor"), 1),
    **{"event_id": "e-9", "type": "issued", "channel": "app", "currency": "CNY", "coupon_type": "cash"},
}


def by_version(row: Data, version: int) -> bytes:
    """What later versions have behind it is null."""
    schema = schemas.released("coupon_event")[version - 1]
    later = len(schemas.current("coupon_event")["fields"]) - len(schema["fields"])
    common = {"occurred_at": 0, "source": "shop", "coupon_id": "c-1"}
    return single_object_header(schema) + encode_row("coupon_event", common | row)[10:].removesuffix(bytes(later))


def by_version_1(row: Data) -> bytes:
    return by_version(row, 1)


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_golden_bytes_of_every_released_version_are_read_by_rows_and_by_columns(name: str, version: int) -> None:
    """Else a year that lies in the log would be lost to a release."""
    found = golden(name, version)
    wanted = [dict.fromkeys(f["name"] for f in schemas.current(name)["fields"]) | g.row for g in found]
    assert [decode(g.message)[1] for g in found] == wanted
    [decoded], bad = decode_columns([g.message for g in found])
    assert (decoded.frame.to_dicts(), bad) == (wanted, [])
    assert {decode(g.message)[0].version for g in found} == {version}


@pytest.mark.parametrize("name", schemas.NAMES)
def test_the_current_schema_is_written_as_its_golden_bytes(name: str) -> None:
    """Else older releases and other languages would read something else."""
    for each in golden(name, len(schemas.released(name))):
        assert encode_row(name, each.row) == each.message


@pytest.mark.long
def test_a_log_of_both_versions_is_folded_and_a_field_of_the_second_is_shown(home: Path) -> None:
    done("init", "--partitions", "1")
    created = {"event_id": "e-1", "type": "created", "occurred_at": 0, "source": "shop", "coupon_id": "c-1"}
    message = by_version_1({**created, "campaign_id": "k", "coupon_type": "cash"})
    log = opened_log()
    log.append([Record(COUPON, b"c-1", message)])
    log.close()
    done("publish", "-", stdin=ndjson([coupon_event("issued", "e-2", store="上海 1")]))
    done("consume")
    history: list[Data] = done("history", "c-1", "--output", "ndjson").rows
    assert [(e["type"], e["data"].get("store")) for e in history] == [("created", None), ("issued", "上海 1")]


@pytest.mark.slow
def test_the_same_facts_have_the_digest_that_they_had_before_the_field_came(home: Path) -> None:
    """Else every schema that grows would make all comparisons with the time before worthless."""
    done("init")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1"), coupon_event("issued", "e-2")]))
    done("consume")
    assert facts() == FACTS_AT_VERSION_1
    done("publish", "-", stdin=ndjson([coupon_event("claimed", "e-3", store="s-1")]))
    done("consume")
    other = facts()
    done("init", "--database", "other.duckdb", "--log", "sqlite:///other.log.db")
    events = [coupon_event("created", "e-1"), coupon_event("issued", "e-2"), coupon_event("claimed", "e-3")]
    done("publish", "-", "--log", "sqlite:///other.log.db", stdin=ndjson(events))
    done("consume", "--database", "other.duckdb", "--log", "sqlite:///other.log.db")
    assert facts("other.duckdb") != other


# ── What only a newer writer knows ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def newer(home: Path) -> Iterator[Path]:
    """A folder with the coupon schema as a newer release may have it."""
    grown = copy.deepcopy(schemas.current("coupon_event"))
    grown["fields"].append(
        {"name": "of_tomorrow", "type": ["null", "string"], "default": None, "doc": "Not yet there."}
    )
    folder = home / "newer"
    folder.mkdir()
    (folder / "coupon_event.avsc").write_text(json.dumps(grown), encoding="utf-8")
    before = dict(codec.writer_schemas())
    yield folder
    codec.writer_schemas.cache_clear()
    assert dict(codec.writer_schemas()) == before


def message_of(folder: Path, row: Data, of_tomorrow: str) -> bytes:
    schema = json.loads((folder / "coupon_event.avsc").read_text(encoding="utf-8"))
    written = b"\x02" + codec.varint(len(of_tomorrow)) + of_tomorrow.encode()
    return single_object_header(schema) + encode_row("coupon_event", row)[10:] + written


@pytest.mark.slow
def test_a_newer_writers_unknown_fields_are_left_out(newer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else producers could only go forward after every consumer has."""
    done("init", "--partitions", "1")
    row = {
        "event_id": "e-1",
        "type": "issued",
        "occurred_at": 0,
        "source": "shop",
        "coupon_id": "c-1",
        "channel": "app",
    }
    log = opened_log()
    log.append([Record(COUPON, b"c-1", message_of(newer, row, "till 7"))])
    log.close()
    done("consume")
    assert done("status", "--output", "json").json["dead_letters"] == 1, "nothing says what that fingerprint means"
    monkeypatch.setenv("COUPON_LEDGER_WRITER_SCHEMAS", str(newer))
    done("init", "--database", "again.duckdb")
    done("consume", "--database", "again.duckdb")
    [event] = done("history", "c-1", "--output", "ndjson", "--database", "again.duckdb").rows
    assert (event["type"], event["data"]) == ("issued", {"channel": "app"})


def test_rows_and_columns_leave_the_same_out(newer: Path) -> None:
    codec.know_writers(newer)
    row = rich_row("coupon_event")
    messages = [message_of(newer, row, "till 7"), encode_row("coupon_event", row), *V1]
    [decoded], bad = decode_columns([*messages, messages[0][:-1]])
    assert decoded.frame.to_dicts() == [decode(m)[1] for m in messages]
    assert [u.row for u in bad] == [len(messages)]
    assert decoded.frame.row(0) == decoded.frame.row(1)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["removed", "not nullable", "no JSON", "no folder"])
def test_a_schema_that_is_no_newer_version_of_ours_is_refused(
    newer: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Else its messages would be read as something that they are not."""
    done("init")
    file = newer / "coupon_event.avsc"
    schema = json.loads(file.read_text(encoding="utf-8"))
    if wrong == "removed":
        del schema["fields"][3]
    elif wrong == "not nullable":
        schema["fields"][-1]["type"] = "string"
    file.write_text("{" if wrong == "no JSON" else json.dumps(schema), encoding="utf-8")
    monkeypatch.setenv("COUPON_LEDGER_WRITER_SCHEMAS", str(newer / "gone" if wrong == "no folder" else newer))
    one_sentence(ledger("consume"), 2 if wrong == "no folder" else 3, "schema")


@pytest.mark.long
def test_an_older_reader_keeps_a_new_kind_of_event_and_replays_it_after_the_upgrade(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an event of a newer producer would be lost, or stop the consumer, until that is updated."""
    done("init", "--partitions", "1")
    done("publish", "-", stdin=ndjson([coupon_event("extended", "e-3", valid_until="2026-12-31T00:00:00Z")]))
    by_2 = by_version({"event_id": "e-1", "type": "created", "campaign_id": "k", "coupon_type": "cash"}, 2)
    log = opened_log()
    log.append([Record(COUPON, b"c-1", by_2)])
    log.close()
    newest = single_object_header(schemas.released("coupon_event")[2])
    known = codec.writer_schemas()[newest]
    with monkeypatch.context() as older:
        older.delitem(codec.writer_schemas(), newest)
        done("consume")
        [letter] = done("dead-letters", "list", "--output", "ndjson").rows
    assert letter["reason"] == "unknown_schema"
    assert newest[2:].hex() in letter["detail"] and "update this one" in letter["detail"]
    assert done("state", "c-1", "--output", "json").json["state"] == "created", "what it can read goes on"
    assert codec.writer_schemas()[newest] == known
    done("dead-letters", "replay", "--why", "v3 is deployed")
    coupon = done("state", "c-1", "--output", "json").json
    assert (coupon["state"], coupon["valid_until"]) == ("created", "2026-12-31T00:00:00.000000Z")
    assert not done("dead-letters", "list", "--output", "ndjson").rows


@pytest.fixture
def with_a_symbol(newer: Path) -> Path:
    """A folder with the coupon schema of a release that knows a further kind of event."""
    file = newer / "coupon_event.avsc"
    schema = json.loads(file.read_text(encoding="utf-8"))
    [kind] = (f["type"] for f in schema["fields"] if f["name"] == "type")
    kind["symbols"].append("merged")
    kind["since"]["merged"] = 4
    file.write_text(json.dumps(schema), encoding="utf-8")
    return newer


def test_a_newer_writers_unknown_kind_of_event_is_a_dead_letter_that_names_it(with_a_symbol: Path) -> None:
    """Else it would be folded as something that it is not, or take the events that are known with it."""
    codec.know_writers(with_a_symbol)
    issued = message_of(with_a_symbol, rich_row("coupon_event") | VALID, "till 7")
    number = len(codec.varint(len(str(VALID["event_id"])))) + len(str(VALID["event_id"]))
    assert issued[10 + number] == 2, "the symbol stands behind the id"
    merged = issued[: 10 + number] + codec.varint(10) + issued[11 + number :]
    found, dead = valid_events(COUPON, [issued, merged])
    assert found["row"].to_list() == [0]
    assert dead.keys() == {1} and dead[1][0] == "invalid_event"
    assert "type: 'merged' is none of created" in dead[1][1]


# ── Where a meaning changed ──────────────────────────────────────────────────────────────────────────────────


def test_a_changed_meaning_is_upcast_alike_by_rows_and_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the events of before would be folded as if they said what the same words say now."""

    def in_yuan() -> list[pl.Expr]:
        return [pl.col("face_value_minor") * 100, pl.concat_str(pl.lit("shop/"), "channel").alias("store")]

    plain = [decode(m)[1] for m in V1]
    monkeypatch.setitem(upcasting.MEANING, ("coupon_event", 1), in_yuan)
    small = encode_row("coupon_event", plain[0] | {"face_value_minor": 7})
    old = by_version_1(plain[0] | {"face_value_minor": 7})
    [decoded], bad = decode_columns([old, small, V1[1]])
    assert not bad
    assert decoded.frame.to_dicts() == [decode(m)[1] for m in (old, small, V1[1])]
    assert decoded.frame["face_value_minor"].to_list() == [700, 7, None]
    assert decoded.frame["store"].to_list() == [f"shop/{plain[0]['channel']}", None, None]
    assert decoded.frame["event_id"].to_list() == [plain[0]["event_id"]] * 2 + [plain[1]["event_id"]]


def test_a_file_of_a_newer_release_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer would end in an error of the system that names no setting."""
    (tmp_path / "coupon_event.avsc").write_text("{}")

    read = Path.read_text

    def denied(file: Path, encoding: str | None = None) -> str:
        if file.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return read(file, encoding)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(
        SettingsError, match=r"coupon_event\.avsc cannot be read \(Permission denied\); check its rights"
    ):
        codec.know_writers(tmp_path)
