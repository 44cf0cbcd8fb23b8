"""The parameter models of backtests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from coupon_ledger.questions.parameters import Hint, Parameters, Since, Until


class BacktestOf(Parameters):
    """Rules, and the time in which to try them."""

    rules: Annotated[
        tuple[Mapping[str, Any], ...] | None,
        Hint("are no list of rules; give each as `alerts rules show NAME --output json` prints its content"),
        "The rules to try. [default: those in force]",
    ] = None
    since: Since = None
    until: Until = None
    clock: Annotated[
        Literal["recorded", "occurred"],
        "Order of the events: as they were recorded, or as they happened, as if none had been late.",
    ] = "recorded"


class Period(Parameters):
    """A period."""

    since: Since = None
    until: Until = None


class BehindOf(Parameters):
    """Alerts that a backtest found."""

    alerts: Annotated[
        tuple[Mapping[str, Any], ...],
        Hint("are no list of alerts; give each as `alert-backtest` says it, with its rule"),
        "The alerts: the rule, and of the row its `key`, `opened_at`, `last_true_at` and `details`.",
    ]
