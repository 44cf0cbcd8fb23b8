"""The rules file: read again when it changes, and put in force."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from coupon_ledger.consumers import outbox
from coupon_ledger.ledger import operations
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections import checkpoints, kept
from coupon_ledger.projections.alerts import in_force
from coupon_ledger.projections.alerts.document import MOST_BYTES
from coupon_ledger.projections.alerts.engine import Engine
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.rules_file import Loaded, load
from coupon_ledger.projections.alerts.text_file import Problem
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.store import Store

_EVERY_S: Final = 3.0
_OPERATOR: Final = "coupon-ledger"
_NAMED: Final = 5
_OF_RULES: Final = re.compile(r"[^.\[]*|groups\[\d+\](\.[^.\[]*(\[\d+\])?)?")
"""Paths of the file, of its groups and their fields, and of entries for rules."""
_MOST_SAID: Final = 20
"""How many alerts, and lines of the log, say what is wrong in a file."""
_SAID: Final = 5
"""How many problems an alert about the file names."""
_logger = logging.getLogger(__name__)
_announcements = logging.getLogger("coupon_ledger.announcements")


class RulesFile:
    """The file at `path`, with the files that it names; None: the default rules, which never change."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._look_at = 0.0
        self._stats: tuple[tuple[int, int, int] | None, ...] = ()
        self._hash: bytes | None = None
        self._beside: tuple[Path, ...] = ()

    def changed(self) -> Loaded | None:
        """What the file says, if that is new since the last call. Looks at the file every few seconds."""
        now = time.monotonic()
        if now < self._look_at or (self.path is None and self._hash is not None):
            return None
        self._look_at = now + _EVERY_S
        files = (self.path, *self._beside)
        stats = tuple(map(_stat, files))
        if stats == self._stats and None not in stats:
            return None
        self._stats = stats
        digest = hashlib.sha256(b"\0".join(map(_content, files))).digest()
        if digest == self._hash:
            return None
        self._hash = digest
        loaded = load(self.path)
        self._beside = loaded.beside
        return loaded


