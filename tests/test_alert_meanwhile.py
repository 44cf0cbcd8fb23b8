"""Two people, or a person and the owner, do something about one alert at the same moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.consumers.alerts import actions
from coupon_ledger.consumers.alerts.actions import Done
from coupon_ledger.ledger import alert_commands
from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import Acknowledge, Act, Command, Resolve
from coupon_ledger.ledger.alert_events import record_of
from coupon_ledger.ledger.sqlite_log import SqliteLog
from coupon_ledger.ledger.topics import ALERTS
from coupon_ledger.projections.database import open_database
from tests.alert_owner import Place, append, claim, farm, told
from tests.alert_world import begin, book_of, fire
from tests.command_line import DATABASE, LOG, Ran, done
from tests.test_alert_owner import AUTOMATIC, proof

Ids = dict[str, str]


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ids]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C.UTF-8")
        folder = tmp_path_factory.mktemp("evening")
        begin(folder)
        return folder, fire(folder, datetime.now(UTC) - timedelta(minutes=3))


@pytest.fixture
def alert(evening: tuple[Path, Ids], home: Path) -> str:
    """The working folder has a copy of the evening. Returns the id of the alert about the farm."""
    folder, ids = evening
    for name in (LOG, DATABASE):
        shutil.copy(folder / name, home / name)
    return ids["device_farm"]


def _beside(patch: pytest.MonkeyPatch, command: Command, *, first: bool) -> None:
    """Li's command is appended beside what is appended next to the topic of alerts, before (`first`) or after it."""
    real, waiting = SqliteLog.append, [command]

    def both(self: SqliteLog, records: Any) -> Any:
        if not waiting or records[0].topic != ALERTS:
            return real(self, records)
        [others] = [waiting.pop()]
        events = [record_of(event) for event in book_of(Path.cwd()).decide(others)]
        assert events
        if first:
            real(self, events)
        appended = real(self, records)
        if not first:
            real(self, events)
        return appended

    patch.setattr(SqliteLog, "append", both)


def _words(ran: Ran) -> str:
    return " ".join(f"{ran.out} {ran.err}".split())


def _taken_by(alert: str) -> str:
    taken = book_of(Path.cwd()).alerts[alert].acknowledged
    assert taken is not None
    return taken.operator


NOW = datetime(2026, 11, 11, 13, tzinfo=UTC)


@pytest.mark.parametrize(("lang", "said"), [("en", "li has taken alert"), ("zh", "li 在您之后于")])
def test_who_was_overtaken_is_told_who_has_the_alert(
    alert: str, monkeypatch: pytest.MonkeyPatch, lang: str, said: str
) -> None:
    """Else two people both believe that they look after it, or neither does."""
    _beside(monkeypatch, Acknowledge(alert_id=alert, operator="li", now=NOW), first=False)
    words = _words(done("--lang", lang, "alerts", "ack", alert, "--by", "mei"))
    assert said in words and "mei" not in words
    assert _taken_by(alert) == "li"


