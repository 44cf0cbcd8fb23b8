"""Files that people write for alert rules, as YAML or TOML: read as nodes, with all problems and their places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path as File
from typing import Final

from coupon_ledger.ledger.words import Note, Speaker, note
from coupon_ledger.projections.alerts import document
from coupon_ledger.projections.alerts.document import MOST_BYTES, Fault, Node, Place
from coupon_ledger.projections.alerts.troubles import Trouble, path_of

MOST_PROBLEMS: Final = 1_000
_MOST_REPEATS: Final = 100
"""How far back a repeated problem is looked for: a group's field is a field of each of its rules."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file. `path`: the path of the field, empty for the file as a whole. `rule`: the name of the
    rule that it is in, if it is in one. `said`: what is wrong and what to do."""

    file: str
    line: int
    column: int
    path: str
    said: Note
    rule: str | None = None

    def __str__(self) -> str:
        return f"{self.file} line {self.line}: {self.in_words()}"

    def note(self) -> Note:
        """As `str(problem)`, for readers of any language."""
        said = note("{path}: {problem}", path=self.path, problem=self.said) if self.path else self.said
        return note("{file} line {line}: {problem}", file=self.file, line=self.line, problem=said)

    def in_words(self, speaker: Speaker = Speaker()) -> str:  # noqa: B008
        """The path and the sentence, without the place."""
        said = speaker.say(self.said)
        return f"{self.path}: {said}" if self.path else said


class Problems:
    """Collects the problems of one file, up to `MOST_PROBLEMS`. `lines`: how many lines the file has."""

    def __init__(self, name: str, lines: int) -> None:
        self.name = name
        self.lines = lines
        self.found: list[Problem] = []

    def report(self, trouble: Trouble) -> None:
        path, said, rule = path_of(trouble.path), trouble.said, trouble.rule
        if len(self.found) == MOST_PROBLEMS:
            path, said, rule = "", note("more problems follow, which are not listed; mend these first"), None
        problem = Problem(self.name, self.line(trouble.place), max(trouble.place[1], 1), path, said, rule)
        if not self.full and problem not in self.found[-_MOST_REPEATS:]:
            self.found.append(problem)

    def report_all(self, troubles: Iterable[Trouble]) -> None:
        for trouble in troubles:
            if self.full:
                return
            self.report(trouble)

    @property
    def full(self) -> bool:
        """Whether no more problems are listed."""
        return len(self.found) > MOST_PROBLEMS

    def line(self, place: Place) -> int:
        """The line of the file that is shown for a place."""
        return min(max(place[0], 1), self.lines)

    def in_order(self) -> tuple[Problem, ...]:
        """The problems in the order of their places."""
        return tuple(sorted(self.found, key=lambda problem: (problem.line, problem.column)))


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file as nodes. `root`: None if nothing of it could be read. `lines`: how many it has."""

    name: str
    root: Node | None
    faults: tuple[Fault, ...] = ()
    lines: int = 1

    def problems(self) -> Problems:
        """A collector for the file's problems, with those of its text."""
        collected = Problems(self.name, self.lines)
        collected.report_all(Trouble(fault.place, (), fault.said) for fault in self.faults)
        return collected


def read_file(path: File) -> TextFile:
    """Read a file. A path that ends in `.toml` is TOML, any other YAML. A file that cannot be read has a fault."""
    try:
        if not path.is_file():
            said = note("is a folder or device, not a file") if path.exists() else note("is not there; check the path")
            return _unreadable(str(path), said)
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return _unreadable(str(path), note("cannot be read: {why}", why=why))
    return read_bytes(content, str(path), "toml" if path.suffix.lower() == ".toml" else "yaml")


def read_bytes(content: bytes, name: str, syntax: str = "yaml") -> TextFile:
    """As `read_file`, for the content of a file. `name`: what problems call it. `syntax`: `yaml` or `toml`."""
    if len(content) > MOST_BYTES:
        return _unreadable(name, note("is larger than {n:count} bytes; split it", n=MOST_BYTES))
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = (before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        return _unreadable(name, note("is not in UTF-8; save it as UTF-8"), place)
    root, faults = document.read(text, syntax)
    return TextFile(name, root, tuple(faults), max(1, text.count("\n") + (text[-1:] != "\n")))


def _unreadable(name: str, said: Note, place: Place = document.START) -> TextFile:
    return TextFile(name, None, (Fault(place, said),), place[0])
