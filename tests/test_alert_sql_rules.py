"""Rules of kind `sql`. Whoever can write the rules file must get nothing by it but what the tables say: no file, no
setting, no write, no extension, and neither all the time nor all the memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.ledger.errors import RuleFailed
from coupon_ledger.projections.alerts.rules import Rule, Sql
from coupon_ledger.projections.alerts.safe_sql import problem_of_query
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.alerts import sql_rules
from coupon_ledger.questions.alerts.bounded import Limits
from tests.command_line import PATIENCE_S

CLOCK = datetime(2026, 11, 11)
SECRET = "a line that nobody may read"
ROWS = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql")
    (folder / "secret.csv").write_text(f"line\n{SECRET}\n")
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Store]:
    create_database(folder / "s.duckdb")
    with open_database(folder / "s.duckdb") as opened:
        opened.execute(
            "INSERT INTO awaited SELECT i, 'order-' || i || repeat('x', 80), TIMESTAMP '2026-01-01'"
            f" FROM range({ROWS}) t(i)"
        )
        yield opened


@pytest.fixture
def cursor(store: Store) -> Iterator[Cursor]:
    cursor = store.cursor()
    cursor.begin()
    yield cursor
    cursor.end()
    cursor.close()


def rule(query: str, *key: str, **of: Any) -> Rule:
    return Rule.model_validate({"name": "mine", "expr": {"kind": "sql", "query": query, "key": key or ("id",), **of}})


def failure(cursor: Cursor, query: str, limits: Limits | None = None, **of: Any) -> str:
    with pytest.raises(RuleFailed) as failed:
        sql_rules.offenders(cursor, rule(query, **of), CLOCK, limits)
    text = str(failed.value)
    assert text.startswith("rule mine: its query ") and SECRET not in text
    return text


REFUSED = [
    "SELECT line AS id FROM read_csv('{secret}')",
    "SELECT line AS id FROM '{secret}'",
    'SELECT line AS id FROM "{secret}"',
    "FROM '{secret}'",
    "SELECT content AS id FROM read_text('{secret}')",
    "SELECT file AS id FROM glob('{folder}/*')",
    "SELECT id FROM (SELECT line AS id FROM read_csv_auto('{secret}'))",
    "SELECT 1 AS id WHERE EXISTS (SELECT 1 FROM read_csv('{secret}'))",
    # a name of a subquery outside of its scope, which DuckDB would take for a file
    'SELECT 1 AS id FROM "{secret}" WHERE EXISTS (WITH "{secret}" AS (SELECT 1) SELECT 1)',
    "SELECT id FROM query('SELECT line AS id FROM ''{secret}''')",
    "SELECT id FROM query_table('ledger')",
    "SELECT getenv('HOME') AS id",
    "SELECT current_setting('temp_directory') AS id",
    "SELECT value AS id FROM duckdb_settings()",
    "SELECT path AS id FROM pragma_database_list",
    "SELECT table_name AS id FROM information_schema.tables",
    "SELECT id FROM sqlite_master",
    "SELECT id FROM duckdb_logs",
    "SELECT id FROM other.main.ledger",
    "SELECT id FROM ledger AT (VERSION => 1)",
    "COPY ledger TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "ATTACH '{folder}/other.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "PRAGMA memory_limit = '100GB'",
    "SET memory_limit = '100GB'",
    "RESET memory_limit",
    "CALL pragma_version()",
    "USE memory",
    "DELETE FROM ledger",
    "UPDATE ledger SET commits = 0",
    "INSERT INTO ledger (version) VALUES (1)",
    "DROP TABLE ledger",
    "CREATE TABLE t (id INTEGER)",
    "CREATE TEMP TABLE t AS SELECT 1 AS id",
    "CREATE TEMP MACRO superseded(a, b) AS true",
    "CHECKPOINT",
    "BEGIN",
    "COMMIT",
    "EXPORT DATABASE '{folder}/out'",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE p AS SELECT 1",
    "SELECT 1 AS id; DELETE FROM ledger",
    "SELECT 1 AS id; SELECT 2 AS id",
    "SHOW TABLES",
    "SELECT * FROM (DESCRIBE ledger)",
    "SUMMARIZE ledger",
    "PIVOT awaited ON order_id USING count(*)",
    "SELECT $1 AS id",
    "SELECT random() AS id",
    "SELECT nextval('s') AS id",
    "SELECT error('x') AS id",
    "SELECT write_log('x') AS id",
    "SELECT repeat('x', 1000000000) AS id",
    "SELECT lpad('x', 1000000000, 'x') AS id",
    "SELECT format('{{:1000000000}}', 1) AS id",
    "SELECT range(10000000000) AS id",
    "SELECT i AS id FROM range(10) t(i)",
    "SELECT order_id || order_id AS id FROM awaited",
    "SELECT replace(order_id, 'x', order_id) AS id FROM awaited",
    "SELECT [order_id, order_id] AS id FROM awaited",
    "SELECT {{'a': order_id, 'b': order_id}} AS id FROM awaited",
    "SELECT list(order_id) AS id FROM awaited",
    "SELECT string_agg(order_id) AS id FROM awaited",
    "SELECT order_id::BLOB AS id FROM awaited",
    "SELECT order_id::INTEGER[] AS id FROM awaited",
    "WITH a AS (SELECT * FROM awaited), b AS (SELECT x.*, y.* FROM a x, a y) SELECT 1 AS id FROM b",
    "WITH a AS (SELECT * FROM awaited), b AS (FROM a x, a y) SELECT 1 AS id FROM b",
    "SELECT COLUMNS(*) + COLUMNS(*) FROM awaited",
    "SELECT 1 AS id FROM " + ", ".join(["awaited"] * 31),
    "SELECT " + " + ".join(["1"] * 4_500) + " AS id",
    "WITH a AS NOT MATERIALIZED (SELECT 1 AS id) SELECT id FROM a",
    "WITH a AS (SELECT 1) SELECT",
    "not even SQL",
    "-- nothing",
    "\x00",
]


@pytest.mark.parametrize("query", REFUSED)
def test_a_query_that_says_more_than_a_question_to_the_tables_is_refused(
    store: Store, cursor: Cursor, folder: Path, query: str
) -> None:
    """Who may edit the rules could read the machine's files, or change the ledger."""
    before = {file.name for file in folder.iterdir()}
    written = query.format(folder=folder, secret=folder / "secret.csv")
    failure(cursor, written)
    if written:  # also by `alerts rules check`, before it could run
        assert problem_of_query(Sql(kind="sql", query=written, key=("id",))) is not None
    assert {file.name for file in folder.iterdir()} == before
    assert store.rows("SELECT current_setting('memory_limit'), (SELECT count(*) FROM ledger)") == [("286.1 MiB", 1)]
    assert cursor.rows("SELECT count(*) FROM awaited") == [(ROWS,)]


