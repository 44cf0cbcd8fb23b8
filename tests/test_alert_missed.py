"""Reports of what rules missed: what is refused, what counts, and the recall that follows from them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_events import AlertEvent, decoded, event, record_of
from coupon_ledger.ledger.alert_missed import ReportMissed
from coupon_ledger.ledger.errors import CommandRefused
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.local import Local
from tests.alert_world import begin, fire, follow, store_events
from tests.command_line import DATABASE, LOG, done, ledger
from tests.examples import examples
from tests.folding import scratch_store

AT = datetime(2026, 11, 11, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SINCE = ("--from", "2026-11-11T09:00:00+08:00")


def report(rule: str = "device_farm", since: datetime = AT, **fields: object) -> ReportMissed:
    values = {"labels": {}, "until": since + HOUR, "operator": "mei", "now": AT + timedelta(days=9)} | fields
    return ReportMissed(rule=rule, since=since, **values)  # type: ignore[arg-type]


def fired(rule: str = "device_farm", at: datetime = AT, number: int = 0, **labels: str) -> AlertEvent:
    ids = {"event_id": f"fired-{rule}-{number}", "fingerprint": f"f-{rule}-{number}", "alert_id": f"a-{rule}-{number}"}
    return event("fired", **ids, rule=rule, severity="high", occurred_at=at, data_at=at, labels=labels)


def test_what_an_alert_told_was_not_missed() -> None:
    """Else the same fraud counts as found and as missed, and the recall is wrong."""
    book = AlertBook([fired(device_id="d-1"), fired("mass_claims")])
    for labels in ({}, {"device_id": "d-1"}):
        with pytest.raises(CommandRefused, match="a-device_farm-0"):
            book.decide(report(since=AT - HOUR, labels=labels))
    assert book.decide(report(labels={"device_id": "d-2"})), "of another device"
    assert book.decide(report(since=AT + HOUR)), "of another hour"
    assert book.decide(report("two_claims")), "of another rule"


def test_a_false_alarm_does_not_hide_what_was_missed() -> None:
    """Else an alert that was wrong stands for a fraud that it did not see."""
    alert = fired()
    wrong = event("resolved", event_id="r", fingerprint=alert.fingerprint, alert_id=alert.alert_id, rule=alert.rule,
                  occurred_at=AT + HOUR, operator="mei", outcome="false")  # fmt: skip
    assert AlertBook([alert, wrong]).decide(report())


def test_only_a_report_that_counts_can_be_withdrawn() -> None:
    """Else a typing error in a withdrawal is taken for one."""
    book = AlertBook()
    with pytest.raises(CommandRefused, match="nothing was reported"):
        book.decide(report(withdraw=True))
    for command in (report(), report(withdraw=True)):
        [made] = book.decide(command)
        book.fold(made)
    assert [one.counts for one in book.missed.values()] == [False]
    with pytest.raises(CommandRefused, match="nothing was reported"):
        book.decide(report(withdraw=True))
    with pytest.raises(CommandRefused, match="end before it began"):
        book.decide(report(until=AT - HOUR))


def test_a_report_at_the_end_of_time_breaks_no_later_one() -> None:
    """Else one record with a broken clock makes `alerts missed` fail with a traceback for that key, for ever."""
    book = AlertBook()
    [made] = book.decide(report(now=datetime.max.replace(tzinfo=UTC)))
    book.fold(made)
    [corrected] = book.decide(report(withdraw=True))
    assert corrected.outcome == "false" and corrected.occurred_at == made.occurred_at


REPORTS = st.lists(
    st.tuples(st.sampled_from(["r", "s"]), st.sampled_from([{}, {"device_id": "d"}]), st.integers(0, 2), st.booleans()),
    max_size=8,
)


@given(reports=REPORTS, clocks=st.data())
@examples(100)
def test_the_last_report_counts_in_whatever_order_they_arrive(
    reports: list[tuple[str, dict[str, str], int, bool]], clocks: st.DataObject
) -> None:
    """Else a repeat of an old delivery brings back a report that was withdrawn. The clocks of those who report differ;
    what is known is what a plain dictionary of the last words says."""
    book, events = AlertBook(), []
    plain: dict[object, bool] = {}
    for number, (rule, labels, hour, withdraw) in enumerate(reports):
        since, now = AT + hour * HOUR, AT + clocks.draw(st.integers(0, 5)) * HOUR
        about = (rule, str(labels), hour)
        command = report(rule, since, labels=labels, now=now, withdraw=withdraw, event_id=f"e-{number}")
        if withdraw and not plain.get(about):
            with pytest.raises(CommandRefused):
                book.decide(command)
            continue
        [made] = book.decide(command)
        events.append(decoded(record_of(made).value))
        book.fold(events[-1])
        plain[about] = not withdraw
    arrived = clocks.draw(st.permutations([*events, *events]))
    assert AlertBook(arrived).missed == book.missed
    assert sum(one.counts for one in book.missed.values()) == sum(plain.values())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("missed")) as made:
        yield made


@pytest.mark.long
@given(right=st.integers(0, 3), wrong=st.integers(0, 2), missed=st.integers(0, 4), old=st.integers(0, 2))
@examples(25)
def test_recall_is_the_share_that_was_told(store: Store, right: int, wrong: int, missed: int, old: int) -> None:
    """Else a rule that finds one fraud in ten looks perfect. Reports of before the period count for no recall of it."""
    events = []
    for number in range(right + wrong):
        alert = fired("r", AT, number)
        same = {"fingerprint": alert.fingerprint, "alert_id": alert.alert_id, "rule": "r", "occurred_at": AT + HOUR}
        outcome = "true" if number < right else "false"
        events += [alert, event("resolved", event_id=f"r-{number}", operator="mei", outcome=outcome, **same)]
    whens = [AT - n * HOUR for n in range(missed)] + [AT - timedelta(days=40 + n) for n in range(old)]
    for number, when in enumerate(whens):
        of = {"operator": "mei", "outcome": "true", "money_minor": 100, "currency": "CNY"}
        events.append(event("missed", event_id=f"m-{number}", rule="r", data_at=when, occurred_at=AT + 2 * HOUR, **of))
    store_events(store, events)
    with closing(Local(store)) as asked:
        answer = asked.ask("alert-stats", now=AT + timedelta(days=1))
        found = [row for frame in answer.frames for row in frame.iter_rows(named=True)]
    assert len(found) == (1 if events else 0)
    for row in found:
        assert (row["true_alerts"], row["missed_alerts"]) == (right, missed)
        assert row["recall_rate"] == (right / (right + missed) if right + missed else None)
        assert row["missed_minor"] == (100 * missed if missed else None)


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with a sale, and the ids of its alerts by rule."""
    folder = tmp_path_factory.mktemp("missed-evening")
    begin(folder)
    return folder, fire(folder, datetime.now(UTC) - timedelta(minutes=3))


