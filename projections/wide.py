"""Converts sums, which may need more than 64 bits, between DuckDB, polars and Arrow.

Amounts are bounded, but their sums are not. DuckDB computes sums in 128 bits and returns them as decimals. In our
frames they are integers: of 64 bits if all values of the column fit, otherwise of 128 bits. Arrow has no 128-bit
integers, so a frame with such integers is passed to DuckDB or Arrow with decimals without a fraction instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

_DECIMAL: Final = pl.Decimal(38, 0)
_WIDE: Final = (pl.Int128, pl.UInt128, _DECIMAL)


def as_integers(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with integers instead of 128-bit values (decimals or integers), also inside lists and structs."""
    wide = [name for name, dtype in frame.schema.items() if _holds(dtype)]
    return frame.with_columns(_as_integer(frame[name]) for name in wide) if wide else frame


def as_decimals(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with decimals instead of 128-bit integers, also inside lists and structs. Arrow and DuckDB accept
    these."""
    wide = {name: dtype for name, dtype in frame.schema.items() if _holds(dtype)}
    return frame.cast({name: _with(dtype, _DECIMAL) for name, dtype in wide.items()}) if wide else frame


def _as_integer(column: pl.Series) -> pl.Series:
    try:
        return column.cast(_with(column.dtype, pl.Int64()))
    except pl.exceptions.InvalidOperationError:
        return column.cast(_with(column.dtype, pl.Int128()))


def _holds(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _holds(_instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_holds(_instance(field.dtype)) for field in dtype.fields)
    return dtype in _WIDE


def _with(dtype: pl.DataType, integer: pl.DataType) -> pl.DataType:
    """The data type `dtype`, in which each 128-bit type, also inside lists and structs, is replaced by `integer`."""
    if isinstance(dtype, pl.List):
        return pl.List(_with(_instance(dtype.inner), integer))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _with(_instance(field.dtype), integer) for field in dtype.fields})
    return integer if dtype in _WIDE else dtype


def _instance(dtype: PolarsDataType) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()
