"""Checks that schema changes are compatible with old readers and old data.

Every current schema is compared with each of its released versions. A schema that passes is compatible both ways by
Avro's schema resolution: it reads what any released version wrote (BACKWARD), and any released version reads what it
writes (FORWARD). The rules are stricter than Avro's, since events are never rewritten:

- a released field keeps its name, type, default and place;
- a new field comes after the released ones, is nullable and defaults to null, so that messages without it can be read;
- an enum keeps its symbols and their order. New symbols may only be added at the end. Old readers do not know them, so
  the enum names the version that introduced each one (`"since": {"extended": 3}`), and consumers are updated before
  producers. To a consumer that is not updated yet, messages written with the new schema are dead letters, which are
  replayed after its update;
- a record inside a field keeps exactly its fields, since old readers know no others;
- a field has a doc, and a type that the ledger's own codec can read;
- a released file is never edited: `released/SHA256SUMS` (in the format of `sha256sum`) lists the SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, Final

from coupon_ledger import schemas
from coupon_ledger.ledger.errors import IncompatibleSchema

Schema = dict[str, Any]

SUMS: Final = "SHA256SUMS"
_VERSION: Final = re.compile(r"v([1-9][0-9]*)\.avsc")
_PLAIN: Final = ("string", "bytes", "long", "int")
_INSTANT: Final = {"type": "long", "logicalType": "timestamp-micros"}
_MAX_SYMBOL_BYTES: Final = 12
"""The longest symbol that the columnar codec can hold."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that a schema breaks. `record`: the name of the schema. `field`: the path of the field (`lines.sku`);
    empty if the whole record or file breaks the rule. `rule`: the rule's short name."""

    record: str
    field: str
    rule: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.record}.{self.field}" if self.field else self.record
        return f"{place}: {self.problem} [{self.rule}]; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A schema that was compared with its released versions. `released`: how many there are. `adds`: whether the
    current schema differs from the last released version. `new_symbols`: enum symbols that are not released yet."""

    name: str
    released: int
    adds: bool
    new_symbols: tuple[str, ...] = ()


def check_schemas(folder: Traversable) -> tuple[list[Checked], list[Breach]]:
    """Compare every `<name>.avsc` in `folder` with its released versions, `released/<name>/v<N>.avsc`.

    Returns the schemas that were compared, and all breaches of the rules.
    Raises `IncompatibleSchema` for a file that is not a JSON object.
    """
    released = folder.joinpath("released")
    breaches_found = list(_files(released))
    checked = []
    names = {f.name.removesuffix(".avsc") for f in folder.iterdir() if f.name.endswith(".avsc")}
    for name in sorted(names | set(_released_names(released))):
        if name not in names:
            breaches_found.append(
                Breach(name, "", "kept", "was released and its current schema is gone", f"restore {name}.avsc")
            )
            continue
        current = read_schema(folder.joinpath(f"{name}.avsc"))
        versions = {n: read_schema(f) for n, f in sorted(_versions(released.joinpath(name)).items())}
        first: dict[tuple[str, str], Breach] = {}  # one per field and rule, even if several versions show it
        for breach in _record(name, current, versions):
            first.setdefault((breach.field, breach.rule), breach)
        breaches_found += first.values()
        adds = not versions or _shape(current) != _shape(versions[max(versions)])
        known = {symbol for old in versions.values() for _, enum in _enums(old) for symbol in enum["symbols"]}
        fresh = [symbol for _, enum in _enums(current) for symbol in enum["symbols"] if symbol not in known]
        checked.append(Checked(name, len(versions), adds, tuple(fresh) if versions else ()))
    return checked, breaches_found


def breaches(name: str, newer: Schema, older: Schema) -> Iterator[Breach]:
    """The rules that `newer` would break if it were released as the next version after `older`. `name`: the name of the
    schema."""
    yield from _record(name, newer, {len(schemas.released(name)): older})


def read_schema(file: Traversable) -> Schema:
    """Read a schema file. Raises `IncompatibleSchema` unless it is a JSON object with fields."""
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IncompatibleSchema(f"schema {file.name}: not JSON ({error}); mend that line") from error
    if not isinstance(schema, dict) or not isinstance(schema.get("fields"), list):
        raise IncompatibleSchema(f"schema {file.name}: not an Avro record; give it a name and fields")
    return schema


def _released_names(released: Traversable) -> list[str]:
    return [f.name for f in released.iterdir() if f.is_dir()] if released.is_dir() else []


def _versions(folder: Traversable) -> dict[int, Traversable]:
    if not folder.is_dir():
        return {}
    return {int(m[1]): f for f in folder.iterdir() if (m := _VERSION.fullmatch(f.name))}


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────


def _files(released: Traversable) -> Iterator[Breach]:
    """Compare each released file with its SHA-256 in `SHA256SUMS`, and check that versions are numbered without
    gaps."""
    recorded = _recorded(released)
    digests = {
        f"{name}/v{version}.avsc": hashlib.sha256(file.read_bytes()).hexdigest()
        for name in _released_names(released)
        for version, file in _versions(released.joinpath(name)).items()
    }
    for path in sorted(recorded.keys() | digests.keys()):
        name, place = path.partition("/")[0], f"released/{path}"
        if path not in digests:
            yield Breach(name, "", "released", f"{place} is gone", "restore it: old messages are read with it")
        elif path not in recorded:
            yield Breach(
                name,
                "",
                "released",
                f"{place} has no recorded fingerprint",
                f"in released/ run: sha256sum {path} >> {SUMS}",
            )
        elif digests[path] != recorded[path]:
            yield Breach(
                name, "", "released", f"{place} was edited", f"restore it, and make the change in {name}.avsc alone"
            )
    for name in _released_names(released):
        numbers = sorted(_versions(released.joinpath(name)))
        if numbers != list(range(1, len(numbers) + 1)):
            words = ", ".join(f"v{n}" for n in numbers)
            yield Breach(name, "", "released", f"there are {words}", "number released versions from v1, without gaps")


def _recorded(released: Traversable) -> dict[str, str]:
    file = released.joinpath(SUMS)
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {path: digest for digest, path in (line.split() for line in lines if line.strip())}


# ── Schemas ──────────────────────────────────────────────────────────────────────────────────────────────────


def _record(name: str, current: Schema, versions: dict[int, Schema]) -> Iterator[Breach]:
    yield from _fields_alone(name, current, "")
    for version, old in versions.items():
        if _full_name(old) != _full_name(current):
            yield Breach(
                name,
                "",
                "name",
                f"is called {_full_name(current)}, and v{version} {_full_name(old)}",
                "keep the name: readers resolve a record by it",
            )
        yield from _against(name, current, version, old)
    yield from _since(name, current, versions)
    before = {f["name"] for old in versions.values() for f in old["fields"]}
    for field in current["fields"] if versions else []:
        if field["name"] not in before and not _may_be_absent(field):
            yield Breach(
                name,
                field["name"],
                "new_field",
                "is new, and old data has no value for it",
                'give it the type ["null", …] and "default": null',
            )


def _enums(record: Schema) -> Iterator[tuple[str, Schema]]:
    """The record's fields that are enums: the name and the enum of each."""
    for field in record["fields"]:
        kind = field.get("type")
        kind = kind[1] if isinstance(kind, list) and len(kind) == 2 else kind
        if _is(kind, "enum") and isinstance(kind.get("symbols"), list):
            yield field["name"], kind


