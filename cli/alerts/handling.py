"""`alerts ack`, `note`, `assign`, `resolve`, `silence`, `unsilence`: what people do with alerts.

Each of these commands reads the topic of alerts to its end, decides which events follow, appends them, and says what
happened and what happens next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.alerts import meanwhile
from coupon_ledger.cli.alerts.options import by_options, end_of, now, operator_name, short, until_options
from coupon_ledger.cli.options import LOG, output_option, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.cli.usage import Misused
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note
from coupon_ledger.reports.alerts import key_in_words
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from coupon_ledger.consumers.alerts.desk import Course, Desk
    from coupon_ledger.ledger.alert_events import AlertEvent
    from coupon_ledger.ledger.alert_state import Alert


@contextmanager
def desk(settings: Settings) -> Iterator[Desk]:
    """Within the block, the log is open, and the book has all that it tells of alerts. Raises `LogReplaced` if the
    database was filled from another log, and the errors of the log."""
    from coupon_ledger.cli.appending import appending
    from coupon_ledger.consumers.alerts.desk import Desk

    with appending(settings) as log:
        here = Desk(log)
        here.read_on()
        yield here


def say_what_happened(events: list[AlertEvent], output: str, *sentences: str) -> None:
    """Print what happened: sentences for people, the appended events for machines."""
    if output == "table":
        for sentence in sentences:
            echo_wrapped(sentence)
        if events:
            echo_wrapped(say("lists and histories show it as soon as the consumer has read it back"))
        return
    print_rows((event.model_dump(exclude_none=True) for event in events), output)


def _named(alert: Alert) -> dict[str, Any]:
    return {"alert": short(alert.alert_id), "rule": alert.rule, "key": key_in_words(alert.labels)}


@click.command()
@click.argument("alert")
@until_options("When you expect to have settled it; until then, messages about it stop")
@by_options
@settings_options(*LOG, "database")
@output_option
def ack(
    alert: str,
    lasting: timedelta | None,
    until: datetime | None,
    operator: str | None,
    why: str | None,
    settings: Settings,
    output: str,
) -> None:
    """Take ALERT: you look after it, and messages about it stop, until the expected time if you name one.

    \b
    coupon-ledger alerts ack 3f9a01c2 --for 2h
    coupon-ledger alerts ack 3f9a01c2 --by mei --until 2026-11-11T22:00:00+08:00 --why "calling the shop"
    """
    from coupon_ledger.consumers.alerts.desk import course_of
    from coupon_ledger.ledger.alert_commands import Acknowledge

    who, at = operator_name(operator), now()
    ends = end_of(lasting, until, at)
    with desk(settings) as here:
        known = here.alert(alert)
        events = here.do(Acknowledge(alert_id=known.alert_id, operator=who, now=at, until=ends, note=why))
        course = course_of(here, known, events)
    lost = meanwhile.lost_alert(course)
    if lost is not None:
        say_what_happened(events, output)
        warn(lost.template, **lost.values)
        return
    taken = say("{who} has taken alert {alert} ({rule}: {key})", who=who, **_named(known))
    if ends is None:
        then = say("messages about it stop until it is over; `coupon-ledger alerts resolve {alert}` closes it",
                   alert=short(known.alert_id))  # fmt: skip
    else:
        then = say("messages about it stop until {until:instant}; if it is not settled by then, people are told again",
                   until=_second(ends))  # fmt: skip
    say_what_happened(events, output, taken, *meanwhile.taken_over(course, who), then)


@click.command()
@click.argument("alert")
@click.argument("text")
@by_options
@settings_options(*LOG, "database")
@output_option
def note(alert: str, text: str, operator: str | None, why: str | None, settings: Settings, output: str) -> None:
    """Write the note TEXT beside ALERT, open or closed.

    \b
    coupon-ledger alerts note 3f9a01c2 "the shop says it is their test device"
    """
    from coupon_ledger.ledger import alert_commands

    who = operator_name(operator)
    words = text if why is None else f"{text} ({why})"
    with desk(settings) as here:
        known = here.alert(alert)
        events = here.do(alert_commands.Note(alert_id=known.alert_id, operator=who, now=now(), note=words))
    say_what_happened(
        events, output, say("noted beside alert {alert} ({rule}: {key}), by {who}", who=who, **_named(known))
    )


@click.command()
@click.argument("alert")
@click.argument("person")
@by_options
@settings_options(*LOG, "database")
@output_option
def assign(alert: str, person: str, operator: str | None, why: str | None, settings: Settings, output: str) -> None:
    """Give ALERT to PERSON, who looks after it from now on.

    \b
    coupon-ledger alerts assign 3f9a01c2 li
    coupon-ledger alerts assign 3f9a01c2 li --by mei --why "on duty tonight"
    """
    from coupon_ledger.ledger.alert_commands import Assign

    who = operator_name(operator)
    if not person.strip():
        raise Misused(Note("PERSON is empty; name who looks after the alert", {}))
    with desk(settings) as here:
        known = here.alert(alert)
        events = here.do(Assign(alert_id=known.alert_id, operator=who, now=now(), assignee=person.strip(), note=why))
    say_what_happened(
        events,
        output,
        say("{person} looks after alert {alert} ({rule}: {key}) from now on", person=person.strip(), **_named(known)),
        _messages_after(known, person.strip()),
    )


def _messages_after(alert: Alert, person: str) -> str:
    """Whether messages about an alert that was given to a person go on."""
    taken = alert.acknowledged
    if taken is None or not taken.holds(now()):
        return say("messages about it go on until {person} takes it: `coupon-ledger alerts ack {alert} --by {person}`",
                   person=person, alert=short(alert.alert_id))  # fmt: skip
    return say("messages about it rest, since {who} has taken it", who=taken.operator)


@click.command()
@click.argument("alert")
@click.option("--true", "outcome", flag_value="true", help="It was right: something was wrong.")
@click.option("--false", "outcome", flag_value="false", help="It was a false alarm.")
@click.option("--unknown", "outcome", flag_value="unknown", help="Nobody can tell.")
@click.option(
    "--saved", nargs=2, metavar="AMOUNT CURRENCY", help="The money that was saved, in major units, such as 120.50 CNY."
)
@by_options
@settings_options(*LOG, "database")
@output_option
def resolve(
    alert: str,
    outcome: str | None,
    saved: tuple[str, str] | None,
    operator: str | None,
    why: str | None,
    settings: Settings,
    output: str,
) -> None:
    """Close ALERT, and say whether it was right. For a closed alert, say or correct what came of it.

    The outcomes are what `alerts stats` judges the rules by.

    \b
    coupon-ledger alerts resolve 3f9a01c2 --true --saved 120.50 CNY --why "coupons revoked"
    coupon-ledger alerts resolve 3f9a01c2 --false --why "a school class behind one address"
    """
    from coupon_ledger.consumers.alerts.desk import course_of
    from coupon_ledger.ledger.alert_commands import Resolve

    if outcome is None:
        raise Misused(Note("say whether the alert was right: --true, --false or --unknown", {}))
    who = operator_name(operator)
    minor, currency = (None, None) if saved is None else minor_units("--saved", *saved)
    with desk(settings) as here:
        known = here.alert(alert)
        command = Resolve(alert_id=known.alert_id, operator=who, now=now(), outcome=outcome,  # type: ignore[arg-type]
                          saved_minor=minor, currency=currency, note=why)  # fmt: skip
        says_more = (outcome, None, None) != (known.outcome, minor, why)
        events = here.do(command) if says_more or known.phase != "resolved" else []
        course = course_of(here, known, events)
    others = (*meanwhile.closed_for(course, who), *meanwhile.judged_before(course, who))
    say_what_happened(events, output, *_resolved(course, events), *others)
    otherwise = meanwhile.judged_otherwise(course, outcome)
    if otherwise is not None:
        warn(otherwise.template, **otherwise.values)


def _resolved(course: Course, events: list[AlertEvent]) -> Iterator[str]:
    before, named = course.before, _named(course.before)
    if not events:
        yield say("alert {alert} is closed already, as {outcome:word}; nothing changed", alert=named["alert"],
                  outcome=before.outcome)  # fmt: skip
        return
    if before.phase != "resolved":
        yield say("alert {alert} ({rule}: {key}) is closed, as {outcome:word}", outcome=events[-1].outcome, **named)
    elif before.outcome is None:
        yield say("alert {alert} ({rule}: {key}) was closed already; it now counts as {outcome:word}",
                  outcome=events[-1].outcome, **named)  # fmt: skip
    elif before.outcome == events[-1].outcome:
        yield say("alert {alert} was closed already, as {outcome:word}; this is added to it", alert=named["alert"],
                  outcome=before.outcome)  # fmt: skip
    else:
        yield say("alert {alert} was closed as {before:word}; it now counts as {outcome:word}", alert=named["alert"],
                  before=before.outcome, outcome=events[-1].outcome)  # fmt: skip
    if events[-1].saved_minor is not None:
        yield say("saved: {money:money}", money=(events[-1].saved_minor, events[-1].currency))
    yield say("if it begins again, a new alert is opened; `coupon-ledger alerts stats --rule {rule}` shows how good the"
              " rule is", rule=before.rule)  # fmt: skip


def minor_units(option: str, amount: str, currency: str) -> tuple[int, str]:
    """The amount in minor units, and the currency. Raises `Misused`, naming the option."""
    from coupon_ledger.ledger.amounts import decimals

    code = currency.upper()
    digits = decimals(code)
    given: dict[str, Any] = {
        "option": option,
        "amount": repr(amount),
        "currency": repr(currency),
        "code": code,
        "digits": digits,
    }
    if digits is None:
        raise Misused(Note("{option}: no currency {currency}; write its ISO 4217 code, such as 120.50 CNY", given))
    try:
        minor = Decimal(amount).scaleb(digits)
        whole = int(minor)
    except (InvalidOperation, ValueError, OverflowError):
        raise Misused(Note("{option}: {amount} is no amount; write one such as 120.50 {code}", given)) from None
    if whole != minor or not 0 <= whole <= _MOST_MINOR:
        raise Misused(Note("{option}: {amount} must be from 0 up, with at most {digits} decimals in {code}", given))
    return whole, code


_MOST_MINOR: Final = 2**53 - 1


@click.command()
@click.argument("matchers", nargs=-1, metavar="[MATCHER]...")
@click.option("--alert", help="Silence this alert, and later ones of its rule with the same key.")
@until_options("When the silence ends")
@by_options
@settings_options(*LOG, "database")
@output_option
def silence(
    matchers: tuple[str, ...],
    alert: str | None,
    lasting: timedelta | None,
    until: datetime | None,
    operator: str | None,
    why: str | None,
    settings: Settings,
    output: str,
) -> None:
    """Hold back messages about alerts that satisfy every MATCHER, for some time.

    A MATCHER is name=value or name!=value, where * stands for any characters. Names are rule, severity, alert_id and
    those in the alerts' keys. The alerts themselves go on: `alerts list` shows them as silenced.

    \b
    coupon-ledger alerts silence rule=device_farm campaign=8 --for 2h --why "load test"
    coupon-ledger alerts silence --alert 3f9a01c2 --for 1d --why "known; fixed tomorrow"
    """
    from coupon_ledger.ledger.alert_silences import Matcher, Silence

    who, at = operator_name(operator), now()
    ends = end_of(lasting, until, at)
    if ends is None:
        raise Misused(Note("--for or --until is needed: every silence ends", {}))
    if not why or not why.strip():
        raise Misused(Note("--why is needed: in a few words, why these alerts need not be told", {}))
    wanted = [Matcher.parse(text) for text in matchers]
    with desk(settings) as here:
        if alert is not None:
            known = here.alert(alert)
            wanted += [Matcher("rule", known.rule), *(Matcher(name, value) for name, value in known.labels.items())]
        made = Silence(matchers=tuple(wanted), operator=who, now=at, until=ends, note=why)
        events = here.do(made)
        matched = [one for one in here.book.open_alerts() if here.book.silences[made.silence_id].matches(one)]
        known_rules = {one.rule for one in here.book.alerts.values()}
    say_what_happened(
        events,
        output,
        say("silence {silence}: messages about {matchers} are held back until {until:instant}",
            silence=made.silence_id, matchers=list(map(str, wanted)), until=_second(ends)),
        say("{n:count} open alert{n:s} {n:are} silenced by it now; `coupon-ledger alerts unsilence {silence}` ends it"
            " before its time", n=len(matched), silence=made.silence_id),
    )  # fmt: skip
    unknown = [
        m.value for m in wanted if m.label == "rule" and m.equal and "*" not in m.value and m.value not in known_rules
    ]
    if unknown:
        warn("no alert of rule {rule} was raised so far; `coupon-ledger alerts rules list` shows the rules",
             rule=unknown[0])  # fmt: skip


@click.command()
@click.argument("silence_id", metavar="SILENCE")
@by_options
@settings_options(*LOG, "database")
@output_option
def unsilence(silence_id: str, operator: str | None, why: str | None, settings: Settings, output: str) -> None:
    """End SILENCE before its time. Its id may be shortened.

    \b
    coupon-ledger alerts unsilence 5b1e07c2a9d4 --why "the load test is over"
    """
    from coupon_ledger.ledger.alert_silences import Unsilence

    who, at = operator_name(operator), now()
    with desk(settings) as here:
        known = here.silence(silence_id)
        ended = known.silence_id if known else silence_id
        events = here.do(Unsilence(silence_id=ended, operator=who, now=at, note=why))
        freed = [one for one in here.book.open_alerts() if known is not None and known.matches(one)]
    say_what_happened(
        events,
        output,
        say("silence {silence} has ended", silence=ended),
        say("{n:count} open alert{n:s} {n:are} told again, unless something else holds messages back", n=len(freed))
        if freed else say("no open alert was silenced by it"),
    )  # fmt: skip


def _second(at: datetime) -> datetime:
    return at.replace(microsecond=0)
