"""Reads a YAML or TOML text as nodes that know where they stand.

YAML is read from the events of PyYAML's safe loader. Nothing in the text is constructed: every scalar stays text, so
that `code: [0123]` and `on` mean what they say; the models of rules give them their types. Anchors, aliases, tags and
repeated keys are refused. If the text of one entry of a list is broken, that entry is left out and the rest is read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

from coupon_ledger.ledger.words import Note, note

MOST_BYTES: Final = 1 << 20
_DEEPEST: Final = 20
_MOST_REPAIRS: Final = 50
_MOST_BACKWARDS: Final = 3
"""How often a fault may be before the last one, as a quote left open is. More often, one fault would take all down."""
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
UNPRINTABLE: Final = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""What YAML refuses, and what it would take for the end of a line."""
_BEGINS_ENTRY: Final = {"yaml": re.compile(r"( *)- +(?:\{|[\"']?\w+[\"']? *[:：])"), "toml": re.compile(r"( *)\[\[")}
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?")

Place = tuple[int, int]
"""Line and column, both from 1."""
Path = tuple[str | int, ...]
START: Final = (1, 1)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with the text itself."""

    place: Place
    said: Note


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place. `value`: a dict or list of nodes, a text, or None; from TOML also a number, a truth value
    or an instant. `keys`: the places of a dict's keys. `plain`: whether a text of YAML stands without quotes. `flawed`:
    whether it was written in a way that is refused."""

    value: Any
    place: Place
    keys: Mapping[str, Place] = field(default_factory=dict)
    plain: bool = False
    flawed: bool = False

    def data(self) -> Any:
        """The value as dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {name: node.data() for name, node in self.value.items()}
        return [node.data() for node in self.value] if isinstance(self.value, list) else self.value

    def typed(self) -> Any:
        """As `data`, but what stands without quotes and looks like a number or truth value is one."""
        if isinstance(self.value, dict):
            return {name: node.typed() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.typed() for node in self.value]
        return _typed(self.value) if self.plain else self.value

    def under(self, path: Sequence[str | int]) -> tuple[Node, Place]:
        """The node at the path, or the last one on the way to it; and the place to show: that of the node, or of the
        key if the path ends at one."""
        node, place = self, self.place
        for step in path:
            if isinstance(node.value, dict) and step in node.value:
                place = node.keys.get(str(step), node.place)
                node = node.value[step]
                if isinstance(node.value, dict | list):
                    continue
                place = node.place
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                place = node.place
            else:
                break
        return node, place

    def lines(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
        """The line of each field in this mapping and in the mappings below it, by path."""
        for name, node in self.value.items():
            yield (*path, name), self.keys.get(name, node.place)[0]
            if isinstance(node.value, dict):
                yield from node.lines((*path, name))

    def moved(self, place: Place) -> Node:
        """The node with everything in it at another place."""
        if isinstance(self.value, dict):
            return Node({n: v.moved(place) for n, v in self.value.items()}, place)
        if isinstance(self.value, list):
            return Node([v.moved(place) for v in self.value], place)
        return replace(self, place=place)

    def has_flaw(self) -> bool:
        inner = self.value.values() if isinstance(self.value, dict) else self.value
        return self.flawed or (isinstance(self.value, dict | list) and any(node.has_flaw() for node in inner))


def _typed(text: Any) -> Any:
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if isinstance(text, str) and _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text


class _Broken(Exception):
    def __init__(self, place: Place, said: Note) -> None:
        self.fault = Fault(place, said)


def read(text: str, syntax: str) -> tuple[Node | None, list[Fault]]:
    """The text's root node, None if it cannot be read; and all faults of the text. `syntax`: `yaml` or `toml`."""
    faults = [
        Fault(
            _place(text, match.start()), note("has the unprintable character {char}; delete it", char=ascii(match[0]))
        )
        for match in UNPRINTABLE.finditer(text)
    ]
    if faults:
        return None, faults[:_MOST_REPAIRS]
    lines = text.split("\n")
    last = backwards = 0
    for _ in range(_MOST_REPAIRS):
        try:
            root, flaws = (_yaml if syntax == "yaml" else _toml)("\n".join(lines))
            return root, [*faults, *flaws]
        except _Broken as broken:
            entry = _entry_around(lines, broken.fault.place[0], syntax)
            backwards += entry is not None and entry.start < last
            if entry is None or backwards > _MOST_BACKWARDS:
                faults.append(broken.fault)
                return None, faults
            last = entry.start
            left_out = note("{why}; without it, the entry that begins in line {line} is left out",
                            why=broken.fault.said, line=entry.start + 1)  # fmt: skip
            faults.append(Fault(broken.fault.place, left_out))
            for line in entry:
                lines[line] = ""
    return None, faults