@pytest.fixture
def ids(evening: tuple[Path, dict[str, str]], home: Path) -> dict[str, str]:
    """The working folder has a copy of the evening."""
    for name in (LOG, DATABASE):
        shutil.copy(evening[0] / name, home / name)
    return evening[1]


@pytest.mark.long
def test_a_report_from_the_command_line_counts_until_it_is_withdrawn(ids: dict[str, str]) -> None:
    """Else what a chargeback shows is known to a person and not to the statistics by which rules are judged."""
    of = ("alerts", "missed", "device_farm", *SINCE, "--key", "device_id=d-77")
    said = done(*of, "--money", "340", "CNY", "--why", "chargeback 4711", "--by", "mei").out
    assert "reported as missed by device_farm" in said
    done("alerts", "resolve", ids["device_farm"], "--true", "--by", "mei")
    follow(Path.cwd())
    [row] = done("alerts", "stats", "--rule", "device_farm", "-o", "json").json
    assert (row["missed_alerts"], row["recall_rate"], row["missed_minor"]) == (1, 0.5, 34_000)
    assert "漏报" in done("alerts", "stats", "--lang", "zh").out
    [told] = done("alerts", "history", "--type", "missed", "-o", "ndjson").rows
    assert (told["rule"], told["operator"], told["note"]) == ("device_farm", "mei", "chargeback 4711")
    done(*of, "--withdraw", "--by", "mei")
    follow(Path.cwd())
    [row] = done("alerts", "stats", "--rule", "device_farm", "-o", "json").json
    assert (row["missed_alerts"], row["recall_rate"]) == (0, 1.0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("did you mean device_farm?", ("device_frm", *SINCE)),
        ("--from is needed", ("device_farm",)),
        ("they have device_id", ("device_farm", *SINCE, "--key", "devcie=d-77")),
        ("write NAME=VALUE", ("device_farm", *SINCE, "--key", "d-77")),
        ("is given twice", ("device_farm", *SINCE, "--key", "device_id=d-1", "--key", "device_id=d-2")),
        ("is no amount", ("device_farm", *SINCE, "--money", "much", "CNY")),
    ],
)
def test_a_report_that_cannot_be_compared_is_refused(
    ids: dict[str, str], said: str, arguments: tuple[str, ...]
) -> None:
    """Else a typing error in a rule's name or key makes a report that no statistics ever show, and of two devices in
    one command only the last is reported."""
    ran = ledger("alerts", "missed", *arguments)
    assert ran.code and ran.said.startswith("error: ") and said in ran.said
    chinese = ledger("alerts", "missed", *arguments, "--lang", "zh")
    assert said not in chinese.said or said.startswith("did")
