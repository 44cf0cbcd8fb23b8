"""What the query of an `sql` rule may say. Whoever can write the rules file must not read other files through the
ledger, change anything, or exhaust the memory of the process.

DuckDB has no setting for this that holds for one connection: access to files, extensions and memory are settings of the
whole database. So a query may only name what is listed here. DuckDB's own parser gives the tree of the query, and every
node of it must be known. Then the limits of time and memory in `questions.alerts.bounded` can hold, since
- only tables of the database are read, and only functions without side effects are called;
- no function makes a value that is larger than its arguments by more than a constant. Nested concatenations of text
  would exhaust the memory within one call, which cannot be interrupted;
- no text is compared with a pattern for which DuckDB tries every way to divide the text, within one call again;
- no list of columns grows from one subquery to the next, and nesting has a limit. Other queries would not finish
  planning, which cannot be interrupted either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Final

import duckdb

from coupon_ledger.ledger.errors import LedgerError, alike
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts.rules import Sql
from coupon_ledger.projections.connection import Reading, configuration, sql

MOST_TABLES: Final = 30
"""Number of tables that a query may name; each mention counts."""
MOST_NESTED: Final = 8
"""How deep queries may be nested. DuckDB's time for planning doubles with each subquery in a subquery."""
_MOST_NODES: Final = 5_000
_DEEPEST: Final = 300
_SHOWN: Final = 200
_LOCK: Final = Lock()
_PLAIN: Final = re.compile(r"[A-Za-z_]\w{0,62}", re.ASCII)
_MACRO: Final = re.compile(r"CREATE TEMP MACRO (\w+)")

_CLASSES: Final = frozenset(
    "BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA OPERATOR STAR SUBQUERY"
    " TYPE WINDOW".split()
)
_OPERATORS: Final = frozenset(
    "OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE OPERATOR_NULLIF COMPARE_IN COMPARE_NOT_IN"
    " ARRAY_EXTRACT ARRAY_SLICE STRUCT_EXTRACT OPERATOR_UNPACK OPERATOR_TRY".split()
)
_NODES: Final = frozenset(
    "SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE BASE_TABLE JOIN SUBQUERY EMPTY EXPRESSION_LIST"
    " ORDER_MODIFIER LIMIT_MODIFIER DISTINCT_MODIFIER ORDER_DEFAULT ASCENDING DESCENDING DECIMAL_TYPE_INFO"
    " UNBOUND_TYPE_INFO".split()
)
_ONE_TABLE: Final = frozenset({"BASE_TABLE", "SUBQUERY", "EXPRESSION_LIST"})
_TYPES: Final = frozenset(
    "BOOLEAN TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT FLOAT DOUBLE DECIMAL VARCHAR"
    " DATE TIME TIMESTAMP INTERVAL INT INT4 INT8 LONG REAL NUMERIC TEXT STRING BOOL DATETIME".split()
)
_LIKE: Final = frozenset({"~~", "!~~"})
_LIKE_BY_TRIAL: Final = frozenset("~~* !~~* like_escape not_like_escape ilike_escape not_ilike_escape".split())
_MOST_TRIALS: Final = 2
"""Number of `%` in a pattern that is tried out: the time grows with the length of the text to this power."""
_FUNCTIONS: Final = frozenset(
    (
        # aggregates and window functions
        "count count_star count_if countif sum min max avg mean median quantile quantile_cont quantile_disc stddev"
        " stddev_samp stddev_pop variance var_samp var_pop corr covar_samp covar_pop bool_and bool_or any_value first"
        " last arbitrary arg_min arg_max min_by max_by approx_count_distinct row_number rank dense_rank percent_rank"
        " cume_dist ntile lag lead first_value last_value nth_value"
        # operators
        " + - * / // % ^ ** & | ~ << >> ~~ !~~ ~~* !~~* ~ !~ ^@ -> ->> @> <@ add subtract multiply divide mod"
        # numbers
        " abs ceil ceiling floor round round_even trunc sign sqrt cbrt ln log log10 log2 exp pow power greatest least"
        " isnan isinf isfinite nullif ifnull if hash"
        # text, which never gets longer
        " lower lcase upper ucase length len strlen trim ltrim rtrim left right substring substr starts_with ends_with"
        " prefix suffix contains instr strpos position regexp_matches regexp_full_match regexp_extract split_part"
        " like_escape not_like_escape ilike_escape not_ilike_escape json_extract json_extract_string json_extract_path"
        " json_extract_path_text"
        # instants
        " date_trunc datetrunc date_part datepart date_diff datediff date_sub datesub date_add time_bucket epoch"
        " epoch_ms epoch_us year quarter month week day hour minute second dayofweek isodow weekday dayofyear to_years"
        " to_quarters to_months to_weeks to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds"
        " make_date make_timestamp last_day"
        # lists and structs of the tables
        " unnest list_sum list_contains list_has array_contains list_filter list_extract list_element array_extract"
        " struct_extract array_length"
    ).split()
)


