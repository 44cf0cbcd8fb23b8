"""Problems of rules files and of files of tests, as commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupon_ledger.cli.terminal import visible
from coupon_ledger.reports.labels import text_of
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.projections.alerts.text_file import Problem


def line_of(problem: Problem) -> str:
    """The problem on one line, as compilers write theirs."""
    where = f"{problem.file}:{problem.line}:{problem.column}"
    said = f"{problem.path}: {text_of(problem.said)}" if problem.path else text_of(problem.said)
    return visible(f"{where}: {said}")


def row_of(problem: Problem) -> Row:
    """The problem for machines."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "rule": problem.rule,
        "problem": str(problem.said),
    }
