"""`alerts rules`: list, show and check alert rules; print the defaults."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from coupon_ledger.cli.alerts.problems import line_of, row_of
from coupon_ledger.cli.options import output_option, settings_options
from coupon_ledger.cli.output import print_row, print_rows
from coupon_ledger.cli.tables import echo_wrapped
from coupon_ledger.cli.terminal import visible
from coupon_ledger.ledger.errors import OffendersFound, UnknownRule, alike
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import note
from coupon_ledger.reports.labels import say, text_of
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.projections.alerts.rules import Rule
    from coupon_ledger.projections.alerts.rules_file import Loaded
    from coupon_ledger.projections.alerts.text_file import Problem

_COLUMNS: Final = ("rule", "severity", "rule_kind", "group", "rule_state", "origin")


@click.group()
def rules() -> None:
    """List, show and check the alert rules: those of the file that the setting alert-rules names, and the defaults.

    \b
    coupon-ledger alerts rules list
    coupon-ledger alerts rules check rules.yaml
    """


@rules.command("list")
@settings_options("alert-rules", "database")
@output_option
def list_(settings: Settings, output: str) -> None:
    """List the rules in force, and those of the file that are not, with where each comes from.

    The consumer puts the rules of the file in force. While the file has a mistake, the rules that it is about stay in
    force as they were. Problems of the file go to standard error.

    \b
    coupon-ledger alerts rules list
    coupon-ledger alerts rules list --alert-rules rules.yaml --output json
    """
    from coupon_ledger.cli.alerts.rules_in_force import beside_the_file, differences, rules_in_force

    loaded = _loaded(settings)
    listed = beside_the_file(loaded, rules_in_force(settings, output))
    filed = {rule.name: rule.version for rule in loaded.rule_set.rules} if loaded.readable else {}
    rows = (
        {
            **_row(one.rule, loaded, settings),
            "rule_state": one.state,
            "in_force_since": one.since,
            "version": one.rule.version,
            "version_of_file": filed.get(one.rule.name),
        }
        for one in listed
    )
    print_rows(rows, output, _COLUMNS if output == "table" else None)
    if output == "table":
        for sentence in differences(loaded, listed, used=settings.has_alerts):
            echo_wrapped(sentence)


@rules.command()
@click.argument("name")
@settings_options("alert-rules")
@output_option
def show(name: str, settings: Settings, output: str) -> None:
    """Show the rule NAME as it stands in a file, with what it has from its group and from a default.

    \b
    coupon-ledger alerts rules show device_farm
    """
    loaded = _loaded(settings)
    known = {rule.name: rule for rule in loaded.rule_set.rules}
    if name not in known:
        near = alike([name], known)
        if near:
            raise UnknownRule(note("no alert rule {name}; did you mean {near}?", name=name, near=near))
        raise UnknownRule(note("no alert rule {name}; `coupon-ledger alerts rules list` shows them", name=name))
    rule = known[name]
    row = {**_row(rule, loaded, settings), "version": rule.version}
    if output != "table":
        print_row({**row, "content": rule.as_json()}, output)
        return
    from coupon_ledger.projections.alerts.writing import rule_yaml

    click.echo(f"# {rule.group} · {row['origin']} · {rule.version}")
    click.echo(rule_yaml(rule), nl=False)


@rules.command()
@click.argument("file", required=False)
@settings_options("alert-rules")
@output_option
def check(file: str | None, settings: Settings, output: str) -> None:
    """Check FILE, by default that of the setting alert-rules; - is standard input, as YAML. Prints each problem with
    FILE:LINE:COLUMN, the path of the field and what to write. Exits with 6 if there are any. Also checks whether the
    secrets of channels are there.

    \b
    coupon-ledger alerts rules check rules.yaml
    """
    from coupon_ledger.projections.alerts.document import MOST_BYTES
    from coupon_ledger.projections.alerts.rules_file import load, load_bytes

    if file == "-":
        loaded = load_bytes(sys.stdin.buffer.read(MOST_BYTES + 1), "-")
    else:
        loaded = load(file or settings.alert_rules)
    problems = sorted([*loaded.problems, *_of_channels(loaded, file or str(settings.alert_rules))], key=_place)
    if output != "table":
        print_rows(map(row_of, problems), output)
    else:
        for problem in problems:
            click.echo(line_of(problem))
    name = visible(file or str(settings.alert_rules or "") or text_of(note("the defaults")))
    if problems:
        raise OffendersFound(
            note("{file}: {n:count} problem{n:s}; {rules:count} rules apply all the same",
                 file=name, n=len(problems), rules=len(loaded.rule_set.rules))
        )  # fmt: skip
    if output == "table":
        click.echo(say("{file}: {rules:count} rules, no problem", file=name, rules=len(loaded.rule_set.rules)))


@rules.command()
def defaults() -> None:
    """Print the file of the default rules, with the reasons for their thresholds, to begin a file with.

    \b
    coupon-ledger alerts rules defaults > rules.yaml
    """
    from coupon_ledger.projections.alerts.rules_file import defaults_text

    click.echo(defaults_text(), nl=False)


def _of_channels(loaded: Loaded, file: str) -> list[Problem]:
    """The problems of the channels of the file."""
    from coupon_ledger.delivery import channels
    from coupon_ledger.projections.alerts.text_file import Problem

    _, found = channels.read(loaded.channels, loaded.channel_lines, file=file)
    return [Problem(file, problem.line or 1, 1, "", problem.text) for problem in found]


def _place(problem: Problem) -> tuple[int, int]:
    return problem.line, problem.column


def _loaded(settings: Settings) -> Loaded:
    """The rules that apply. Problems are printed on standard error."""
    from coupon_ledger.projections.alerts.rules_file import load

    loaded = load(settings.alert_rules)
    for problem in loaded.problems:
        click.echo(say("warning: {what}", what=line_of(problem)), err=True)
    return loaded


def _row(rule: Rule, loaded: Loaded, settings: Settings) -> Row:
    return {
        "rule": rule.name,
        "severity": rule.severity,
        "rule_kind": rule.expr.kind,
        "group": rule.group,
        "enabled": rule.enabled,
        "origin": _origin(rule, loaded, settings),
    }


def _origin(rule: Rule, loaded: Loaded, settings: Settings) -> str | None:
    """Where the rule comes from; None if the file has it no more, or cannot be read."""
    from coupon_ledger.projections.alerts.rules_file import defaults

    if rule.name in loaded.lines:
        return f"{settings.alert_rules}:{loaded.lines[rule.name]}"
    filed = loaded.rule_set.rules if loaded.readable else ()
    is_default = any(rule.name == one.name for one in filed) or rule in defaults().rules
    return text_of(note("the defaults")) if is_default else None
