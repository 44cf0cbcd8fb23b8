"""Write an answer to a Parquet file piece by piece, under a temporary name until the file is complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from coupon_ledger.ledger.errors import UnusableFile

if TYPE_CHECKING:
    from coupon_ledger.questions.registry import Answer


def write_parquet(answer: Answer, file: Path, advance: Callable[[int], None]) -> int:
    """Write the answer's rows to the file, and the state that was asked to the file's metadata (`as_of`, in the form of
    answers over HTTP). Returns the number of rows. An existing file stays until the new one replaces it. `advance`:
    called with the number of rows of each piece; the total is not known beforehand.

    Raises `UnusableFile`.
    """
    if file.suffix.lower() not in ("", ".parquet", ".pq"):
        raise UnusableFile(
            f"file {file}: is written as Parquet; end its name with .parquet, or use --output csv > {file}"
        )
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        rows = _write(answer, unfinished, advance)
        unfinished.replace(file)
    except OSError as error:
        raise UnusableFile(
            f"file {file}: cannot be written ({error.strerror or error}); name another, or free space and run again"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _write(answer: Answer, file: Path, advance: Callable[[int], None]) -> int:
    import polars as pl
    import pyarrow.parquet as pq

    from coupon_ledger.api.answers import as_of
    from coupon_ledger.projections.past.slices import ahead
    from coupon_ledger.projections.wide import as_decimals

    def write(piece: pl.DataFrame) -> int:
        writer.write_table(as_decimals(piece).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))
        return piece.height

    rows = 0
    with file.open("wb") as sink:
        frame = next(answer.frames)
        schema = as_decimals(frame).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        schema = schema.with_metadata({"as_of": as_of(answer.as_of)})
        # A dictionary of ids, which hardly ever repeat, would take longer than everything else.
        repeated = [values.name for values in frame if values.n_unique() * 10 <= frame.height]
        with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repeated) as writer:
            for written in ahead(write, chain([frame], answer.frames), workers=1):
                rows += written
                advance(written)
        sink.flush()
        os.fsync(sink.fileno())
    return rows
