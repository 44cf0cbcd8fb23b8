"""`alerts backtest`: try rules on the past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.alerts.trying import Trial
from coupon_ledger.cli.asking import together
from coupon_ledger.cli.options import LOG, instant_option, output_option, settings_options
from coupon_ledger.cli.output import Fit, print_rows
from coupon_ledger.cli.tables import warn
from coupon_ledger.cli.usage import Misused
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import note
from coupon_ledger.questions.backtest.parameters import BacktestOf
from coupon_ledger.questions.parameters import about
from coupon_ledger.reports.alerts import key_in_words
from coupon_ledger.reports.labels import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coupon_ledger.projections.alerts.rules import Rule
    from coupon_ledger.questions.backtest.comparison import Fault

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

    Rules on the stream are evaluated on the whole journal by the code that evaluates them live, rules on violations on
    all that count. Rules that ask the tables are asked in states of the past. What the past does not say, such as how
    far the consumer was behind, is named, and the alerts that were really raised count.

    \b
    coupon-ledger alerts backtest --rules rules.yaml --from 2026-11-10 --to 2026-11-12
    coupon-ledger alerts backtest --rule device_farm --sweep device_farm.at_least=3,5,8,13
    coupon-ledger alerts backtest --rules rules.yaml --differences
    coupon-ledger alerts backtest --labels labels.ndjson --faults
    """
    from coupon_ledger.questions.backtest import comparison

    if window["from"] and window["to"] and window["to"] < window["from"]:
        raise Misused(note("--to is before --from; a period ends after it begins"))
    known = comparison.read_faults(labels) if labels else []
    period = {"since": window["from"], "until": window["to"], "clock": window["clock"]}
    rules = _rules(settings, file, names)
    with together(settings):
        trial = Trial(settings, period)
        days = trial.days()
        if sweep is not None:
            rows = _swept(trial, rules, sweep, days, known)
        elif faults:
            trial.say_limits(rules)
            rows = list(comparison.by_fault(trial.alerts(rules), known))
        else:
            trial.say_limits(rules)
            tried, current = trial.beside_those_in_force(rules, names)
            if differences:
                rows = list(comparison.differences(tried, current))
                rows = trial.with_those_behind(rows, [*rules, *trial.rules_in_force()])
            else:
                conditions = {rule.name: rule.condition for rule in rules}
                rows = list(comparison.by_rule(tried, current, days, known, conditions))
                for row in rows:
                    if row["rule"] in trial.failed:
                        row["unfounded"] = None  # the rest is not known, so this is no proof
    if output == "table":
        _print_table(rows)
    else:
        print_rows(rows, output)


_HIDDEN: Final = frozenset({"condition", "rule_version", "opened_at", "last_true_at", "details"})
_DIFFERENCE: Final = (
    "only_in rule key fired_at behind_users behind_coupons behind_orders money_minor value threshold closed_at currency"
)
_FEW: Final = 3
"""How many ids of a list a table shows."""


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    shown = []
    for row in rows:
        names = _DIFFERENCE.split() if "only_in" in row else [name for name in row if name not in _HIDDEN]
        shown.append({name: _for_people(name, row[name]) for name in names})
    print_rows(shown, "table", fit=Fit(wrap="found_by"))


def _for_people(name: str, value: Any) -> Any:
    if name == "key":
        return key_in_words(json.loads(value))
    return _few(value) if name.startswith("behind_") and value is not None else value


def _few(ids: Sequence[str]) -> str:
    more = len(ids) - _FEW
    return ", ".join(ids[:_FEW]) + (f" +{more}" if more > 0 else "")


def _rules(settings: Settings, file: Path | None, names: Sequence[str]) -> list[Rule]:
    """The rules to try. Says what is wrong in the file."""
    from coupon_ledger.projections.alerts.rules_file import load

    loaded = load(file or settings.alert_rules)
    for problem in loaded.problems:
        warn(f"{problem.file}:{problem.line}: {text_of(problem.said)}")
    rules = loaded.rule_set.in_force()
    if unknown := sorted(set(names) - {rule.name for rule in rules}):
        raise Misused(note("no alert rule {name}; `coupon-ledger alerts rules list` shows them", name=unknown[0]))
    return [rule for rule in rules if not names or rule.name in names]


def _swept(
    trial: Trial, rules: Sequence[Rule], sweep: str, days: float, faults: Sequence[Fault]
) -> list[dict[str, Any]]:
    """One row per value of the field."""
    from coupon_ledger.questions.backtest.comparison import by_rule

    variants = list(_variants(rules, sweep))
    field = sweep.partition("=")[0].rpartition(".")[2]
    trial.say_limits([variants[0][1]])
    rows: list[dict[str, Any]] = []
    for value, rule in variants:
        [row] = by_rule(trial.alerts([rule]), [], days, faults, {rule.name: rule.condition})
        rows.append({"rule": rule.name, field: value, **{k: v for k, v in row.items() if k in _OF_SWEEP}})
    return rows


_OF_SWEEP: Final = frozenset("alerts alerts_per_day faults_found unfounded delay_minutes caught_minor currency".split())


def _variants(rules: Sequence[Rule], sweep: str) -> Iterator[tuple[str, Rule]]:
    """The rule with each value of the field."""
    from pydantic import ValidationError

    from coupon_ledger.projections.alerts.rules import Rule as Model
    from coupon_ledger.projections.alerts.troubles import NO_SINGLE_VALUE, no_rule, own_field, said_of

    place, equals, values = sweep.partition("=")
    name, dot, field = place.rpartition(".")
    rule = next((rule for rule in rules if rule.name == name), None)
    if not (equals and dot and values):
        raise Misused(
            note("--sweep {sweep}: name a rule, a field and values, such as device_farm.at_least=3,5", sweep=sweep)
        )
    if rule is None:
        why = no_rule(name, [rule.name for rule in rules])
        raise Misused(note("--sweep {sweep}: {why}", sweep=sweep, why=why))
    known = list(type(rule.expr).model_fields)
    if field not in known:
        raise Misused(note("--sweep {sweep}: {why}", sweep=sweep, why=own_field(field, known)))
    for value in map(str.strip, values.split(",")):
        content = rule.model_copy(update={"action": None}).as_json()  # its proof is of another condition
        content["expr"] = {**content["expr"], field: value}
        try:
            yield value, Model.model_validate(content)
        except ValidationError as error:
            single = field != "kind" and error.errors()[0]["type"] not in NO_SINGLE_VALUE
            why = said_of(error) if single else note(
                "{field} cannot be swept, since it has no single value; change it in a file, and try that with --rules",
                field=field,
            )  # fmt: skip
            raise Misused(note("--sweep {place}: {why}", place=place, why=why)) from error