def problem_of_query(of: Sql) -> Note | None:
    """What is wrong with the query of a rule, with the remedy: it is refused, or does not fit the tables. For a rule
    that is not in force yet: the query is bound to an empty database with the ledger's tables, and does not run."""
    with _LOCK:
        empty = _empty_database()
        return refusal(empty, of.query) or _misfit(empty, of)


def _misfit(empty: Reading, of: Sql) -> Note | None:
    try:
        columns = empty.frame(f"DESCRIBE {duckdb.extract_statements(of.query)[0].query}")["column_name"].to_list()
    except (duckdb.Error, LedgerError) as error:
        return note("does not fit the tables: {why}; correct it", why=str(error).split("\n", 1)[0][:_SHOWN])
    absent = [name for name in (*of.key, of.value, of.money) if name is not None and name not in columns]
    if absent:
        return note("returns no column {absent}; it returns {columns}", absent=absent, columns=columns[:50])
    return None


@cache
def _empty_database() -> Reading:
    from coupon_ledger.projections.database import create_database  # which knows the tables of this package

    with TemporaryDirectory() as folder:
        file = Path(folder) / "empty.duckdb"
        create_database(file)
        limits = {"enable_external_access": "false", "threads": "1", "memory_limit": "200MB"}
        return Reading(file, duckdb.connect(file, read_only=True, config={**configuration(True), **limits}))


def refusal(reading: Reading, query: str) -> Note | None:
    """What a rule may not say in its query, with the remedy; None if the query may run."""
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        return _no_sql(error)
    if len(statements) != 1:
        return note("has {n:count} statements; write one SELECT", n=len(statements))
    if statements[0].type != duckdb.StatementType.SELECT:
        return note("is a {kind} statement; write one SELECT", kind=statements[0].type.name)
    try:
        [(text,)] = reading.frame("SELECT json_serialize_sql($query::VARCHAR)", {"query": query}).rows()
        tree = json.loads(text)
    except RecursionError:
        return note("is nested too deeply; write it flatter")
    except duckdb.Error as error:
        return _no_sql(error)
    if tree.get("error"):
        return note("is no SQL: {why}; correct it", why=str(tree.get("error_message"))[:_SHOWN])
    if _too_deep(tree["statements"]):
        return note("is nested too deeply; write it flatter")
    nodes = list(_nodes(tree["statements"]))
    if len(nodes) > _MOST_NODES:
        return note("is too long; write a shorter one")
    known = {str(name).lower() for (name,) in reading.rows(_TABLES)}
    return next(_refused(nodes, known, _FUNCTIONS | _macros()), None)


def tables_read(reading: Reading, query: str) -> frozenset[str]:
    """The names, in lower case, of the tables and views that a query reads which `refusal` lets pass."""
    [(text,)] = reading.frame("SELECT json_serialize_sql($query::VARCHAR)", {"query": query}).rows()
    nodes = list(_nodes(json.loads(text)["statements"]))
    known = {str(name).lower() for (name,) in reading.rows(_TABLES)}
    return frozenset(str(n["table_name"]).lower() for n in nodes if n.get("type") == "BASE_TABLE") & known


_TABLES: Final = """
    SELECT table_name FROM duckdb_tables()
    WHERE database_name = current_database() AND schema_name = 'main' AND NOT temporary AND NOT internal
    UNION ALL
    SELECT view_name FROM duckdb_views()
    WHERE database_name = current_database() AND schema_name = 'main' AND NOT temporary AND NOT internal
"""


def _no_sql(error: duckdb.Error) -> Note:
    return note("is no SQL: {why}; correct it", why=str(error).split("\n", 1)[0][:_SHOWN])


def _macros() -> frozenset[str]:
    """The names of the macros that every connection has."""
    return frozenset({"superseded", *_MACRO.findall(sql("coupon_ledger.projections", "macros"))})


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All nodes of a tree, except for what is in constants."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            if node.get("class") != "CONSTANT":
                waiting += node.values()


def _too_deep(tree: Any) -> bool:
    waiting = [(tree, 0, 0)]
    while waiting:
        node, depth, queries = waiting.pop()
        if isinstance(node, dict):
            queries += node.get("type") == "SELECT_NODE"
            depth += "class" in node
        if queries > MOST_NESTED or depth > _DEEPEST:
            return True
        if isinstance(node, dict | list):
            below = node.values() if isinstance(node, dict) else node
            waiting += [(one, depth, queries) for one in below]
    return False