@pytest.mark.parametrize("at_once", [True, False])
def test_who_takes_an_alert_over_is_told_from_whom(alert: str, monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    """Else the one who had it works on, and nobody tells them."""
    if at_once:
        _beside(monkeypatch, Acknowledge(alert_id=alert, operator="li", now=NOW), first=True)
    else:
        done("alerts", "ack", alert, "--by", "li")
    words = _words(done("alerts", "ack", alert, "--by", "mei"))
    assert "mei has taken alert" in words and "li had taken it at" in words and "tell li" in words
    assert _taken_by(alert) == "mei"


def test_who_takes_an_alert_again_is_told_nothing_of_others(alert: str) -> None:
    """Else people are sent to talk to themselves."""
    done("alerts", "ack", alert, "--by", "mei")
    assert "had taken" not in _words(done("alerts", "ack", alert, "--by", "mei", "--for", "2h"))


@pytest.mark.parametrize("first", [True, False])
def test_who_takes_an_alert_that_was_just_closed_is_told(
    alert: str, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Else somebody works on what is settled."""
    _beside(monkeypatch, Resolve(alert_id=alert, operator="li", now=NOW, outcome="false"), first=first)
    words = _words(done("alerts", "ack", alert, "--by", "mei"))
    assert "li has closed alert" in words and "has taken" not in words


@pytest.mark.parametrize("first", [True, False])
def test_two_outcomes_at_once_are_told_and_the_later_one_counts(
    alert: str, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Else a rule is judged by an outcome that the one who gave the other never hears of."""
    _beside(monkeypatch, Resolve(alert_id=alert, operator="li", now=NOW, outcome="false"), first=first)
    words = _words(done("alerts", "resolve", alert, "--true", "--by", "mei"))
    if first:
        assert "was closed as false; it now counts as true" in words and "li had closed it at" in words
    else:
        assert "li closed alert" in words and "as false" in words and "just after you" in words
    assert book_of(Path.cwd()).alerts[alert].outcome == ("true" if first else "false")


def test_the_same_outcome_at_once_needs_no_agreement(alert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else people who agree are told to agree."""
    _beside(monkeypatch, Resolve(alert_id=alert, operator="li", now=NOW, outcome="true"), first=False)
    assert "agree" not in _words(done("alerts", "resolve", alert, "--true", "--by", "mei"))


@pytest.mark.long
def test_what_others_write_meanwhile_changes_nothing(alert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a note of somebody else reads as if the alert were lost."""
    _beside(monkeypatch, alert_commands.Note(alert_id=alert, operator="li", now=NOW, note="known"), first=False)
    assert "mei has taken alert" in _words(done("alerts", "ack", alert, "--by", "mei"))


# ── An action by hand and without asking ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    (made.folder / "proof.json").write_text(proof(), encoding="utf-8")
    made.rules.write_text(AUTOMATIC, encoding="utf-8")
    with closing(made.log):
        yield made


def _by_hand(place: Place) -> None:
    """What `alerts act` of Mei appends, who does not know yet what the owner records."""
    fired = told(place.log, "fired")
    book = AlertBook(fired)
    [alert] = book.alerts.values()
    done_by = Done(datetime.now(UTC), "mei", "one device")
    known = {"alert_id": alert.alert_id, "rule": alert.rule}
    coupons = [
        {"coupon_id": f"c-{n}", "state": "claimed", "owner": f"u-{n}", "last_event_at": datetime(2020, 1, 1),
         "promised_minor": None}
        for n in range(3)
    ]  # fmt: skip
    plan = actions.revoking(known, coupons, (), done_by)
    recorded = Act(alert_id=alert.alert_id, action=plan.action, dry=False, operator="mei", note=done_by.why,
                   effect={**plan.effect, "at": done_by.at.isoformat()}, now=done_by.at)  # fmt: skip
    place.log.append([record_of(event) for event in book.decide(recorded)])
    first, events = actions.as_first(plan, alert.alert_id, told(place.log))
    assert first.operator == "mei"
    place.log.append(actions.records(plan, events))


def _once(do: Callable[[], None], step: str, when: Callable[[], bool]) -> Callable[[str], None]:
    """At the first passing of the step at which `when` holds, something is done."""
    waiting = [do]

    def reached(passed: str) -> None:
        if passed == step and waiting and when():
            waiting.pop()()

    return reached


def _fire(place: Place) -> None:
    """The alert has fired and come back from the log: what the owner decides next is its action."""
    append(place.log, farm("d-1", 0))
    place.run()
    assert told(place.log, "fired") and not told(place.log, "acted")


@pytest.mark.long
def test_an_action_by_hand_and_without_asking_at_once_is_one(place: Place) -> None:
    """Else each coupon gets two events under one id that conflict, which is an alarm of its own, and its history names
    another operator than the one who was first."""
    _fire(place)
    place.run(at_boundary=_once(lambda: _by_hand(place), "alerts decided", lambda: True))
    assert [event.operator for event in told(place.log, "acted")] == ["mei", None]
    place.run()
    with open_database(place.folder / "a.duckdb") as store:
        assert store.rows("SELECT DISTINCT state FROM coupons") == [("revoked",)]
        assert store.rows("SELECT DISTINCT reason FROM coupon_events WHERE type = 'revoked'") == [("one device",)]
        assert store.rows("SELECT count(*) FROM coupon_conflicts") == [(0,)]


class PowerCut(BaseException):
    pass


@pytest.mark.long
@pytest.mark.parametrize("step", ["alerts decided", "alerts appended", "events stored"])
def test_an_automatic_action_that_was_interrupted_is_completed(place: Place, step: str) -> None:
    """Else a power cut between the record of an action and its events leaves the farm its coupons for good."""

    def cut() -> None:
        raise PowerCut

    _fire(place)
    with pytest.raises(PowerCut):
        place.run(at_boundary=_once(cut, step, lambda: step == "alerts decided" or bool(told(place.log, "acted"))))
    assert bool(told(place.log, "acted")) == (step != "alerts decided") and not told(place.log, "resolved")
    place.run()
    place.run()
    assert len({event.event_id for event in told(place.log, "acted")}) == 1
    with open_database(place.folder / "a.duckdb") as store:
        assert store.rows("SELECT DISTINCT state FROM coupons") == [("revoked",)]
        assert store.rows("SELECT count(*) FROM coupon_conflicts") == [(0,)]


@pytest.mark.long
@pytest.mark.parametrize("wrong", [False, True])
def test_interrupted_actions_are_completed_though_their_alerts_have_closed(place: Place, wrong: bool) -> None:
    """Else their history says for good that coupons were revoked which the farms go on using; or coupons are revoked
    after somebody has said that the alert was wrong."""

    def cut() -> None:
        raise PowerCut

    farms = 3
    for number in range(farms):
        append(place.log, farm(f"d-{number}", 10 * number, datetime.now(UTC) - timedelta(minutes=50)))
    place.run()
    with pytest.raises(PowerCut):
        place.run(at_boundary=_once(cut, "events stored", lambda: len(told(place.log, "acted")) == farms))
    if wrong:
        book = AlertBook(told(place.log))
        commands = [Resolve(alert_id=alert_id, outcome="false", operator="mei", now=datetime.now(UTC))
                    for alert_id in book.alerts]  # fmt: skip
        place.log.append([record_of(event) for command in commands for event in book.decide(command)])
    append(place.log, [claim(99, "d-99")])  # it moves the clock: the farms are over
    place.run()
    place.run()
    assert len(told(place.log, "resolved")) == farms
    with open_database(place.folder / "a.duckdb") as store:
        assert store.rows("SELECT count(*) FROM coupons WHERE state = 'revoked'") == [(0 if wrong else 3 * farms,)]
        assert store.rows("SELECT count(*) FROM coupon_conflicts") == [(0,)]


@pytest.mark.parametrize(("lang", "said"), [("en", "tell li that it is closed"), ("zh", "请告知 li 已关闭")])
def test_who_closes_an_alert_of_somebody_else_is_told_whose_it_was(alert: str, lang: str, said: str) -> None:
    """Else li goes on with an alert that mei has closed."""
    done("alerts", "ack", alert, "--by", "li")
    assert said in _words(done("--lang", lang, "alerts", "resolve", alert, "--true", "--by", "mei"))


def test_who_closes_their_own_alert_is_told_nothing_of_others(alert: str) -> None:
    done("alerts", "ack", alert, "--by", "mei")
    assert "tell mei" not in _words(done("alerts", "resolve", alert, "--true", "--by", "mei"))
