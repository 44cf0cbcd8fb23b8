"""Defines the SQL views over the live tables. Each has its query in a `.sql` file of this folder."""

from __future__ import annotations

from typing import Final

from coupon_ledger.projections.connection import sql

VIEWS: Final = ("judged_violations",)


def view_statement(name: str) -> str:
    """The statement that creates the view."""
    return f"CREATE VIEW {name} AS {view(name)}"


def view(name: str) -> str:
    """The query that defines the view."""
    return sql(__package__, name)