def _refused(nodes: Collection[dict[str, Any]], known: set[str], functions: frozenset[str]) -> Iterator[Note]:
    named = {str(key).lower() for node in nodes if isinstance(key := node.get("key"), str) and "value" in node}
    for name in sorted(named):
        if not _PLAIN.fullmatch(name):
            yield note("names a subquery {name}; use letters, digits and `_`", name=name[:60])
    if sum(node.get("type") == "BASE_TABLE" for node in nodes) > MOST_TABLES:
        yield note("names more than {n:count} tables; write a shorter one", n=MOST_TABLES)
    if any(node.get("materialized") == "CTE_MATERIALIZE_NEVER" for node in nodes):
        yield note("uses {what}, which a rule may not; leave it out", what="NOT MATERIALIZED")
    for node in nodes:
        yield from _of_table(node, known | named)
    for node in nodes:
        yield from _of_expression(node, functions)
        yield from _of_columns(node)


def _of_table(node: dict[str, Any], known: set[str]) -> Iterator[Note]:
    kind = node.get("type")
    if "class" in node or not isinstance(kind, str):
        return
    if kind == "TABLE_FUNCTION":
        name = (node.get("function") or {}).get("function_name", "")
        yield note("reads from {name}; read tables of the database only", name=str(name)[:60])
    elif kind not in _NODES:
        yield note("uses {what}, which a rule may not; leave it out", what=kind[:60])
    elif kind == "BASE_TABLE":
        name = str(node["table_name"])
        elsewhere = node["schema_name"] not in ("", "main") or node["catalog_name"] or node["at_clause"]
        if elsewhere:
            yield note("reads from {name}; read tables of the database only", name=name[:60])
        elif name.lower() not in known:
            yield _no_table(name, known)
    if node.get("sample"):
        yield note("uses {what}, which a rule may not; leave it out", what="SAMPLE")


def _no_table(name: str, known: set[str]) -> Note:
    near = alike([name[:60]], known)[:1] if _PLAIN.fullmatch(name) else []
    if near:
        return note("reads from {name}, which is not there; did you mean {near}?", name=name, near=near)
    return note("reads from {name}; read tables of the database only", name=name[:60])


def _of_expression(node: dict[str, Any], functions: frozenset[str]) -> Iterator[Note]:
    kind = node.get("class")
    if isinstance(kind, str) and kind not in _CLASSES:
        yield note("uses {what}, which a rule may not; leave it out", what=kind[:60])
    if kind == "OPERATOR" and node["type"] not in _OPERATORS:
        yield note("uses {what}, which a rule may not; leave it out", what=str(node["type"])[:60])
    if (type_name := _type_named(node)) is not None and type_name.upper() not in _TYPES:
        yield note("uses {what}, which a rule may not; leave it out", what=f"type {type_name}"[:60])
    name = node.get("function_name")
    if isinstance(name, str) and (name.lower() not in functions or node.get("schema") not in ("", "main")):
        yield note("calls {name}, which a rule may not; leave it out", name=name[:60])
    elif isinstance(name, str) and name.lower() in _LIKE | _LIKE_BY_TRIAL and _may_take_for_ever(name, node):
        yield note("compares with a pattern that could take for ever; use contains or regexp_matches")


def _may_take_for_ever(name: str, node: dict[str, Any]) -> bool:
    """Whether LIKE, or one of its kin, could try a pattern out in very many ways. Known patterns of text and `%` alone
    are found in one pass."""
    pattern = node["children"][1]
    text = pattern["value"].get("value", "") if pattern.get("class") == "CONSTANT" else None
    if not isinstance(text, str):
        return True
    tried = name.lower() in _LIKE_BY_TRIAL or "_" in text
    return tried and text.count("%") > _MOST_TRIALS


def _type_named(node: dict[str, Any]) -> str | None:
    """The type that this node names. Depending on the version of the database, a cast names it or has a node for it."""
    if node.get("class") == "TYPE":
        return f"{node['schema']}.{node['type_name']}" if node["schema"] or node["catalog"] else str(node["type_name"])
    if node.get("class") != "CAST":
        return None
    named = node["cast_type"]
    by_node = named["id"] == "UNBOUND" and "expr" in (named["type_info"] or {})
    return None if by_node else str(named["id"])


def _of_columns(node: dict[str, Any]) -> Iterator[Note]:
    if node.get("type") != "SELECT_NODE":
        return
    stars = sum(one.get("class") == "STAR" for one in _nodes(node["select_list"]))
    if stars > 1 or (stars and node["from_table"]["type"] not in _ONE_TABLE):
        yield note("selects * of several tables; name the columns")
