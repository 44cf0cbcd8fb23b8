"""`alerts backtest`: try rules on the past."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.asking import together
from coupon_ledger.cli.options import LOG, instant_option, output_option, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.questions.backtest import comparison
from coupon_ledger.questions.backtest.parameters import BacktestOf
from coupon_ledger.questions.parameters import about
from coupon_ledger.reports.labels import say, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from coupon_ledger.projections.alerts.rules import Rule
    from coupon_ledger.questions.asking import Source

_DAY: Final = timedelta(days=1)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--rules", "file", type=_file, help="The rules to try. [default: those of the setting alert-rules]")
@click.option("--rule", "names", multiple=True, metavar="NAME", help="Try only this rule (repeatable).")
@instant_option("--from", about(BacktestOf, "since"))
@instant_option("--to", about(BacktestOf, "until"))
@click.option(
    "--clock",
    type=click.Choice(["recorded", "occurred"]),
    default="recorded",
    show_default=True,
    help=about(BacktestOf, "clock"),
)
@click.option("--labels", type=_file, help="Known faults, as `simulate --labels` writes them: say which are found.")
@click.option(
    "--sweep",
    metavar="NAME.FIELD=A,B,C",
    help="Try one rule with several values of a field of its expr, such as device_farm.at_least=3,5,8.",
)
@click.option("--differences", is_flag=True, help="List each alert that only one of the two sets of rules raises.")
@click.option("--faults", is_flag=True, help="With --labels: list each fault, with the rules that found it.")
@settings_options(*LOG, "database", "alert-rules")
@output_option
def backtest(
    file: Path | None,
    names: tuple[str, ...],
    labels: Path | None,
    sweep: str | None,
    differences: bool,
    faults: bool,
    settings: Settings,
    output: str,
    **window: Any,
) -> None:
    """Try alert rules on the past, beside the rules in force.

    The rules are evaluated on the whole journal by the code that evaluates them live, so the result is what would have
    happened. Rules on the tables (kinds violation, sql, guardrail, reconciliation, health) are left out.

    \b
    coupon-ledger alerts backtest --rules rules.yaml --from 2026-11-10 --to 2026-11-12
    coupon-ledger alerts backtest --rule device_farm --sweep device_farm.at_least=3,5,8,13
    coupon-ledger alerts backtest --rules rules.yaml --differences
    coupon-ledger alerts backtest --labels labels.ndjson --faults
    """
    known = comparison.read_faults(labels) if labels else []
    period = {"since": window["from"], "until": window["to"], "clock": window["clock"]}
    rules = _rules(settings, file, names)
    with together(settings) as source:
        current = _alerts(source, None, period)
        days = _days(source, current, period)
        if sweep is not None:
            rows = _swept(source, rules, sweep, period, days, known)
        else:
            tried = _alerts(source, rules, period)
            mine = [a for a in current if not names or a["rule"] in names]
            if differences:
                rows = list(comparison.differences(tried, mine))
            elif faults:
                rows = list(comparison.by_fault(tried, known))
            else:
                conditions = {rule.name: rule.condition for rule in rules}
                rows = list(comparison.by_rule(tried, mine, days, known, conditions))
    if output == "table":
        for row in rows:
            row.pop("condition", None)
    print_rows(rows, output)


def _rules(settings: Settings, file: Path | None, names: Sequence[str]) -> list[Rule]:
    """The streamed rules to try. Says what is wrong in the file, and which rules are left out."""
    from coupon_ledger.projections.alerts.engine import topics_of
    from coupon_ledger.projections.alerts.rules_file import load

    loaded = load(file or settings.alert_rules)
    for problem in loaded.problems:
        warn(f"{problem.file}:{problem.line}: {text_of(problem.said)}")
    rules = loaded.rule_set.in_force()
    if unknown := sorted(set(names) - {rule.name for rule in rules}):
        raise click.UsageError(f"no rule {unknown[0]}; `coupon-ledger alerts rules list` shows them")
    chosen = [rule for rule in rules if not names or rule.name in names]
    streamed = [rule for rule in chosen if topics_of(rule)]
    if left := len(chosen) - len(streamed):
        echo_wrapped(say("{left:count} rule{left:s} on the tables {left:were} left out", left=left), err=True)
    return streamed


def _alerts(source: Source, rules: Sequence[Rule] | None, period: Mapping[str, Any]) -> list[dict[str, Any]]:
    chosen = None if rules is None else [rule.as_json() for rule in rules]
    answer = source.ask("alert-backtest", rules=chosen, **period)
    return [row for frame in answer.frames for row in frame.iter_rows(named=True)]


def _days(source: Source, alerts: Sequence[Mapping[str, Any]], period: Mapping[str, Any]) -> float:
    """The length of the period in days, 0 if it is unknown."""
    since, until = period["since"], period["until"]
    if since is None or until is None:
        answer = source.ask("event-span")
        first, last = next(iter(answer.frames)).row(0)
        since, until = since or first, until or last
    if since is None or until is None:
        return 0.0
    since, until = (at.replace(tzinfo=None) for at in (since, until))
    return max(float((until - since) / _DAY), 1e-9)


def _swept(
    source: Source,
    rules: Sequence[Rule],
    sweep: str,
    period: Mapping[str, Any],
    days: float,
    faults: Sequence[comparison.Fault],
) -> list[dict[str, Any]]:
    """One row per value of the field."""
    rows: list[dict[str, Any]] = []
    for value, rule in _variants(rules, sweep):
        tried = _alerts(source, [rule], period)
        [row] = comparison.by_rule(tried, [], days, faults, {rule.name: rule.condition})
        field = sweep.partition("=")[0].rpartition(".")[2]
        rows.append({"rule": rule.name, field: value, **{k: v for k, v in row.items() if k in _OF_SWEEP}})
    return rows


_OF_SWEEP: Final = ("alerts", "alerts_per_day", "faults_found", "unfounded", "delay_minutes", "caught_minor")


def _variants(rules: Sequence[Rule], sweep: str) -> Iterator[tuple[str, Rule]]:
    """The rule with each value of the field."""
    from pydantic import ValidationError

    from coupon_ledger.projections.alerts.rules import Rule as Model

    place, equals, values = sweep.partition("=")
    name, dot, field = place.rpartition(".")
    rule = next((rule for rule in rules if rule.name == name), None)
    if not (equals and dot and values) or rule is None:
        raise click.UsageError(
            f"--sweep {sweep}: name a rule that is tried, a field and values: device_farm.at_least=3,5"
        )
    known = list(type(rule.expr).model_fields)
    if field not in known:
        close = alike([field], known)
        meant = f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known)}"
        raise click.UsageError(f"--sweep {sweep}: rules of kind {rule.expr.kind} have no field {field!r}{meant}")
    for value in values.split(","):
        content = rule.model_copy(update={"action": None}).as_json()  # its proof is of another condition
        content["expr"] = {**content["expr"], field: value.strip()}
        try:
            yield value.strip(), Model.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise click.UsageError(f"--sweep {field}={value}: {first['msg']}") from error
