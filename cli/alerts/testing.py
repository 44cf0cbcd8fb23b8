"""`alerts test`: run tests of alert rules, or send a test message through a channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coupon_ledger.cli.alerts.problems import line_of, row_of
from coupon_ledger.cli.options import output_option, settings_options
from coupon_ledger.cli.output import print_row, print_rows
from coupon_ledger.cli.tables import echo_wrapped
from coupon_ledger.cli.terminal import visible
from coupon_ledger.ledger.errors import CommandRefused, RuleTestFailed, UnusableFile
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.alerts import key_in_words
from coupon_ledger.reports.labels import say, text_of
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.projections.alerts.rule_tests import Expectation, ExpectedAlert, Suite
    from coupon_ledger.questions.backtest.rule_tests import Difference, Outcome, RaisedAlert


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[TESTS.yaml]...")
@click.option("--channel", metavar="NAME", help="Send one test message through this channel of the rules file.")
@settings_options("alert-rules", opens=True)
@output_option
def test(files: tuple[Path, ...], channel: str | None, settings: Settings, output: str) -> None:
    """Run the tests of alert rules in files, as `promtool test rules` does; or send a test message.

    A test gives events, and says which alerts the rules must raise on them. The rules are evaluated as live and in a
    backtest, in a database of its own for each test; nothing is recorded. Prints each test as passed or failed, with
    each alert that differs. Exits with 1 if a test fails, with 2 if a file has a mistake. docs/alert-rules.md describes
    the files.

    With --channel, sends one message through a channel of the rules file, and says what the other side answered. No
    alert is made and nothing is recorded. Exits with 1 if the message is not accepted.

    \b
    coupon-ledger alerts test tests.yaml
    coupon-ledger alerts test tests.yaml --output json
    coupon-ledger alerts test --channel wecom_risk --alert-rules rules.yaml
    """
    if bool(files) == (channel is not None):
        raise click.UsageError("name files of tests, or a channel with --channel")
    if channel is not None:
        _send(settings, channel, output)
    else:
        _run(files, output)


# ── A message ────────────────────────────────────────────────────────────────────────────────────────────────


def _send(settings: Settings, name: str, output: str) -> None:
    from coupon_ledger.api.alert_webhook import channel_of
    from coupon_ledger.delivery.deliverer import send_test

    outcome = send_test(channel_of(settings.alert_rules, name))
    accepted = outcome.result == "sent"
    if output != "table":
        print_row({"channel": name, "accepted": accepted, "answer": outcome.answer or outcome.reason or None}, output)
    elif accepted and outcome.answer:
        echo_wrapped(say("channel {channel}: the test message was accepted ({answer})",
                         channel=name, answer=visible(outcome.answer)))  # fmt: skip
    elif accepted:
        echo_wrapped(say("channel {channel}: the test message was accepted", channel=name))
    if not accepted:
        raise CommandRefused(
            note("channel {channel}: the test message was not accepted ({why}); docs/alert-channels.md says what"
                 " each kind of channel needs", channel=name, why=visible(outcome.reason))
        )  # fmt: skip


# ── Tests ────────────────────────────────────────────────────────────────────────────────────────────────────


def _run(files: Sequence[Path], output: str) -> None:
    from coupon_ledger.projections.alerts.rule_tests import read_tests
    from coupon_ledger.questions.backtest.rule_tests import run

    suites = [read_tests(file) for file in files]
    _check(suites, output)
    outcomes = ((suite, outcome) for suite in suites for outcome in run(suite))
    failed = number = 0
    rows = []
    for suite, outcome in outcomes:
        number += 1
        failed += not outcome.passed
        if output == "table":
            _show(suite, outcome)
        else:
            rows.append(_row(suite, outcome))
    if output != "table":
        print_rows(rows, output)
    if failed:
        raise RuleTestFailed(note("{n:count} of {all:count} tests failed", n=failed, all=number))
    if output == "table":
        click.echo(say("{n:count} test{n:s} passed", n=number))


def _check(suites: Sequence[Suite], output: str) -> None:
    """Print the mistakes in the files. Raises `UnusableFile` if there are any."""
    problems = [problem for suite in suites for problem in suite.problems]
    if not problems:
        return
    if output != "table":
        print_rows(map(row_of, problems), output)
    else:
        for problem in problems:
            click.echo(line_of(problem))
    named = sorted({problem.file for problem in problems})
    raise UnusableFile(note("{files}: {n:count} problem{n:s}; no test was run", files=named, n=len(problems)))


def _show(suite: Suite, outcome: Outcome) -> None:
    name = visible(outcome.case.name)
    if outcome.passed:
        click.echo(say("passed: {test}", test=name))
        return
    where = f"{suite.file}:{outcome.case.line}"
    click.echo(say("failed: {test} ({where})", test=name, where=visible(where)))
    for difference in outcome.differences:
        echo_wrapped("  " + text_of(_in_words(outcome, difference)), indent=4)


def _in_words(outcome: Outcome, difference: Difference) -> Note:
    if difference.why is not None:
        return difference.why
    raised = None if difference.raised is None else _raised(outcome, difference.raised)
    if difference.expected is None:
        return note("not expected: {alert}", alert=raised)
    wanted, line = _wanted(difference.expected.alert), difference.expected.line
    if raised is None:
        return note("line {line}: not raised: {alert}", line=line, alert=wanted)
    return note("line {line}: expected {alert}; raised {raised}", line=line, alert=wanted, raised=raised)


def _raised(outcome: Outcome, alert: RaisedAlert) -> Note:
    return _described(alert.rule, key_in_words(alert.key), _after(outcome, alert), f"{alert.value:.10g}")


def _wanted(alert: ExpectedAlert) -> Note:
    from coupon_ledger.projections.alerts.durations import written

    time = None if alert.fired is None else written(alert.fired)
    if alert.between is not None:
        time = "–".join(map(written, alert.between))
    key = key_in_words(alert.key) if alert.key else None
    return _described(alert.rule, key, time, None if alert.value is None else f"{alert.value:.10g}")


def _described(rule: str, key: str | None, time: str | None, value: str | None) -> Note:
    """The alert with what is known of it."""
    parts: list[Note | str] = [rule if key is None else note("{rule} of {key}", rule=rule, key=key)]
    if time is not None:
        parts.append(note("fired after {time}", time=time))
    if value is not None:
        parts.append(note("value {value}", value=value))
    return note("{parts}", parts=parts)


def _after(outcome: Outcome, alert: RaisedAlert) -> str | None:
    """How long after the start of the test the alert fired; if it was before, the instant."""
    from coupon_ledger.projections.alerts.durations import written

    if alert.after is None:
        return None
    if alert.after.total_seconds() < 0:
        return (outcome.case.start + alert.after).isoformat()
    return written(alert.after)


def _row(suite: Suite, outcome: Outcome) -> Row:
    return {
        "file": suite.file,
        "line": outcome.case.line,
        "test": outcome.case.name,
        "passed": outcome.passed,
        "differences": [dict(_difference(outcome, one)) for one in outcome.differences],
    }


def _difference(outcome: Outcome, difference: Difference) -> Iterator[tuple[str, Any]]:
    yield "difference", difference.kind
    if difference.why is not None:
        yield "problem", str(difference.why)
    if difference.expected is not None:
        yield "expected", _expected(difference.expected)
    if difference.raised is not None:
        raised = difference.raised
        yield "raised", {"rule": raised.rule, "key": dict(raised.key), "fired": _after(outcome, raised),
                         "value": raised.value}  # fmt: skip


def _expected(expected: Expectation) -> Row:
    from coupon_ledger.projections.alerts.durations import written

    alert = expected.alert
    between = None if alert.between is None else [written(edge) for edge in alert.between]
    fired = None if alert.fired is None else written(alert.fired)
    row = {"rule": alert.rule, "key": alert.key or None, "fired": fired, "between": between, "value": alert.value}
    return {"line": expected.line, **{name: value for name, value in row.items() if value is not None}}