def test_variables_of_the_process_are_no_tables(cursor: Cursor) -> None:
    """DuckDB reads data frames of Python by their names."""
    failure(cursor, "SELECT order_id AS id FROM frame")
    failure(cursor, "SELECT 1 AS id FROM pl WHERE EXISTS (WITH pl AS (SELECT 1) SELECT 1)")


@pytest.mark.parametrize("depth", [5, 20, 100, 900, 2_400])
@pytest.mark.parametrize("opening", ["(SELECT ", "NOT ", "abs(", "CASE WHEN true THEN "])
def test_deep_nesting_ends_in_an_answer_or_in_an_error(cursor: Cursor, opening: str, depth: int) -> None:
    """The process would end with a stack that is too deep, or plan for hours."""
    closing = {"NOT ": "", "CASE WHEN true THEN ": " END"}.get(opening, ")")
    inner = "true" if opening == "NOT " else "1"
    query = f"SELECT {opening * depth}{inner}{closing * depth} AS id"
    if len(query) > 20_000:
        pytest.skip("longer than a rule's query may be")
    with contextlib.suppress(RuleFailed):
        assert len(sql_rules.offenders(cursor, rule(query), CLOCK)) == 1


ENDLESS = [
    "WITH RECURSIVE t AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM t) SELECT max(id) AS id FROM t",
    "WITH RECURSIVE t AS (SELECT 1 AS id UNION ALL SELECT 1 FROM t) SELECT id FROM t WHERE id > 1",
    "SELECT sum(a.order_hash * b.order_hash * c.order_hash) AS id FROM awaited a, awaited b, awaited c",
    "SELECT a.order_id AS id FROM awaited a, awaited b, awaited c"
    " WHERE (a.order_hash * b.order_hash * c.order_hash) % 7 = 8",
]


