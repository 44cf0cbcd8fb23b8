"""Keeps the events of the past in temporary files, split into slices by key (`projections.sliced`), so that the journal
is scanned only once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import polars as pl

from coupon_ledger.ledger.errors import StoreError
from coupon_ledger.projections.sliced import read_slice, write_slices

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORKERS: Final = 2


class Slices:
    """Events split into slices, in temporary files. There is one file per piece of input, and it has a part of every
    slice."""

    def __init__(self, folder: Path, name: str, count: int, pieces: Iterable[pl.DataFrame]) -> None:
        """Write all pieces to files named after `name`. `pieces`: frames with a column `key_hash`; at least one, which
        may be empty. `count`: the number of slices, at most 65,536."""
        self.count = count
        numbered = ((Path(folder, f"{name}-{number}.arrow"), piece) for number, piece in enumerate(pieces))
        self._files = list(ahead(self._write, numbered))

    def _write(self, piece: tuple[Path, pl.DataFrame]) -> Path:
        file, events = piece
        with room_for_files():
            write_slices(file, events, self.count)
        return file

    def read(self, number: int) -> pl.DataFrame:
        """All events of slice `number`, in the order of the pieces."""
        return pl.concat([read_slice(file, number) for file in self._files], rechunk=True)


def ahead(do: Callable[[Item], Result], items: Iterable[Item], workers: int = _WORKERS) -> Iterator[Result]:
    """Yield the result of `do` for each item, in order. While the caller uses one result, threads compute the next."""
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
    """Within the block, replace any `OSError` by a `StoreError`. Its text says that temporary files cannot be
    written."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the past: its rows cannot be kept in a temporary file ({error.strerror or error}); free space in the"
            " folder for those (TMPDIR), or ask for less"
        ) from error