def _since(name: str, current: Schema, versions: dict[int, Schema]) -> Iterator[Breach]:
    """Check the `since` of each enum symbol: it must name the first version that has the symbol."""
    for path, enum in _enums(current):
        versions_by_symbol = enum.get("since", {})
        for symbol, since in versions_by_symbol.items() if isinstance(versions_by_symbol, dict) else ():
            holding = [
                n for n, old in versions.items() if symbol in dict(_enums(old)).get(path, {"symbols": ()})["symbols"]
            ]
            first = min(holding, default=max(versions, default=0) + 1)
            if since != first:
                yield Breach(
                    name,
                    path,
                    "since",
                    f"says that {symbol} came with version {since}; it is v{first}",
                    f'write "since": {{"{symbol}": {first}}}',
                )


def _full_name(schema: Schema) -> str:
    return f"{schema.get('namespace', '')}.{schema.get('name')}"


def _may_be_absent(field: Schema) -> bool:
    kind = field["type"]
    return isinstance(kind, list) and kind[:1] == ["null"] and "default" in field and field["default"] is None


def _against(name: str, current: Schema, version: int, old: Schema) -> Iterator[Breach]:
    """Compare the current record with its released version `version` (`old`), field by field."""
    now = {f["name"]: f for f in current["fields"]}
    for field in old["fields"]:
        path = field["name"]
        if path not in now:
            yield Breach(
                name,
                path,
                "removed",
                f"is gone since v{version}: old readers need it, and what old data holds would be lost",
                "put it back; a field that nobody writes any more stays, null",
            )
            continue
        yield from _kind(name, path, now[path]["type"], version, field["type"])
        if ("default" in field, field.get("default")) != ("default" in now[path], now[path].get("default")):
            yield Breach(
                name,
                path,
                "default",
                f"has another default than in v{version}: the same old data would read otherwise",
                "put the released default back",
            )
    kept = [f["name"] for f in old["fields"] if f["name"] in now]
    if [f["name"] for f in current["fields"]][: len(kept)] != kept and kept == [f["name"] for f in old["fields"]]:
        yield Breach(
            name,
            "",
            "order",
            f"the fields of v{version} do not stand first and in their order: whoever reads by position would read"
            " others",
            f"begin with {', '.join(kept)}",
        )