@pytest.mark.long
@pytest.mark.parametrize("query", ENDLESS)
def test_an_endless_query_is_stopped_in_time_and_the_next_one_runs(cursor: Cursor, query: str) -> None:
    """One bad rule would silence all others."""
    started = time.monotonic()
    assert "took longer than 1 s" in failure(cursor, query, timeout="PT1S")
    assert time.monotonic() - started < PATIENCE_S
    cursor.end()
    cursor.begin()
    assert [o.key for o in sql_rules.offenders(cursor, rule("SELECT 7 AS id"), CLOCK)] == [{"id": "7"}]


@pytest.mark.parametrize(
    "condition",
    [
        f"'{'a' * 300}' LIKE '{'%a_' * 8}b'",
        f"order_id NOT LIKE '{'%x_' * 8}b'",
        f"order_id ILIKE '{'%x' * 8}b'",
        f"order_id LIKE '{'%x' * 8}b' ESCAPE '!'",
        "order_id LIKE lower(order_id)",
    ],
)
def test_a_pattern_that_explodes_is_refused(cursor: Cursor, condition: str) -> None:
    """One call of LIKE would run for years. It cannot be interrupted, so all rules on the tables would be silent, and
    `consume` would never end; with a constant text, `alerts rules check` itself would hang."""
    query = f"SELECT order_id AS id FROM awaited WHERE {condition}"
    assert "could take for ever; use contains or regexp_matches" in failure(cursor, query)
    assert problem_of_query(Sql(kind="sql", query=query, key=("id",))) is not None


@pytest.mark.parametrize(
    "condition",
    [
        f"order_id LIKE '{'%x' * 50}b'",
        "order_id LIKE 'order\\_1%'",
        "order_id ILIKE '%ORDER%' AND order_id NOT LIKE '%_y%'",
        "order_id IN ('a%', NULL) OR order_id LIKE 'order-1%x' ESCAPE '!'",
    ],
)
def test_a_pattern_that_is_found_soon_is_taken(cursor: Cursor, condition: str) -> None:
    """Else people could not ask for a prefix."""
    query = f"SELECT count(*) AS id FROM awaited WHERE {condition}"
    assert problem_of_query(Sql(kind="sql", query=query, key=("id",))) is None
    assert len(sql_rules.offenders(cursor, rule(query), CLOCK)) == 1


HUNGRY = [
    "SELECT median(a.order_hash * b.order_hash) AS id FROM awaited a, awaited b",
    "SELECT a.order_id AS id, b.order_id AS id2 FROM awaited a, awaited b ORDER BY b.order_id, a.order_id",
    "SELECT count(*) AS id FROM (SELECT DISTINCT a.order_id, b.order_id AS b FROM awaited a, awaited b)",
    "WITH RECURSIVE t AS (SELECT 1 AS id UNION ALL SELECT t.id + 1 FROM t, awaited) SELECT id FROM t ORDER BY id",
    "SELECT id FROM (SELECT row_number() OVER (ORDER BY a.order_id, b.order_id) AS id FROM awaited a, awaited b)",
]


@pytest.mark.slow
@pytest.mark.vital
@pytest.mark.parametrize("query", HUNGRY)
def test_a_query_that_eats_memory_or_disk_is_stopped(cursor: Cursor, query: str) -> None:
    """The consumer would be killed with it, or the disk would be full."""
    limits = Limits(30, memory_bytes=400_000_000, disk_bytes=300_000_000)
    most = _Most()
    with most:
        text = failure(cursor, query, limits)
    assert any(reason in text for reason in ("of memory", "to disk", "more memory is needed", "Out of Memory")), text
    assert most.memory < 1_500_000_000, f"{most.memory:,}"


