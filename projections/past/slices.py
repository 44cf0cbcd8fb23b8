"""The events of the past in temporary files, split into slices (`projections.sliced`) in one scan of the journal."""

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
    """Events in temporary files, one file per piece."""

    def __init__(self, folder: Path, name: str, count: int, pieces: Iterable[pl.DataFrame]) -> None:
        """`pieces`: at least one, which may be empty, with a column `key_hash`. `count`: at most 65,536."""
        self.count = count
        numbered = ((Path(folder, f"{name}-{number}.arrow"), piece) for number, piece in enumerate(pieces))
        self._files = list(ahead(self._write, numbered))

    def _write(self, piece: tuple[Path, pl.DataFrame]) -> Path:
        file, events = piece
        with room_for_files():
            write_slices(file, events, self.count)
        return file

    def read(self, number: int) -> pl.DataFrame:
        """All events of one slice, in the order of the pieces."""
        return pl.concat([read_slice(file, number) for file in self._files], rechunk=True)


def ahead(do: Callable[[Item], Result], items: Iterable[Item], workers: int = _WORKERS) -> Iterator[Result]:
    """The results of `do` for the items, in order. A few are computed ahead of the caller."""
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
