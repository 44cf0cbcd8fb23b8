"""Checks the query of an `sql` rule without running it: one SELECT that reads tables of the database and nothing else.

DuckDB parses the query. Its tree may name only tables, and only functions that neither read files nor change anything.
Then the query is bound to an empty database with the ledger's tables, in which files cannot be read, so that unknown
tables and columns are found before the rule is in force.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts.rules import Sql

if TYPE_CHECKING:
    import duckdb

_TABLE_FUNCTIONS: Final = frozenset("unnest range generate_series json_each json_tree".split())
_REFUSED: Final = frozenset(
    "getenv getvariable current_setting set_config setseed nextval currval write_log pg_sleep sleep_ms error query"
    " query_table in_search_path current_query txid_current random uuid gen_random_uuid uuidv4 uuidv7 checkpoint"
    " force_checkpoint".split()
)
"""Functions that read settings, change something, wait, or answer differently each time."""
_READING: Final = ("read_", "write_", "duckdb_", "pragma_", "sniff_", "parquet_", "glob", "load_", "file_", "which_")
_SYSTEM: Final = ("pragma_", "duckdb_", "sqlite_", "pg_")
_LONGEST: Final = 200
_LOCK: Final = Lock()


def problem_of_query(rule: Sql) -> Note | None:
    """What is wrong with the query, and what to write; None if nothing is."""
    import duckdb

    try:
        statements = duckdb.extract_statements(rule.query)
    except duckdb.Error as error:
        return note("is no SQL: {why}; correct it", why=_first_line(error))
    if len(statements) != 1:
        return note("has {n:count} statements; write one SELECT", n=len(statements))
    [statement] = statements
    if statement.type != duckdb.StatementType.SELECT:
        return note("is a {kind} statement; write one SELECT", kind=statement.type.name)
    with _LOCK:
        return _problem(rule, statement.query)


def _problem(rule: Sql, query: str) -> Note | None:
    import duckdb

    connection = _empty_database()
    try:
        tree = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()[0][0])
        if tree["error"]:
            return note("is no SQL: {why}; correct it", why=str(tree.get("error_message"))[:_LONGEST])
        refused = next(_refused(tree), None)
        if refused is not None:
            return refused
        columns = connection.sql(query).columns
    except RecursionError:
        return note("is nested too deeply; write it flatter")
    except duckdb.Error as error:
        return note("does not fit the tables: {why}; correct it", why=_first_line(error))
    wanted = (*rule.key, *(name for name in (rule.value, rule.money) if name))
    absent = [name for name in wanted if name not in columns]
    if absent:
        return note("returns no column {absent}; it returns {columns}", absent=absent, columns=columns[:50])
    return None


def _refused(tree: Any) -> Iterator[Note]:
    """What the tree of the query names and a rule may not use."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        if not isinstance(node, dict):
            continue
        waiting += node.values()
        if node.get("type") == "SHOW_REF":
            yield note("is a {kind} statement; write one SELECT", kind="SHOW")
        if node.get("type") == "TABLE_FUNCTION":
            name = str((node.get("function") or {}).get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                yield note("reads from {name}; read tables of the database only", name=name[:60])
        if node.get("type") == "BASE_TABLE" and _is_system(node):
            yield note("reads from {name}; read tables of the database only", name=str(node["table_name"])[:60])
        name = str(node.get("function_name", "")).lower()
        if name in _REFUSED or name.startswith(_READING):
            yield note("calls {name}, which a rule may not; leave it out", name=name[:60])


def _is_system(table: dict[str, Any]) -> bool:
    other = table.get("schema_name") not in (None, "", "main") or table.get("catalog_name") not in (None, "")
    return other or str(table.get("table_name", "")).lower().startswith(_SYSTEM)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:_LONGEST]


@cache
def _empty_database() -> duckdb.DuckDBPyConnection:
    """An empty database with the ledger's tables and macros, which can reach no file."""
    import duckdb

    from coupon_ledger.projections.connection import Reading
    from coupon_ledger.projections.database import create_database

    with TemporaryDirectory() as folder:
        file = Path(folder) / "empty.duckdb"
        create_database(file)
        limits: dict[str, Any] = {"enable_external_access": "false", "threads": "1", "memory_limit": "200MB"}
        connection = duckdb.connect(file, read_only=True, config=limits)
    return Reading(file, connection)._direct