class _Most(threading.Thread):
    """How much the process's memory grows."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.memory = 0
        self._before = self._now()
        self._done = threading.Event()

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def run(self) -> None:
        while not self._done.wait(0.005):
            self.memory = max(self.memory, self._now() - self._before)

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def test_each_row_is_an_offender_with_value_money_and_details(cursor: Cursor) -> None:
    found = sql_rules.offenders(
        cursor,
        rule(
            "SELECT order_id[:7] AS id, order_hash AS hash, 2 * order_hash AS n, 100 AS cost, 'CNY' AS currency, due_at"
            " FROM awaited WHERE order_hash BETWEEN 8 AND 9 ORDER BY order_hash;",
            "id",
            "hash",
            value="n",
            money="cost",
        ),
        CLOCK,
    )
    assert [(o.key, o.value, o.money_minor, o.currency, o.since) for o in found] == [
        ({"id": "order-8", "hash": "8"}, 16, 100, "CNY", CLOCK),
        ({"id": "order-9", "hash": "9"}, 18, 100, "CNY", CLOCK),
    ]
    assert found[0].details == {"due_at": "2026-01-01T00:00:00.000000Z"}


def test_no_row_is_no_offender(cursor: Cursor) -> None:
    assert sql_rules.offenders(cursor, rule("SELECT order_id AS id FROM awaited WHERE false"), CLOCK) == []


def test_many_rows_are_cut_and_the_alerts_say_so(cursor: Cursor) -> None:
    """A rule without a bound would open an alert for each coupon."""
    found = sql_rules.offenders(cursor, rule("SELECT order_hash AS id FROM awaited a CROSS JOIN ledger"), CLOCK)
    assert len(found) == sql_rules.MOST and all(o.details["cut_at"] == sql_rules.MOST for o in found)


def test_of_rows_with_one_key_the_first_counts(cursor: Cursor) -> None:
    """Else an alert would be opened and refused again within one evaluation."""
    found = sql_rules.offenders(
        cursor, rule("SELECT 'k' AS id, order_hash AS n FROM awaited WHERE order_hash < 9 ORDER BY n", value="n"), CLOCK
    )
    assert [(o.key, o.value) for o in found] == [({"id": "k"}, 0)]


@pytest.mark.parametrize(
    ("query", "of", "says"),
    [
        ("SELECT 1 AS other", {}, "returns no column id; it returns other"),
        ("SELECT 1 AS id", {"value": "n"}, "returns no column n"),
        ("SELECT 1 AS id", {"money": "lost"}, "returns no column lost"),
        ("SELECT 1 AS id, 'many' AS n", {"value": "n"}, "returns many in n, which is no number"),
        ("SELECT 1 AS id, 1e300 * 1e300 AS n", {"value": "n"}, "in n, which is no number"),
        ("SELECT nothing AS id FROM ledger", {}, "Referenced column"),
        ("SELECT sum(9223372036854775807::HUGEINT * 9223372036854775807 * 9) AS id FROM awaited", {}, "fails ("),
    ],
)
def test_a_query_that_does_not_fit_says_what_is_wrong(
    cursor: Cursor, query: str, of: dict[str, Any], says: str
) -> None:
    """The rule's author would search in the dark, or the rule would silently find nothing."""
    assert says in failure(cursor, query, **of)


def test_a_query_sees_the_committed_state_only_while_the_consumer_writes(store: Store, cursor: Cursor) -> None:
    cursor.end()
    with store.transaction():
        store.execute("INSERT INTO awaited VALUES (-1, 'uncommitted', TIMESTAMP '2026-01-01')")
        cursor.begin()
        query = "SELECT order_id AS id FROM awaited WHERE order_hash = -1"
        assert sql_rules.offenders(cursor, rule(query), CLOCK) == []
        cursor.end()
        store.execute("DELETE FROM awaited WHERE order_hash = -1")
    cursor.begin()
