"""Events of the past, in slices (`projections.sliced`): written to temporary files in one scan, folded ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import polars as pl

from coupon_ledger.ledger.errors import StoreError
from coupon_ledger.projections.sliced import lay_down, taken_up

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORKERS: Final = 2


class Slices:
    """Pieces of events, each in a file of its own."""

    def __init__(self, folder: Path, name: str, count: int, pieces: Iterable[pl.DataFrame]) -> None:
        """`pieces`: with `key_hash`; at least one, which may be empty. At most 65,536 slices."""
        self.count = count
        numbered = ((Path(folder, f"{name}-{number}.arrow"), piece) for number, piece in enumerate(pieces))
        self._files = list(ahead(self._lay_down, numbered))

    def _lay_down(self, piece: tuple[Path, pl.DataFrame]) -> Path:
        file, events = piece
        with room_for_files():
            lay_down(file, events, self.count)
        return file

    def take_up(self, number: int) -> pl.DataFrame:
        """All events of a slice, in the order in which they were read."""
        return pl.concat([taken_up(file, number) for file in self._files], rechunk=True)


def ahead(do: Callable[[Item], Result], items: Iterable[Item], workers: int = _WORKERS) -> Iterator[Result]:
    """The results of `do` for the items, in their order; a few are computed ahead of the caller."""
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
