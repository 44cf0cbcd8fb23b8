"""`schemas check`: what it lets pass, old readers and old data can live with; what it refuses, it names."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger import schemas
from coupon_ledger.ledger import codec
from coupon_ledger.ledger.codec import encode_row
from coupon_ledger.ledger.columns import decode_columns, polars_schema
from coupon_ledger.ledger.compatibility import check_schemas
from tests.command_line import done, ledger
from tests.examples import examples
from tests.wire import rich_row

Schema = dict[str, Any]
Change = Callable[[Schema], object]

NEW = {"name": "of_tomorrow", "type": ["null", "string"], "default": None, "doc": "Not yet there."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working copy of the schemas, to be changed."""
    return Path(shutil.copytree(Path(schemas.__file__).parent, tmp_path / "schemas"))


def changed(folder: Path, name: str, change: Change, version: int | None = None) -> None:
    file = folder / (f"{name}.avsc" if version is None else f"released/{name}/v{version}.avsc")
    schema = json.loads(file.read_text(encoding="utf-8"))
    change(schema)
    file.write_text(json.dumps(schema), encoding="utf-8")


def field(schema: Schema, name: str) -> Schema:
    found: Schema = next(f for f in schema["fields"] if f["name"] == name)
    return found


def rules(folder: Path) -> set[tuple[str, str]]:
    return {(b.rule, b.field) for b in check_schemas(folder)[1]}


def symbols(schema: Schema) -> list[str]:
    found: list[str] = field(schema, "type")["type"]["symbols"]
    return found


def since(schema: Schema, **versions: int) -> None:
    field(schema, "type")["type"]["since"] = versions


def with_symbol(at: int, version: int) -> Change:
    """The type `shipped` at that place, said to have come with that version."""

    def change(schema: Schema) -> None:
        symbols(schema).insert(at, "shipped")
        since(schema, shipped=version)

    return change


