"""Events parted by the hashes of their keys: laid down in temporary files as they are read, in one scan, and taken up
slice by slice. So memory holds some pieces and a few slices, however long the history is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from ledger.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORKERS: Final = 2


class Slices:
    """A file holds a piece of the events, parted: its n-th batch is the n-th slice's."""

    def __init__(self, folder: Path, name: str, count: int, pieces: Iterable[pl.DataFrame]) -> None:
        """`pieces`: with `key_hash`; at least one, which may be empty. No more than 65,536 slices."""
        self.count = count
        numbered = ((Path(folder, f"{name}-{number}.arrow"), piece) for number, piece in enumerate(pieces))
        self._files = list(ahead(self._lay_down, numbered))

    def _lay_down(self, piece: tuple[Path, pl.DataFrame]) -> Path:
        file, events = piece
        hashes = events["key_hash"].to_numpy().view(np.uint64)
        slices = ((hashes >> np.uint64(32)) * np.uint64(self.count) >> np.uint64(32)).astype(np.uint16)
        order = np.argsort(slices, kind="stable")
        bounds = np.searchsorted(slices[order], np.arange(self.count + 1)).tolist()
        table = events[order].rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        [whole] = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        with room_for_files(), file.open("wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            for start, end in pairwise(bounds):
                writer.write_batch(whole.slice(start, end - start))
        return file

    def take_up(self, number: int) -> pl.DataFrame:
        """All events of a slice, in the order in which they were read."""
        batches = []
        for file in self._files:
            with pa.memory_map(str(file)) as source:
                batches.append(pa.ipc.open_file(source).get_batch(number))
        frame = pl.from_arrow(pa.Table.from_batches(batches))
        assert isinstance(frame, pl.DataFrame)
        return frame


def ahead(do: Callable[[Item], Result], items: Iterable[Item], workers: int = _WORKERS) -> Iterator[Result]:
    """What becomes of each item, in their order, a few of them worked on ahead of who takes them."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def room_for_files() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the past: its rows cannot be kept in a temporary file ({error.strerror or error}); free space in the"
            " folder for those (TMPDIR), or ask for less"
        ) from error
