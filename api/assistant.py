"""A server of the Model Context Protocol: assistants ask the questions of the registry, by name or in plain words.

It only reads. Every answer is bounded and says if there is more. `source_of` in `server` is the one place through which
questions reach the data; a reader's rights belong there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.api.client import asking
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.plain import plain
from coupon_ledger.questions.asking import Source
from coupon_ledger.questions.metrics.definitions import METRICS
from coupon_ledger.questions.plain_words import asking as plain_words
from coupon_ledger.questions.plain_words.understanding import TITLES
from coupon_ledger.questions.registry import QUESTIONS

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

MOST_ROWS: Final = 200
MOST_CHARACTERS: Final = 60_000
_ROWS: Final = 50
_INSTRUCTIONS: Final = (
    "Reads a ledger of coupon events: campaigns, coupons, orders, metrics, alerts. Start with `ask`. If it is unsure or"
    " refuses, its alternatives can be asked with `question`. Amounts (names that end in _minor) are in minor units of"
    " the row's currency. Times are UTC. Relative times count from the data's clock, not from today."
)
SHOWN: Final = ("metrics", *(name for name in TITLES if name in QUESTIONS))
"""The questions that assistants may ask: those with a title for people."""


def serve(database: Path, zone: str) -> None:
    """Serve on standard input and output until the input ends."""

    @contextmanager
    def source_of() -> Iterator[Source]:
        with asking(database) as source, source.snapshot() as snapshot:
            yield snapshot

    server(source_of, zone).run("stdio")


def server(source_of: Callable[[], AbstractContextManager[Source]], zone: str) -> MCPServer[Any]:
    """The server. `source_of`: the source to ask for one call; limit it to what the caller may read."""
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations

    made: MCPServer[Any] = MCPServer("coupon-ledger", instructions=_INSTRUCTIONS)
    reads = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

    @contextmanager
    def asked() -> Iterator[Source]:
        try:
            with source_of() as source:
                yield source
        except LedgerError as error:
            raise ToolError(str(error)) from error

    @made.tool(annotations=reads, structured_output=False)
    def ask(question: str, limit: int = _ROWS) -> str:
        """Answer a question in plain words, in English or Chinese, for example "use rate by channel last week",
        "top 5 campaigns by discount in November", "哪个活动亏钱最多", "state of coupon C123".

        Returns JSON: outcome (understood, unsure, refused), the question and parameters that it was read as, doubts,
        alternatives, rows. Tell the user about doubts. limit: at most this many rows, up to 200."""
        with asked() as source:
            return _bounded(plain_words.as_plain(plain_words.ask(source, question, zone, limit=_limit(limit))))

    @made.tool(annotations=reads, structured_output=False)
    def question(name: str, parameters: dict[str, Any] | None = None, limit: int = _ROWS) -> str:
        """Ask a question of the registry by its name. `questions_list` has the names and the JSON schema of each one's
        parameters. Instants are ISO 8601. Returns JSON: rows, more. limit: at most this many rows, up to 200."""
        if name not in SHOWN:
            raise ToolError(f"question {name[:60]}: there is none of that name; see questions_list")
        with asked() as source:
            most = _limit(limit)
            answer = source.ask(
                name, **{n: v for n, v in (parameters or {}).items() if n != "limit"} | _few(name, most)
            )
            rows = list(islice((row for f in answer.frames for row in f.iter_rows(named=True)), most + 1))
            return _bounded({"rows": rows[:most], "more": len(rows) > most, "data_clock": answer.as_of.data_clock})

    @made.tool(annotations=reads, structured_output=False)
    def questions_list(name: str | None = None) -> str:
        """List the questions that `question` takes, each with what it is about; with `name`, the JSON schema of that
        question's parameters."""
        if name is None:
            return json.dumps({one: TITLES.get(one, "operating metrics over any slice and period") for one in SHOWN})
        if name not in SHOWN:
            raise ToolError(f"question {name[:60]}: there is none of that name; call questions_list without a name")
        return json.dumps(QUESTIONS[name].validator.model_json_schema(), ensure_ascii=False)

    @made.tool(annotations=reads, structured_output=False)
    def metrics_list(containing: str = "") -> str:
        """List the operating metrics for the question `metrics`: name, unit, and the dimensions by which it is known.
        containing: only metrics whose name or meaning contains this text."""
        found = [
            m for m in METRICS.values() if containing.lower() in f"{m.name} {m.english} {m.chinese} {m.meaning}".lower()
        ]
        return _bounded(
            {"rows": [{"name": m.name, "unit": m.unit, "view": m.view, "by": list(m.dimensions)} for m in found]}
        )

    @made.resource("metric://{name}", mime_type="application/json")
    def metric(name: str) -> str:
        """What a metric means: definition, caveat, unit, dimensions and SQL."""
        from mcp.server.mcpserver.exceptions import ResourceNotFoundError

        if name not in METRICS:
            raise ResourceNotFoundError(f"metric {name[:60]}: there is none of that name; see metrics_list")
        return json.dumps(definition(name), ensure_ascii=False)

    return made


def definition(name: str) -> Mapping[str, Any]:
    """The definition of a metric, as plain values."""
    m = METRICS[name]
    names = {"name": m.name, "english": m.english, "chinese": m.chinese, "unit": m.unit, "view": m.view}
    return {
        **names,
        "meaning": m.meaning,
        "caveat": m.caveat,
        "grain": m.grain,
        "sql": m.sql,
        "dimensions": m.dimensions,
    }


def _limit(limit: int) -> int:
    return max(1, min(limit, MOST_ROWS))


def _few(name: str, most: int) -> dict[str, int]:
    """The parameter that limits the rows of a question, if it has one; one row more shows whether there are more."""
    return {"limit": most + 1} if "limit" in QUESTIONS[name].parameters else {}


def _bounded(answer: dict[str, Any]) -> str:
    """The answer as JSON of at most `MOST_CHARACTERS`: rows are left out from the end, and `more` says so."""
    while len(text := json.dumps(plain(answer), ensure_ascii=False)) > MOST_CHARACTERS and answer.get("rows"):
        answer = {**answer, "rows": answer["rows"][: len(answer["rows"]) // 2], "more": True}
    return text
