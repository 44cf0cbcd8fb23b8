"""Compiles access rights into queries: views with the visible rows and columns take the place of all live tables
(`Cursor.look_through`), so every question's SQL, unchanged, reads only these. Past tables are made from the views, and
shadow them.

Invariants: a table without a view does not exist for a restricted question. What is visible depends on the committed
state only, not on the question or its cut: the past shows the same objects, as they were then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb

from coupon_ledger.ledger.errors import Forbidden, LedgerError, NotEnoughMemory, QueryStopped, StoreError
from coupon_ledger.projections.connection import Cursor, Reading, sql
from coupon_ledger.projections.event_counts import EVENT_COUNTS
from coupon_ledger.projections.live.views import VIEWS, view_statement
from coupon_ledger.questions.access.access import Access, Scope
from coupon_ledger.questions.asking import Question

VISIBLE: Final = (
    *("coupons", "coupon_events", "coupon_conflicts", "orders", "order_events", "order_conflicts"),
    *("campaigns", "campaign_events", "campaign_conflicts", "campaign_terms"),
    *("users", "user_events", "user_conflicts", "persons"),
    *("violations", "acquisitions", "coupons_in_use", "uses", "coupon_sales", "event_counts"),
    *("ledger", "checkpoints", "partition_progress"),
)
"""The tables that restricted questions can read: each has a view in masked.sql."""
VISIBLE_UNSCOPED: Final = ("paths", "touch_sources", "stale_users", "stock_cuts", "awaited", "oddities", "projections")
"""Those that they can also read if nothing is out of scope: each has a view in whole.sql."""
HIDDEN: Final = (
    *("dead_letters", "discarded", "outbox", "log_topics", "last_records"),
    *("alert_episodes", "alert_progress", "alert_rules", "alert_series", "alert_open_series", "alert_buckets"),
    *("alert_events", "alert_positions", "operation_events", "operation_positions"),
)
"""Those that they cannot read: records, alerts and operations as free text, and what is about the whole ledger."""

_NO_PSEUDONYMS: Final = (
    "CREATE MACRO pseudonym(user_id) AS user_id",
    "CREATE MACRO pseudonym_hash(key_hash, user_id) AS key_hash",
)


@dataclass(frozen=True, slots=True)
class Layer:
    """The views of restricted questions. `variables`: see `Cursor.look_through`."""

    statements: tuple[str, ...]
    variables: dict[str, Any] = field(repr=False)


def check(question: Question[Any], name: str, access: Access) -> None:
    """Raises `Forbidden` if these rights do not allow the question. This depends on nothing but the two."""
    if access.areas is not None and question.area not in access.areas:
        raise Forbidden(f"question {name}: your role may not ask it; ask someone whose role may")
    if access.scope and question.whole:
        raise Forbidden(f"question {name}: it is about the whole ledger, and you may see a part; leave it out")
    if not access.personal and question.personal == "shown":
        raise Forbidden(f"question {name}: it cannot be answered without personal data, which you may not see")


def allows(question: Question[Any], access: Access) -> bool:
    """Whether these rights allow the question."""
    try:
        check(question, "", access)
    except Forbidden:
        return False
    return True


def layer_of(question: Question[Any], access: Access) -> Layer | None:
    """The views for a question under these rights; None if it may read the live tables."""
    if access.sees_all:
        return None
    masked = not access.personal and question.personal != "none"
    return Layer(
        tuple(_statements(access, masked)),
        {"access_key": access.key.hex()} if masked else {},
    )


def apply(cursor: Cursor, layer: Layer | None) -> None:
    """Make the cursor look through these views; None: at the live tables."""
    if layer is None:
        cursor.look_directly()
    else:
        cursor.look_through(layer.statements, layer.variables)


@contextmanager
def discreet(access: Access, name: str) -> Iterator[None]:
    """Within the block, replace errors whose text could contain what these rights do not show: those with DuckDB's own
    words. A table that is not visible gives `Forbidden`."""
    try:
        yield
    except (LedgerError, duckdb.Error) as error:
        if access.sees_all or isinstance(error, QueryStopped | NotEnoughMemory):
            raise
        if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
            raise Forbidden(f"question {name}: it reads what your role may not see") from None
        if isinstance(error, duckdb.Error) or isinstance(error.__cause__, duckdb.Error):
            raise StoreError(f"question {name}: could not be answered; ask for less, or ask an administrator") from None
        raise


def _statements(access: Access, masked: bool) -> Iterator[str]:
    yield sql(__package__, "shared")
    if access.scope:
        yield "CREATE SCHEMA scoped"
        yield from _macros(access.scope)
        yield sql(__package__, "scoped")
        yield f"CREATE VIEW scoped.event_counts AS {_event_counts(access.scope)}"
    if access.personal:
        yield from (f"CREATE VIEW {table} AS SELECT * FROM scoped.{table}" for table in VISIBLE)
    else:
        yield from (sql(__package__, "pseudonyms"),) if masked else _NO_PSEUDONYMS
        views = sql(__package__, "masked")
        yield views if access.scope else views.replace("scoped.", "live.")
    if not access.scope:
        yield sql(__package__, "whole")
    yield from map(view_statement, VIEWS)


def _event_counts(scope: Scope) -> str:
    """The counts of visible events: the kept ones, if their columns say which are visible; otherwise counted again."""
    if scope.channels is None and scope.stores is None:
        return sql(__package__, "event_counts_of_campaigns")
    counted = sql(EVENT_COUNTS.folder, "event_counts")
    return f"SELECT 0::BIGINT AS key_hash, * FROM ({counted})"


def _macros(scope: Scope) -> Iterator[str]:
    """The macros that scoped.sql names."""
    for kind, names in (("campaign", scope.campaigns), ("channel", scope.channels), ("store", scope.stores)):
        yield f"CREATE MACRO {kind}s_given() AS {'false' if names is None else 'true'}"
        yield f"CREATE MACRO {kind}_in_scope(name) AS {_among('name', names)}"


def _among(column: str, names: tuple[str, ...] | None) -> str:
    """The SQL condition that the column is one of the names; None: any. Never null."""
    if names is None:
        return "true"
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"coalesce({column} IN ({listed}), false)" if names else "false"


def restrict(reading: Reading, question: Question[Any], name: str, access: Access) -> None:
    """Check the rights, and make the reading look through the views that they need, until its transaction ends."""
    check(question, name, access)
    layer = layer_of(question, access)
    if layer is not None:
        if not isinstance(reading, Cursor):
            raise Forbidden(f"question {name}: restricted rights need a connection of their own")
        apply(reading, layer)
