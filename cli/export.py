"""Write an answer to a Parquet file piece by piece. The file has a temporary name until it is complete."""

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
    """Write the answer's rows to the Parquet file `file`, and return their number.

    The state that was read becomes the metadata `as_of` of the file, in the form that answers over HTTP have. An
    existing file stays until the complete new one replaces it. After each piece, `advance` is called with the piece's
    number of rows. Raises `UnusableFile` if the file's name has another ending or the file cannot be written.
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
