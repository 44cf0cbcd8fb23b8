"""Builds a new database, compares it with the live one, and makes it the live one (docs/decisions/0014-rebuild.md).

    build     fold the log (or its archive, and the log after it) into another file, up to the live database's positions
    compare   compare the digests of all tables at the same positions; meanwhile the owner continues to consume
    succeed   fold up to the live database's latest positions, and make the new one live (`owner.succeed`)

Always true: until the last step, the live database is only read. The last step atomically changes the file to which the
live database's name points. If a rebuild is interrupted or killed at any moment, the next rebuild continues from its
last commit.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from coupon_ledger.consumers import failing, log_identity, operation_book
from coupon_ledger.consumers.alerts import book
from coupon_ledger.consumers.bulk_load import WORTH_IT, fold_again, fold_whole, records_begun
from coupon_ledger.consumers.owner import alert_rules_of
from coupon_ledger.consumers.runner import Boundary, Consumer
from coupon_ledger.ledger.archive import Span
from coupon_ledger.ledger.errors import LogTruncated, StoreError, StoreNotInitialised, StoreVersionMismatch
from coupon_ledger.ledger.log import LogReader, TopicPartition
from coupon_ledger.ledger.progress import Progress, ignore, stage
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections import checkpoints, generations
from coupon_ledger.projections.alerts import engine as alerts
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.digest import ALL, Digest, buckets, digests, rows_of
from coupon_ledger.projections.identity import ReadLog, read_log
from coupon_ledger.projections.live.cross import clock_and_grace
from coupon_ledger.projections.ownership import held
from coupon_ledger.projections.store import Store, disk_failed
from coupon_ledger.projections.tables import IDENTITY, TABLES, TOPICS
from coupon_ledger.projections.versions import VERSIONS, differing, written_versions
from coupon_ledger.questions.asking import AsOf, Source

Asking = Callable[[], AbstractContextManager[Source]]
"""A function that opens the source that answers questions about the live database."""
Copy = Callable[[Path], object]
"""A function that copies the live database to the given file."""
Positions = Mapping[TopicPartition, int]

_logger = logging.getLogger("coupon_ledger.rebuild")
_MINUTE: Final = timedelta(minutes=1)
_NEAR: Final = 20_000
"""`build` ends with a fold of fewer records than this. Folding what has arrived meanwhile then takes less than a
second."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the live database. `positions`: the next offset of each partition. `versions`: for each projection,
    its version when it was filled. `digests`: by table; only for tables of projections whose version in this code is
    the same. It is empty if the digests were not requested. `alert_rules`, `released`: which alert rules it has
    evaluated, and up to when."""

    positions: Positions
    grace: timedelta
    versions: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, Digest] = field(default_factory=dict)
    alert_rules: Sequence[Mapping[str, Any]] = ()
    released: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """A table whose digests differ, with its digests in the live and in the rebuilt database."""

    table: str
    live: Digest
    rebuilt: Digest


@dataclass(frozen=True, slots=True)
class DifferentRow:
    """A row of `table` that is not the same in the live and the rebuilt database. `row`: the values that identify the
    row, by column. `where`: which database has such a row: `live`, `rebuilt` or `both`. `fields`: if both have it, the
    columns that differ, each with its value in the live and in the rebuilt database; otherwise empty."""

    table: str
    row: Mapping[str, Any]
    where: str
    fields: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Compared:
    """The result of comparing the live and the rebuilt database at the same positions. `equal`: the tables whose
    digests are equal; `different`: the tables whose digests differ. `other_versions`: the projections that have another
    version in the live database; their tables are not compared. `facts`: the digest of all facts in the rebuilt
    database."""

    equal: tuple[str, ...]
    different: tuple[Difference, ...]
    other_versions: tuple[str, ...]
    facts: str


class LiveDatabase:
    """Reads the live database: through its owner, or from its file if no process owns it. Never writes to it."""

    def __init__(self, path: Path, asking: Asking) -> None:
        self.path = path
        self._asking = asking

    def ask(self, question: str, **parameters: Any) -> tuple[list[dict[str, Any]], Positions]:
        """The rows of the answer to a question, and the positions (next offset by partition) of the committed state
        that the answer shows."""
        with self._asking() as source:
            answer = source.ask(question, **parameters)
            rows = [row for frame in answer.frames for row in frame.iter_rows(named=True)]
        return rows, _positions(answer.as_of)

    def standing(self, *, compare: bool = False) -> Standing | None:
        """The live database's positions, grace and versions. None if there is no database. `compare`: also the digests
        of its tables, from the same committed state as the positions."""
        try:
            with self._asking() as source, source.snapshot() as snapshot:
                answer = snapshot.ask("standing")
                row, at = answer.row(), _positions(answer.as_of)
                digest_rows: list[dict[str, Any]] = []
                if compare:
                    digest_rows = [r for frame in snapshot.ask("digest").frames for r in frame.iter_rows(named=True)]
        except StoreNotInitialised:
            return None
        except StoreVersionMismatch:
            return self._of_other_code(compare=compare)
        versions = {v["name"]: v["version"] for v in row["versions"]}
        by_table = {d["table"]: Digest(**d) for d in digest_rows}
        rules, released = row["alert_rules"] or (), row["alerts_until"] or ()
        return Standing(at, row["grace_minutes"] * _MINUTE, versions, by_table, rules, released)

    def read_log(self) -> ReadLog | None:
        """What the live database has stored about the log from which it was filled. None if there is no database."""
        try:
            with self._asking() as source:
                return log_identity.of_source(source)
        except StoreNotInitialised:
            return None
        except StoreVersionMismatch:
            with Store.open_generation(self.path, generations.file_of(self.path)) as store:
                return read_log(store)

    def _of_other_code(self, *, compare: bool) -> Standing:
        """What `standing` returns, read from the file of a database that another version of the code filled. `compare`:
        also the digests of the tables whose projection has the same version in both codes."""
        with Store.open_generation(self.path, generations.file_of(self.path)) as store:
            versions = written_versions(store)
            same = [table for name in TABLES if versions.get(name) == VERSIONS[name] for table in TABLES[name]]
            _, grace = clock_and_grace(store)
            at = {partition: account.next_offset for partition, account in checkpoints.load(store).items()}
            by_table = {d.table: d for d in digests(store, same)} if compare else {}
            rules, released = alert_rules_of(store)
        return Standing(at, grace, versions, by_table, rules, released)


def _positions(as_of: AsOf) -> Positions:
    return {TopicPartition(p["topic"], p["partition"]): p["next_offset"] for p in as_of.positions}


class Rebuild:
    """A rebuild of the live database in a file beside it. Use as a context manager, which closes that file after the
    block.

    The constructor opens the file for writing. It raises `StoreOwned` if another process is rebuilding this database.
    """

    def __init__(
        self,
        live: LiveDatabase,
        log: LogReader,
        batch_size: int,
        progress: Progress = ignore,
        at_boundary: Boundary = lambda _: None,
        *,
        only: Sequence[str] = (),
        copy: Copy | None = None,
        anew: bool = False,
    ) -> None:
        """`only`: rebuild only these projections, in a copy of the live database; `copy` makes this copy. `anew`: start
        over, even if an interrupted run can be continued. `progress`: in records. `at_boundary`: see `Boundary`."""
        self._only = only
        self._copy = copy
        self._anew = anew
        self._reached = at_boundary
        self._live = live
        self._log = log
        self._batch_size = batch_size
        self._progress = progress
        self._reported = 0
        self._file = generations.rebuilt_file(live.path)
        self._store = self._begun()

    def __enter__(self) -> Rebuild:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._store.close()
        if error is not None and self._copy is not None:
            generations.remove(self._file)  # such a run is never continued

    def _begun(self) -> Store:
        """Open the file to rebuild in. If an interrupted rebuild can be continued, the file has its tables; otherwise
        the file is empty. If `copy` was given, the file is a new copy of the live database. A marker file then says so,
        since a later rebuild of all projections must not continue this one."""
        mark = generations.copied_mark(self._file)
        if self._anew or self._copy is not None or mark.exists():
            self._remove()
        if self._copy is not None:
            _written(mark)
            self._copy(self._file)
            return self._copied()
        try:
            create_database(self._file)
            return open_database(self._file)
        except StoreVersionMismatch:
            return self._half_way() or self._emptied()

    def _half_way(self) -> Store | None:
        """Open the file to rebuild in, if a bulk load into it was interrupted and can be continued. None otherwise."""
        store = Store.open_generation(self._file, self._file, read_only=False)
        try:
            if records_begun(store) is not None:
                store.own()
                return store
        except BaseException:
            store.close()
            raise
        store.close()
        return None

    def _remove(self) -> None:
        """Delete the file to rebuild in. Raises `StoreOwned` if another process is rebuilding in it."""
        try:
            with held(self._file):
                generations.remove(self._file)
        except OSError as error:
            raise disk_failed(f"database {self._file}: cannot be made anew", error) from error

    def _emptied(self) -> Store:
        """Replace the file to rebuild in by an empty database, and open it."""
        self._remove()
        create_database(self._file)
        return open_database(self._file)

    def _copied(self) -> Store:
        """Open the copy of the live database. Raises `StoreVersionMismatch` if it has a projection of another version
        that this rebuild does not rebuild."""
        store = Store.open_generation(self._file, self._file, read_only=False)
        try:
            others = [name for name, _, _ in differing(written_versions(store)) if name not in self._only]
            if others:
                raise StoreVersionMismatch(
                    f"database {self._live.path}: {', '.join(others)} were filled by another version too; rebuild them"
                    " as well (--projection), or all"
                )
            store.own()
        except BaseException:
            store.close()
            generations.remove(self._file)
            raise
        return store

    @property
    def already(self) -> int:
        """How many records an interrupted rebuild has read, which this one does not read again."""
        read = sum(account.read for account in checkpoints.load(self._store).values())
        return records_begun(self._store) or read

    def build(self) -> int:
        """Fold the log up to the live database's positions. The live database continues to consume meanwhile, so this
        is repeated until a round has fewer than `_NEAR` records. If there is no live database, fold up to the end of
        the log. Returns the number of records that were folded.

        Raises `LogReplaced` if the live database was filled from another log.
        """
        if (known := self._live.read_log()) is not None:
            log_identity.refuse(known, self._log, self._live.path)
        records = self._fold_only() if self._only else 0
        while True:
            standing = self._live.standing()
            until = standing.positions if standing else self._log.end_positions(self._log.partitions(INPUT_TOPICS))
            took = self._fold(until, standing)
            records += took
            if took < _NEAR:
                if self._copy is None:
                    book.store_all(self._store, self._log)
                    operation_book.store_all(self._store, self._log)
                return records

    def _fold_only(self) -> int:
        """Rebuild only the projections that were chosen with `only`, up to the positions of the copy. Returns the
        number of records that were folded."""
        wanted = {topic for name in self._only for topic in TOPICS[name]}
        try:
            records = fold_again(self._log, self._store, [t for t in INPUT_TOPICS if t in wanted], self._report)
        except failing.FAILURES as error:
            if not failing.of_the_events(error):
                raise
            raise StoreError(
                f"database {self._live.path}: some event cannot be folded ({error}), and only a rebuild of all"
                " projections sets it aside; run it without --projection"
            ) from error
        with self._store.transaction():
            for name in self._only:
                version = {"name": name, "version": VERSIONS[name]}
                self._store.execute("INSERT OR REPLACE INTO projections VALUES ($name, $version)", version)
        return records

    def compare(self) -> Compared | None:
        """Ask the live database for the digests of its tables, fold exactly up to the positions of these digests, and
        compare them with the digests of the rebuilt tables.

        Returns None if there is no live database.
        """
        standing = self._live.standing(compare=True)
        if standing is None:
            return None
        self._fold(standing.positions, standing)
        rebuilt = {d.table: d for d in digests(self._store)}
        tables = [table for name in TABLES for table in TABLES[name] if table in standing.digests]
        different = [
            Difference(t, standing.digests[t], rebuilt[t]) for t in tables if standing.digests[t] != rebuilt[t]
        ]
        return Compared(
            tuple(table for table in tables if standing.digests[table] == rebuilt[table]),
            tuple(different),
            tuple(name for name, _, _ in differing(standing.versions)),
            rebuilt[ALL].facts or "",
        )

    def different_rows(self, table: str, at_most: int) -> Iterator[DifferentRow]:
        """Yield the rows of a table that differ between the live and the rebuilt database, at the live database's
        current positions. Yields at most `at_most` rows."""
        live, until = self._live.ask("digest-buckets", table=table)
        self._fold(until, None)
        ours = {b["bucket"]: b for b in buckets(self._store, table).iter_rows(named=True)}
        theirs = {b["bucket"]: b for b in live}
        yielded = 0
        for bucket in sorted(ours.keys() | theirs.keys()):
            if ours.get(bucket) != theirs.get(bucket) and yielded < at_most:
                for row in self._different_in(table, bucket):
                    if (yielded := yielded + 1) <= at_most:
                        yield row

    def _different_in(self, table: str, bucket: int) -> Iterator[DifferentRow]:
        live, until = self._live.ask("digest-rows", table=table, bucket=bucket)
        self._fold(until, None)
        ours = Counter(rows_of(self._store, table, bucket)["row"].to_list())
        theirs = Counter(row["row"] for row in live)
        live_rows, our_rows = (_by_identity(table, rows) for rows in (theirs - ours, ours - theirs))
        for key in sorted(live_rows.keys() | our_rows.keys()):
            before, after = live_rows.get(key, {}), our_rows.get(key, {})
            where = "both" if before and after else "live" if before else "rebuilt"
            fields = {n: (before.get(n), after.get(n)) for n in before | after if before.get(n) != after.get(n)}
            row = {name: (before or after)[name] for name in IDENTITY[table]}
            yield DifferentRow(table, row, where, fields if where == "both" else {})

    def _fold(self, until: Positions, standing: Standing | None) -> int:
        """Fold the log into the rebuilt database, exactly up to the positions `until`. Returns the number of records
        that were folded. `standing`: the state of the live database, whose grace and alert rules are used; None to keep
        both.

        Raises `StoreError` if the rebuilt database has already read past one of the positions. Raises `LogTruncated` if
        the log ends before one of them.
        """
        if standing is not None:
            with self._store.transaction():
                alerts.follow_rules(self._store, standing.alert_rules)
        records = self._fold_log(until, standing)
        if standing is not None:
            alerts.take_over(self._store, standing.alert_rules, standing.released)
        return records

    def _fold_log(self, until: Positions, standing: Standing | None) -> int:
        reached = {partition: account.next_offset for partition, account in checkpoints.load(self._store).items()}
        if ahead := [p for p, offset in reached.items() if offset > until.get(p, 0)]:
            raise StoreError(
                f"database {self._file}: is ahead of the live one in {len(ahead)} partitions; run again with --anew"
            )
        ends = self._log.end_positions(list(until))
        if lost := [Span(*p, end, until[p]) for p, end in sorted(ends.items()) if end < until[p]]:
            raise LogTruncated(
                f"database {self._live.path}: it has folded {'; '.join(map(str, lost))}, and the log ends before;"
                " restore them. Where they are lost, move the database away and rebuild from what the log holds"
            )
        progress = stage(self._report, before=self._reported)
        total = sum(offset - reached.get(partition, 0) for partition, offset in until.items())
        if records_begun(self._store) is not None or (not reached and total >= WORTH_IT):
            try:
                return fold_whole(self._log, self._store, until, progress, standing.grace if standing else None)
            except failing.FAILURES as error:
                if not failing.of_the_events(error):
                    raise
                # Fold batch by batch instead. The consumer makes dead letters of the events that cannot be folded, as
                # it did for the live database.
                _logger.warning("rebuild: some event cannot be folded (%s); the log is folded batch by batch", error)
                self._store.close()
                self._store = self._emptied()
                total = sum(until.values())
        consumer = Consumer(
            self._log,
            self._store,
            outlet=None,
            batch_size=self._batch_size,
            grace=standing.grace if standing else None,
            until=until,
            at_boundary=self._reached,
        )
        records = 0
        progress(0, total)
        for commit in consumer.run():
            records += commit.records
            progress(records, max(records, total))
        return records

    def _report(self, done: int, total: int) -> None:
        self._reported = done
        self._progress(done, total)


def _written(mark: Path) -> None:
    try:
        mark.touch()
    except OSError as error:
        raise disk_failed(f"database {mark.with_suffix('')}: cannot be made", error) from error


def _by_identity(table: str, rows: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse rows that are given as JSON. Returns dictionaries, each under the values of its identifying columns (a JSON
    list)."""
    parsed = (json.loads(row) for row in rows)
    return {json.dumps([row[name] for name in IDENTITY[table]]): row for row in parsed}
