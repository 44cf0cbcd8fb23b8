"""What a rule finds that is evaluated on the tables (kinds `SETTLED` and `ASKED`)."""

from __future__ import annotations

from coupon_ledger.ledger.errors import LedgerError, RuleFailed
from coupon_ledger.ledger.words import note, of_error
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Guardrail, Health, Reconciliation, Rule, Sql, Violations
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.questions.alerts import guardrail, health, reconciliation, sql_rules
from coupon_ledger.questions.alerts.health import Vitals
from coupon_ledger.questions.alerts.standing import Standing
from coupon_ledger.questions.alerts.violations import judge

__all__ = ["Standing", "Vitals", "offenders_of"]


def offenders_of(
    reading: Cursor, rule: Rule, vitals: Vitals | None = None, standing: Standing | None = None
) -> list[Offender]:
    """The offenders of one rule, one per key. Call it between `begin` and `end` of the cursor, so that it reads one
    committed state. Before the first event, only health rules find anything.

    `vitals`: what only the owner knows, for health rules. `standing`: pass the same object each time, so that only what
    changed is read for `violation` rules; use it from one thread at a time.

    Raises `RuleFailed` if the rule cannot be evaluated; the cursor's transaction must then be ended. Raises
    `QueryStopped` and DuckDB's interruption if the caller stops the cursor.
    """
    [(clock,)] = reading.rows("SELECT data_clock FROM ledger")
    expr, vitals = rule.expr, vitals or Vitals()
    if isinstance(expr, Health):
        clock = clock or vitals.now
    if clock is None:
        return []
    try:
        match expr:
            case Violations():
                return judge((standing or Standing()).read(reading, expr.codes), expr, clock)
            case Sql():
                return sql_rules.offenders(reading, rule, clock)
            case Reconciliation():
                return reconciliation.offenders(reading, clock)
            case Guardrail():
                return guardrail.offenders(reading, expr, clock)
            case Health():
                return health.offenders(reading, expr, clock, vitals)
    except RuleFailed:
        raise
    except LedgerError as error:
        raise RuleFailed(note("rule {rule}: {why}", rule=rule.name, why=of_error(error))) from error
    raise ValueError(f"rule {rule.name}: is of kind {expr.kind}, which is not evaluated on the tables")
