"""Answers that are read page by page: kept for a while in temporary files, so that all pages are of one state and a
page costs nothing but its own rows."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import polars as pl
import pyarrow as pa

from coupon_ledger.projections.connection import frames_of
from coupon_ledger.projections.wide import as_decimals
from coupon_ledger.questions.registry import AsOf

IDLE_S: Final = 600.0
"""An answer is kept until it was not read for so long."""
MOST: Final = 64
MOST_BYTES: Final = 2_000_000_000
"""The answers that were not read for longest are removed if there are more."""


class Page(NamedTuple):
    """Some rows of an answer. `then`: the number of the first row after them; None if there is none."""

    as_of: AsOf
    rows: pl.DataFrame
    then: int | None


class _Kept(NamedTuple):
    file: Path
    bytes: int
    as_of: AsOf
    whose: str


class KeptAnswers:
    """All methods may be called from any thread."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="coupon-ledger-answers-")
        self._kept: OrderedDict[str, tuple[_Kept, float]] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._kept.clear()
        self._folder.cleanup()

    def first(self, as_of: AsOf, frames: Iterator[pl.DataFrame], size: int, whose: str) -> tuple[Page, str | None]:
        """The first `size` rows of an answer, and the name under which the answer is kept; None if there are no more
        rows. `whose`: the only caller that may read further pages."""
        head = next(frames)
        rest = list(_until(frames, size + 1 - head.height)) if head.height <= size else []
        rows = pl.concat([head, *rest]) if rest else head
        if rows.height <= size:
            return Page(as_of, rows, None), None
        name = self._keep(as_of, rows, frames, whose)
        return Page(as_of, rows.head(size), size), name

    def page(self, name: str, start: int, size: int, whose: str) -> Page | None:
        """Rows of a kept answer. None if it is not kept, or another caller's."""
        with self._lock:
            found = self._kept.get(name)
            if found is None or found[0].whose != whose:
                return None
            kept = found[0]
            self._kept[name] = (kept, time.monotonic())
            self._kept.move_to_end(name)
            file = pa.memory_map(str(kept.file))  # stays readable when the file is removed
        with file, pa.ipc.open_file(file) as reader:
            total, parts = 0, []
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                first, last = max(start - total, 0), min(start + size - total, batch.num_rows)
                if first < last:
                    parts.append(batch.slice(first, last - first))
                total += batch.num_rows
            rows = pl.concat(list(frames_of(_Batches(reader.schema, parts))))
            rows = rows.clone() if parts else rows
        return Page(kept.as_of, rows, start + size if start + size < total else None)

    def _keep(self, as_of: AsOf, rows: pl.DataFrame, frames: Iterator[pl.DataFrame], whose: str) -> str:
        name = secrets.token_urlsafe(16)
        file = Path(self._folder.name) / f"{secrets.token_hex(12)}.arrow"
        _write(file, rows, frames)
        now = time.monotonic()
        with self._lock:
            self._kept[name] = (_Kept(file, file.stat().st_size, as_of, whose), now)
            self._remove(now)
        return name

    def _remove(self, now: float) -> None:
        total = sum(kept.bytes for kept, _ in self._kept.values())
        for name, (kept, used_at) in list(self._kept.items())[:-1]:
            if now - used_at <= IDLE_S and len(self._kept) <= MOST and total <= MOST_BYTES:
                return
            kept.file.unlink(missing_ok=True)
            total -= kept.bytes
            del self._kept[name]


class _Batches:
    """Record batches, as `frames_of` reads them."""

    def __init__(self, schema: Any, batches: Iterable[Any]) -> None:
        self.schema = schema
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)


def _until(frames: Iterator[pl.DataFrame], wanted: int) -> Iterator[pl.DataFrame]:
    """Frames, until they have `wanted` rows."""
    while wanted > 0 and (frame := next(frames, None)) is not None:
        yield frame
        wanted -= frame.height


def _write(file: Path, rows: pl.DataFrame, frames: Iterator[pl.DataFrame]) -> None:
    table = as_decimals(rows).to_arrow(compat_level=pl.CompatLevel.oldest())
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
        for frame in frames:
            writer.write_table(as_decimals(frame).to_arrow(compat_level=pl.CompatLevel.oldest()), max_chunksize=10_000)