def _stat(path: Path | None) -> tuple[int, int, int] | None:
    """Size, time of change and file number; None of a file that cannot be read, or of the defaults."""
    try:
        stat = None if path is None else path.stat()
    except (OSError, ValueError):
        return None
    return None if stat is None else (stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _content(path: Path | None) -> bytes:
    """What the file has, as far as it is taken, or why it cannot be read."""
    if path is None:
        return b"defaults"
    try:
        if path.exists() and not path.is_file():  # reading a pipe or device may never end
            return b"no file"
        with path.open("rb") as stream:
            return b"read" + stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        return type(error).__name__.encode()


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in force. `by_name`: those that judge from now on. `versions`: by name and version, all that are or
    were in force, for episodes of before."""

    by_name: Mapping[str, Rule]
    versions: Mapping[tuple[str, str], Rule]

    @classmethod
    def stored(cls, reading: Reading) -> Rules:
        every = in_force.stored(reading)
        return cls(
            {f.rule.name: f.rule for f in every if f.until is None},
            {(f.rule.name, f.rule.version): f.rule for f in every},
        )


def put_in_force(store: Store, loaded: Loaded, path: Path | None) -> bool:
    """Put the good rules of the file in force, in a transaction, and record the operation. A rule with a problem stays
    in force as it was, and so do all rules that may stand in a part that cannot be read. Returns whether anything
    changed."""
    for problem in loaded.problems[:_MOST_SAID]:
        _logger.warning("alert rules: %s", problem)
    if len(loaded.problems) > _MOST_SAID:
        more = len(loaded.problems) - _MOST_SAID
        _logger.warning("alert rules: %d more problems; `coupon-ledger alerts rules check` lists them", more)
    before = in_force.versions(store)
    if not loaded.readable and in_force.stored(store):
        return False
    wanted = {rule.name: rule for rule in loaded.rule_set.rules}
    stay = staying(loaded, before.keys())
    if stay:
        old = Rules.stored(store).by_name
        wanted |= {name: old[name] for name in stay}
    with store.transaction():
        changed = in_force.put_in_force(store, wanted.values())
        if changed:
            now = {rule.name: rule for rule in wanted.values() if rule.enabled}
            outbox.put(store, [operations.record_of(_operation(store, changed, before, now, path))])
            store.cache(Engine).forget()
            # The rules judge what was read before any rule was in force, too.
            kept.release(store, checkpoints.Completeness.load(store).topics())
    if changed:
        _say(changed, now, path)
    return bool(changed)


def staying(loaded: Loaded, before: Set[str]) -> set[str]:
    """Of the rules in force (`before`, by name), those that stay as they were: those with a problem that leaves them
    out; if a part of the file could not be read, those that are missing in it, since they may stand there; and all if
    nothing could be read."""
    if not loaded.readable:
        return set(before)
    missing = before - {rule.name for rule in loaded.rule_set.rules}
    wrong = {p.rule for p in loaded.problems if p.rule is not None and p.rule not in loaded.lines}
    return (wrong & before) | (missing if any(map(_hides_rules, loaded.problems)) else set())


def _hides_rules(problem: Problem) -> bool:
    """Whether rules may stand where the problem is, and nobody knows which ones."""
    return problem.rule is None and _OF_RULES.fullmatch(problem.path) is not None


def _say(changed: list[str], now: Mapping[str, Rule], path: Path | None) -> None:
    """Log that other rules are in force, which people who edit the file wait for."""
    several = ", ".join(sorted(changed)[:_NAMED]) + (", …" if len(changed) > _NAMED else "")
    what = f"{len(now)} default rules" if path is None else f"{len(now)} rules; changed in {path.name}: {several}"
    _announcements.info("alert rules in force: %s", what, extra={"rules": len(now), "changed": len(changed)})


def say_mended(path: Path | None) -> None:
    """Log that a file that had mistakes has none any more."""
    _announcements.info("alert rules: %s has no mistakes any more", "the file" if path is None else path.name)


def _operation(
    store: Store, changed: list[str], before: Mapping[str, str], now: Mapping[str, Rule], path: Path | None
) -> operations.Operation:
    """The record of the change: what changed, by version, and from where on the new rules judge. `since`: they judge
    what is recorded after this instant; `positions`: what was read of the log by then. Of the default rules, which
    come with the program, it has only the number."""
    since = in_force.released_until(store).replace(tzinfo=UTC)
    each = [
        {"rule": name, "rule_version_before": before.get(name), "rule_version": _version(now.get(name))}
        for name in changed
    ]
    details: dict[str, Any] = {
        **({"changed": len(each)} if path is None else {"rules": each}),
        "since": instant(since),
        "positions": [[*partition, account.next_offset] for partition, account in checkpoints.load(store).items()],
    }
    # Nobody gave a reason, and who changed the file is not known. The names are the same in every language.
    why = "alert_rules" if path is None else f"alert_rules: {path.name}"
    return operations.operation("alert_rules_changed", why=why, operator=_OPERATOR, details=details)


def _version(rule: Rule | None) -> str | None:
    return None if rule is None else rule.version


def problems_of(loaded: Loaded, channels: Sequence[Note] = ()) -> dict[str, Note]:
    """What is wrong in the file, by rule; under an empty name what is in no rule, with the problems of `channels`. If
    very many rules are wrong, all is under an empty name: one alert says more than a thousand."""
    wrong = {problem.rule for problem in loaded.problems}
    together = len(wrong) > _MOST_SAID
    said: dict[str, list[Note]] = {"": list(channels)} if channels else {}
    for problem in loaded.problems:
        said.setdefault("" if together else problem.rule or "", []).append(problem.note())
    return {rule: _together(notes) for rule, notes in said.items()}


def _together(notes: Sequence[Note]) -> Note:
    *others, last = notes[:_SAID]
    if len(notes) > _SAID:
        last = note("{one}; and {n:count} more", one=last, n=len(notes) - _SAID)
    for one in reversed(others):
        last = note("{one}; {other}", one=one, other=last)
    return last