def _kind(name: str, path: str, now: Any, version: int, old: Any) -> Iterator[Breach]:
    """Compare the current type of a field (`now`) with its type in the released version `version` (`old`)."""
    if _is(now, "enum") and _is(old, "enum"):
        if not _adds_symbols(now, old, version) or now.get("default") != old.get("default"):
            yield Breach(name, path, "symbols", *_symbols(now["symbols"], old["symbols"], version))
        if now["name"] != old["name"]:
            yield _changed_type(name, path, now["name"], version, old["name"])
    elif _is(now, "record") and _is(old, "record"):
        if _shape(now) != _shape(old):
            yield Breach(
                name,
                path,
                "inner_record",
                f"holds a record of other fields than in v{version}: old readers and the columns that hold it know only"
                " those",
                "put the released record back, and carry what is new in a nullable field beside it",
            )
    elif _is(now, "array") and _is(old, "array"):
        yield from _kind(name, path, now["items"], version, old["items"])
    elif isinstance(now, list) and isinstance(old, list) and len(now) == len(old) == 2 and now[0] == old[0]:
        yield from _kind(name, path, now[1], version, old[1])
    elif _shape(now) != _shape(old):
        yield _changed_type(name, path, _in_words(now), version, _in_words(old))


def _adds_symbols(now: Schema, old: Schema, version: int) -> bool:
    """Whether the enum `now` keeps all symbols of `old`, its released version `version`, and adds only symbols at the
    end whose `since` is a later version."""
    since = now.get("since", {})
    added = now["symbols"][len(old["symbols"]) :]
    return bool(now["symbols"][: len(old["symbols"])] == old["symbols"]) and all(
        isinstance(since, dict) and isinstance(since.get(s), int) and since[s] > version for s in added
    )


def _symbols(now: list[str], old: list[str], version: int) -> tuple[str, str]:
    added = [s for s in now if s not in old]
    removed = [s for s in old if s not in now]
    if removed:
        return f"lacks {', '.join(removed)} of v{version}: old data holds it", "put it back"
    if added:
        return (
            f"has {', '.join(added)}, which v{version} has not: old readers stop at a symbol that they do not know",
            "carry it in a new nullable field; or put it behind the others, name the version that it comes with in the"
            ' enum ("since": {"'
            + added[0]
            + '": N}), and update consumers before producers (docs/schema-evolution.md)',
        )
    return f"has other symbols, another order of them, or another default than in v{version}", "put the enum back"


def _changed_type(name: str, path: str, now: str, version: int, old: str) -> Breach:
    return Breach(
        name,
        path,
        "type",
        f"is {now}, and was {old} in v{version}: one of old readers and old data cannot be read as the other",
        "put the type back, and carry the new one in a new nullable field",
    )


def _is(kind: Any, what: str) -> bool:
    return isinstance(kind, dict) and kind.get("type") == what


def _in_words(kind: Any) -> str:
    if isinstance(kind, list):
        return " or ".join(map(_in_words, kind))
    if not isinstance(kind, dict):
        return str(kind)
    return str(kind.get("logicalType") or kind.get("type"))


def _shape(kind: Any) -> Any:
    """The type `kind` without docs and `since`, since these do not affect what can be read."""
    if isinstance(kind, list):
        return [_shape(k) for k in kind]
    if isinstance(kind, dict):
        return {k: _shape(v) for k, v in kind.items() if k not in ("doc", "since")}
    return kind


def _fields_alone(name: str, record: Schema, path: str) -> Iterator[Breach]:
    """Check each field of the record by itself, without earlier versions. Includes the fields of records inside fields.
    `path`: the path of the record, with which the fields' paths begin."""
    for field in record["fields"]:
        at = path + str(field.get("name"))
        if not field.get("doc"):
            yield Breach(name, at, "doc", "has no doc", "say what it means, and its unit")
        yield from _readable(name, at, field.get("type"))


def _readable(name: str, path: str, kind: Any) -> Iterator[Breach]:
    """Check that both codecs (`codec.py` and `columns.py`) can read the type."""
    if isinstance(kind, list) and len(kind) == 2 and kind[0] == "null" and not isinstance(kind[1], list):
        yield from _readable(name, path, kind[1])
    elif _is(kind, "array") and "items" in kind:
        yield from _readable(name, path, kind["items"])
    elif _is(kind, "record") and isinstance(kind.get("fields"), list):
        yield from _fields_alone(name, kind, f"{path}.")
    elif _is(kind, "enum") and isinstance(kind.get("symbols"), list):
        long = [s for s in kind["symbols"] if len(s.encode()) > _MAX_SYMBOL_BYTES]
        if long:
            yield Breach(
                name,
                path,
                "codec",
                f"has the symbol {long[0]}, and the codec reads up to {_MAX_SYMBOL_BYTES} bytes of one",
                "shorten it",
            )
    elif kind not in (*_PLAIN, _INSTANT):
        yield Breach(
            name,
            path,
            "codec",
            f"is {_in_words(kind)}, which the ledger's codec does not read",
            'use string, long, timestamp-micros, an enum, a record, an array of them, or ["null", T]',
        )