def _place(text: str, index: int) -> Place:
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _entry_around(lines: list[str], line: int, syntax: str) -> range | None:
    """The lines (from 0) of the list entry that contains this line (from 1), if there is one."""
    begins = _BEGINS_ENTRY[syntax]
    start = min(line, len(lines)) - 1
    while start >= 0 and not begins.match(lines[start]):
        start -= 1
    if start < 0:
        return None
    found = begins.match(lines[start])
    depth = len(found[1]) if found else 0
    end = start + 1
    while end < len(lines) and not _leaves(lines[end], depth, syntax):
        end += 1
    if end < line:  # a line of the entry is indented too little
        end = min(line, len(lines))
        while end < len(lines) and not _begins_next(lines[end], depth, syntax):
            end += 1
    return range(start, end)


def _begins_next(line: str, depth: int, syntax: str) -> bool:
    """Whether another entry, or a field of the whole file, begins in this line."""
    found = _BEGINS_ENTRY[syntax].match(line)
    return (found is not None and len(found[1]) <= depth) or line[:1].isalpha()


def _leaves(line: str, depth: int, syntax: str) -> bool:
    """Whether the line no longer belongs to an entry that is indented by `depth` blanks."""
    bare = line.lstrip(" ")
    if not bare.strip() or bare[0] == "#" or bare[0] == "\t":
        return False
    return bare.startswith("[[") if syntax == "toml" else len(line) - len(bare) <= depth


# --- YAML


def _yaml(text: str) -> tuple[Node | None, list[Fault]]:
    flaws: list[Fault] = []
    loader = _LOADER(text)
    try:
        root = _document(loader, flaws)
        if not loader.check_event(yaml.StreamEndEvent):
            flaws.append(Fault(_mark(loader.peek_event()), note("begins a second document; use one file for each")))
    except yaml.MarkedYAMLError as error:
        wide = _wide_colon(text, _fault_mark(error)[0])
        raise _Broken(wide or _fault_mark(error), _WIDE if wide else _why(error, text)) from error
    except yaml.YAMLError as error:
        raise _Broken(START, note("is no YAML: {why}", why=str(error)[:200])) from error
    finally:
        loader.dispose()
    return root, flaws


