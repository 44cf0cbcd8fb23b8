"""How far a database is behind its log: what `status` and the HTTP API show."""

from __future__ import annotations

from typing import Any

from coupon_ledger.ledger.errors import LogNotInitialised, LogReplaced
from coupon_ledger.ledger.log import LogReader
from coupon_ledger.ledger.topics import INPUT_TOPICS


def status_of(summary: dict[str, Any], log: LogReader, log_problem: str | None = None) -> dict[str, Any]:
    """The fields of `summary`, plus `lag`, `open_transaction` and `log_problem`; `partitions` has the first two per
    partition.

    `open_transaction`: the number of acknowledged offsets that nobody can read until a transaction ends.
    `log_problem`: why `log` is not the log from which the database was filled; None if it is that log. Raises
    `LogReplaced` if there is such a reason and the log's topics are missing.
    """
    accounts = {(p["topic"], p["partition"]): p for p in summary["partitions"]}
    try:
        there = log.partitions(INPUT_TOPICS)
    except LogNotInitialised as error:
        if log_problem is None:
            raise
        raise LogReplaced(f"log {log.url}: {log_problem}; restore it from an archive, or check --log") from error
    ends, high = log.end_positions(there), log.high_watermarks(there)
    partitions = [_partition(*p, end, high[p], accounts.get(p, {})) for p, end in sorted(ends.items())]
    if log_problem is None and (shorter := [p for p in partitions if p["next_offset"] > p["end"]]):
        log_problem = "partition {partition} of {topic} ends at {end}, and was read up to {next_offset}".format(
            **shorter[0]
        )
    sums = {name: sum(p[name] for p in partitions) for name in ("lag", "open_transaction")}
    return {**summary, **sums, "log_problem": log_problem, "partitions": partitions}


def _partition(topic: str, partition: int, end: int, high: int, account: dict[str, Any]) -> dict[str, Any]:
    next_offset = account.get("next_offset", 0)
    parts = ("read", "applied", "repeats", "conflicts", "dead_letters")
    return {
        "topic": topic,
        "partition": partition,
        "next_offset": next_offset,
        "end": end,
        "lag": max(0, end - next_offset),
        "open_transaction": max(0, high - end),
        **{name: account.get(name, 0) for name in parts},
    }