REFUSED: dict[str, tuple[str, Change, tuple[str, str]]] = {
    "a field removed": ("coupon_event", lambda s: s["fields"].remove(field(s, "ip")), ("removed", "ip")),
    "a field renamed": ("coupon_event", lambda s: field(s, "ip").update(name="address"), ("removed", "ip")),
    "a type changed": ("coupon_event", lambda s: field(s, "reason").update(type=["null", "long"]), ("type", "reason")),
    "a type promoted": ("dead_letter", lambda s: field(s, "partition").update(type="long"), ("type", "partition")),
    "a field made nullable": (
        "coupon_event",
        lambda s: field(s, "source").update(type=["null", "string"], default=None),
        ("type", "source"),
    ),
    "an instant made a number": (
        "coupon_event",
        lambda s: field(s, "valid_from").update(type=["null", "long"]),
        ("type", "valid_from"),
    ),
    "a new field without null": (
        "coupon_event",
        lambda s: s["fields"].append({"name": "of_tomorrow", "type": "string", "default": "", "doc": "Not yet there."}),
        ("new_field", "of_tomorrow"),
    ),
    "a new nullable field without default": (
        "coupon_event",
        lambda s: s["fields"].append({k: v for k, v in NEW.items() if k != "default"}),
        ("new_field", "of_tomorrow"),
    ),
    "a new field in front": ("coupon_event", lambda s: s["fields"].insert(5, NEW), ("order", "")),
    "fields in another order": ("coupon_event", lambda s: s["fields"].reverse(), ("order", "")),
    "a default changed": ("coupon_event", lambda s: field(s, "ip").pop("default"), ("default", "ip")),
    "a symbol added": ("order_event", lambda s: symbols(s).append("shipped"), ("symbols", "type")),
    "a symbol added between others": (
        "order_event",
        with_symbol(1, version=2),
        ("symbols", "type"),
    ),
    "a symbol that says another version": (
        "order_event",
        with_symbol(4, version=3),
        ("since", "type"),
    ),
    "a symbol that says a version in which it was not": (
        "coupon_event",
        lambda s: since(s, extended=2),
        ("since", "type"),
    ),
    "a symbol that says none any more": (
        "coupon_event",
        lambda s: field(s, "type")["type"].pop("since"),
        ("symbols", "type"),
    ),
    "a symbol removed": ("order_event", lambda s: symbols(s).remove("refunded"), ("symbols", "type")),
    "symbols in another order": ("order_event", lambda s: symbols(s).reverse(), ("symbols", "type")),
    "a field added to the record of a list": (
        "order_event",
        lambda s: field(s, "lines")["type"][1]["items"]["fields"].append(NEW),
        ("inner_record", "lines"),
    ),
    "a field without doc": ("coupon_event", lambda s: field(s, "code").pop("doc"), ("doc", "code")),
    "an inner field without doc": (
        "order_event",
        lambda s: field(s, "lines")["type"][1]["items"]["fields"][0].pop("doc"),
        ("doc", "lines.sku"),
    ),
    "a type that the codec cannot read": (
        "coupon_event",
        lambda s: s["fields"].append({**NEW, "type": ["null", {"type": "map", "values": "string"}]}),
        ("codec", "of_tomorrow"),
    ),
    "another record name": ("user_event", lambda s: s.update(name="person_event"), ("name", "")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_change_that_breaks_old_readers_or_old_data_is_refused(folder: Path, case: str) -> None:
    """It would be found out by a reader that stops, or by numbers that are silently gone."""
    name, change, breach = REFUSED[case]
    assert not rules(folder)
    changed(folder, name, change)
    assert breach in rules(folder)


def test_a_new_nullable_field_at_the_end_and_other_words_may_come(folder: Path) -> None:
    """Else the schemas could never grow."""
    changed(folder, "coupon_event", lambda s: (s["fields"].append(NEW), field(s, "ip").update(doc="Where from.")))
    checked, breaches = check_schemas(folder)
    assert not breaches
    assert {c.name for c in checked if c.adds} == {"coupon_event"}


def test_a_symbol_behind_the_others_may_come_with_its_version_and_the_recipe_is_said(folder: Path) -> None:
    """Else a new kind of event could never come, or would come while consumers cannot read it."""
    changed(folder, "order_event", with_symbol(4, version=2))
    checked, breaches = check_schemas(folder)
    assert not breaches
    assert {c.name: c.new_symbols for c in checked if c.new_symbols} == {"order_event": ("shipped",)}
    ran = done("schemas", "check", folder)
    assert "order_event: readers of v1 and before do not know shipped; update every consumer before" in ran.err
    assert not done("schemas", "check").err, "what is released is no news"


def test_released_files_are_never_edited(folder: Path) -> None:
    """Old messages would be read with another schema than they were written with."""
    changed(folder, "user_event", lambda s: s.update(doc="Other words."), version=1)
    (folder / "released/order_event/v1.avsc").rename(folder / "released/order_event/v3.avsc")
    shutil.rmtree(folder / "released/dead_letter")
    words = [str(b) for b in check_schemas(folder)[1]]
    assert any("user_event: released/user_event/v1.avsc was edited" in w for w in words)
    assert any("released/order_event/v1.avsc is gone" in w for w in words)
    assert any("released/order_event/v3.avsc has no recorded fingerprint" in w and "sha256sum" in w for w in words)
    assert any("order_event: there are v3" in w for w in words)
    assert any("released/dead_letter/v1.avsc is gone" in w for w in words)


def test_a_record_that_was_released_stays(folder: Path) -> None:
    (folder / "user_event.avsc").unlink()
    assert ("kept", "") in rules(folder)


def test_the_command_names_record_field_rule_and_remedy_and_ends_with_3(folder: Path) -> None:
    """`make lint` must stop, and whoever reads it must know what to do."""
    assert done("schemas", "check", "--output", "ndjson").rows
    changed(folder, "coupon_event", lambda s: s["fields"].remove(field(s, "ip")))
    ran = ledger("schemas", "check", folder)
    assert ran.code == 3
    assert "coupon_event.ip: is gone since v1" in ran.err
    assert "[removed]; put it back" in ran.err
    ran = ledger("schemas", "check", folder, "--output", "json")
    assert (ran.code, [(b["record"], b["field"], b["rule"]) for b in ran.json]) == (
        3,
        [("coupon_event", "ip", "removed")],
    )
    (folder / "user_event.avsc").write_text("{")
    ran = ledger("schemas", "check", folder)
    assert ran.code == 3
    assert "user_event.avsc: not JSON" in ran.err


def test_schemas_are_listed_and_shown() -> None:
    """An engineer of another team takes them from here."""
    assert {r["schema"] for r in done("schemas", "list", "--output", "ndjson").rows} == set(schemas.NAMES)
    for version in ((), ("--version", "1")):
        assert done("schemas", "show", "order_event", *version).json["name"] == "order_event"
    assert ledger("schemas", "show", "order_event", "--version", "99").code == 2


# ── Held to Apache Avro, and to the codec ────────────────────────────────────────────────────────────────────

_KINDS = st.sampled_from(
    [
        "string",
        "long",
        "int",
        ["null", "string"],
        ["null", "long"],
        ["null", {"type": "array", "items": "string"}],
        {"type": "long", "logicalType": "timestamp-micros"},
        {"type": "enum", "name": "order_event_type", "symbols": ["placed", "paid"]},
        {"type": "enum", "name": "order_event_type", "symbols": ["placed", "paid", "cancelled", "refunded", "more"]},
    ]
)


@st.composite
def _changes(draw: st.DrawFn) -> Schema:
    """The order schema after one to three random changes: fields away, elsewhere, of another type, new."""
    schema = copy.deepcopy(schemas.current("order_event"))
    for _ in range(draw(st.integers(1, 3))):
        fields = schema["fields"]
        at = draw(st.integers(0, len(fields) - 1))
        match draw(st.sampled_from(["remove", "move", "retype", "add", "append", "default", "inner"])):
            case "remove":
                del fields[at]
            case "move":
                fields.insert(draw(st.integers(0, len(fields) - 1)), fields.pop(at))
            case "retype":
                fields[at]["type"] = draw(_KINDS)
            case "default":
                fields[at]["default"] = None
            case "inner":
                for f in fields:
                    if f["name"] in ("lines", "discounts") and isinstance(f["type"], list) and len(f["type"]) == 2:
                        inner = f["type"][1]
                        if isinstance(inner, dict) and isinstance(inner.get("items"), dict):
                            inner["items"]["fields"].append(copy.deepcopy(NEW))
            case how:
                names = {f"new_{n}" for n in range(6)} - {f["name"] for f in fields}
                new: Schema = {"name": draw(st.sampled_from(sorted(names))), "type": draw(_KINDS), "doc": "New."}
                if draw(st.booleans()):
                    new["default"] = None
                fields.insert(at if how == "add" else len(fields), new)
    return schema


def _avro_allows(one: Schema, other: Schema) -> bool:
    compatible = SchemaCompatibilityType.compatible
    readers = [(one, other), (other, one)]
    return all(
        ReaderWriterCompatibilityChecker().get_compatibility(parse(json.dumps(r)), parse(json.dumps(w))).compatibility
        == compatible
        for r, w in readers
    )


@pytest.mark.long
@given(schema=_changes())
@examples(75)
def test_what_passes_is_compatible_both_ways_by_avros_own_rules(
    tmp_path_factory: pytest.TempPathFactory, schema: Schema
) -> None:
    """Readers that are not ours follow Avro's resolution, as Apache's library does."""
    folder = tmp_path_factory.getbasetemp() / "proposal"
    if not folder.exists():
        shutil.copytree(Path(schemas.__file__).parent, folder)
    (folder / "order_event.avsc").write_text(json.dumps(schema), encoding="utf-8")
    if not check_schemas(folder)[1]:
        assert _avro_allows(schema, schemas.released("order_event")[0])


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Schema]:
    """The coupon schema with a field that may come, as the current one."""
    grown = copy.deepcopy(schemas.current("coupon_event"))
    grown["fields"].append(NEW)
    caches = (codec.writer_schemas, codec.current_writer, codec._fields, codec._names, codec._readers, polars_schema)
    before = schemas.current

    def clear() -> None:
        for cached in caches:
            cached.cache_clear()

    clear()
    monkeypatch.setattr(schemas, "current", lambda name: grown if name == "coupon_event" else before(name))
    yield grown
    monkeypatch.undo()
    clear()


def test_the_codec_reads_old_and_new_messages_of_a_schema_that_grew(grown: Schema) -> None:
    """Else a legal change would still lose the year that lies in the log."""
    row = rich_row("coupon_event")
    new = encode_row("coupon_event", row)
    old = codec.single_object_header(schemas.released("coupon_event")[-1]) + new[10:].removesuffix(
        bytes([2]) + codec.varint(len(row["of_tomorrow"].encode())) + row["of_tomorrow"].encode()
    )
    [decoded], bad = decode_columns([old, new])
    assert not bad
    assert decoded.frame["of_tomorrow"].to_list() == [None, row["of_tomorrow"]]
    assert decoded.frame["coupon_id"].to_list() == [row["coupon_id"]] * 2