def _mark(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1


_OPENING: Final = ("while scanning a quoted scalar", "while parsing a flow")


def _fault_mark(error: yaml.MarkedYAMLError) -> Place:
    """Where to look: at what was opened and not closed, otherwise where the reader stopped."""
    opened = error.context_mark if str(error.context).startswith(_OPENING) else None
    mark = opened or error.problem_mark or error.context_mark
    return (mark.line + 1, mark.column + 1) if mark else START


_WIDE: Final = note("is no YAML here; write the colon : and a blank instead of ：")


def _wide_colon(text: str, line: int) -> Place | None:
    """The place of a wide colon in this line or the one before."""
    lines = text.split("\n")
    for number in (line, line - 1):
        if 0 < number <= len(lines) and "：" in lines[number - 1]:
            return number, lines[number - 1].index("：") + 1
    return None


def _why(error: yaml.MarkedYAMLError, text: str) -> Note:
    mark = error.problem_mark
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "nesting" in str(error.problem):
        return note("is nested more than {n:count} levels deep; write it flatter", n=_DEEPEST)
    if "\t" in line[: len(line) - len(line.lstrip())] or "tab" in str(error.problem) or "\\t" in str(error.problem):
        return note("is indented with a tab; YAML takes blanks")
    return note("is no YAML here: {why}; check quotes, brackets, colons and indentation", why=str(error.problem)[:200])


def _document(loader: Any, flaws: list[Fault]) -> Node | None:
    loader.get_event()
    if loader.check_event(yaml.StreamEndEvent):
        return None
    loader.get_event()
    root = _node(loader.get_event(), loader, flaws, 0)
    loader.get_event()
    return root


def _node(event: Any, loader: Any, flaws: list[Fault], depth: int) -> Node:
    place = _mark(event)
    if depth > _DEEPEST:
        raise _Broken(place, note("is nested more than {n:count} levels deep; write it flatter", n=_DEEPEST))
    refused = _refused(event)
    if refused is not None:
        flaws.append(Fault(place, refused))
    flawed = refused is not None
    if isinstance(event, yaml.ScalarEvent):
        plain = event.style is None or event.style == ""
        empty = plain and event.value in ("", "~", "null", "Null", "NULL")
        return Node(None if empty else event.value, place, plain=plain, flawed=flawed)
    if isinstance(event, yaml.SequenceStartEvent):
        items = list(_items(loader, flaws, depth, yaml.SequenceEndEvent))
        return Node(items, place, flawed=flawed)
    if isinstance(event, yaml.MappingStartEvent):
        return _mapping(loader, flaws, depth, Node({}, place, flawed=flawed))
    return Node(None, place, flawed=True)


def _refused(event: Any) -> Note | None:
    if isinstance(event, yaml.AliasEvent):
        return note("is an alias, *{name}; write the value itself", name=str(event.anchor)[:60])
    if event.anchor is not None:
        return note("has an anchor, &{name}; leave it out", name=str(event.anchor)[:60])
    if event.tag is not None:
        return note("has a tag, {name}; leave it out", name=str(event.tag)[:60])
    return None


def _items(loader: Any, flaws: list[Fault], depth: int, end: type) -> Iterator[Node]:
    while not isinstance(event := loader.get_event(), end):
        yield _node(event, loader, flaws, depth + 1)


def _mapping(loader: Any, flaws: list[Fault], depth: int, empty: Node) -> Node:
    values: dict[str, Node] = {}
    places: dict[str, Place] = {}
    flawed = empty.flawed
    items = _items(loader, flaws, depth, yaml.MappingEndEvent)
    for key, value in zip(items, items, strict=True):
        if not isinstance(key.value, str):
            flaws.append(Fault(key.place, note("is no name of a field; write a text before the colon")))
        elif key.value in values:
            said = note("{name} stands twice, first in line {line}; delete one",
                        name=key.value[:60], line=places[key.value][0])  # fmt: skip
            flaws.append(Fault(key.place, said))
        else:
            values[key.value] = value
            places[key.value] = key.place
            continue
        flawed = True
    return Node(values, empty.place, places, flawed=flawed)


# --- TOML


_HEADER: Final = re.compile(r"\s*(\[\[?)\s*(.*?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(
    r"(\s*)((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
_PART: Final = re.compile(r"[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'")
_TOML_PLACE: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def _toml(text: str) -> tuple[Node | None, list[Fault]]:
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise _Broken(START, note("is nested more than {n:count} levels deep; write it flatter", n=_DEEPEST)) from error
    except (tomllib.TOMLDecodeError, ValueError) as error:  # also an integer with thousands of digits
        found = _TOML_PLACE.fullmatch(str(error))
        end = (text.count("\n") + 1, 1)
        place = (int(found[2]), int(found[3])) if found and found[2] else end if found else START
        raise _Broken(place, note("is no TOML here: {why}", why=(found[1] if found else str(error))[:200])) from error
    return _with_places(document, (), _places(text), START) if document else None, []


def _with_places(value: Any, path: Path, places: Mapping[Path, Place], above: Place) -> Node:
    place = places.get(path, above)
    if isinstance(value, dict):
        inner = {name: _with_places(v, (*path, name), places, place) for name, v in value.items()}
        return Node(inner, place, {name: places.get((*path, name), place) for name in value})
    if isinstance(value, list):
        return Node([_with_places(v, (*path, i), places, place) for i, v in enumerate(value)], place)
    return Node(value, place)


def _places(text: str) -> dict[Path, Place]:
    """The places of the tables and keys, by path. What stands within a value has no place of its own."""
    places: dict[Path, Place] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    quoted: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if quoted is None:
            if found := _HEADER.match(line):
                table = _table(found[2], found[1] == "[[", counts)
                places[table] = number, len(line) - len(line.lstrip()) + 1
            elif found := _KEY.match(line):
                places[(*table, *_parts(found[2]))] = number, len(found[1]) + 1
        quoted = _left_open(line, quoted)
    return places


def _table(name: str, array: bool, counts: dict[Path, int]) -> Path:
    path: Path = ()
    parts = _parts(name)
    for at, part in enumerate(parts):
        path = (*path, part)
        if array and at == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _parts(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _left_open(line: str, quoted: str | None) -> str | None:
    """The quotes of the text of several lines that is open after this line. `quoted`: those open before it."""
    for mark in ('"""', "'''"):
        if quoted in (None, mark) and line.count(mark) % 2:
            return None if quoted else mark
    return quoted
