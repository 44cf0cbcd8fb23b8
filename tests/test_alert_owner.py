"""The owner's work with alerts: from an event in the log to a fired alert and a message, once and only once."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.api.client import asking
from coupon_ledger.consumers.alerts.asked import Moment
from coupon_ledger.consumers.alerts.on_tables import OnTables
from coupon_ledger.consumers.alerts.telling import Channel
from coupon_ledger.consumers.owner import Owner, waiting
from coupon_ledger.consumers.rebuild import LiveDatabase, Rebuild
from coupon_ledger.delivery.posting import Posting
from coupon_ledger.delivery.queue import DEAD_AFTER, MessageQueue
from coupon_ledger.ledger import alert_events, operations
from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import Acknowledge, Resolve
from coupon_ledger.ledger.alert_problems import said_in
from coupon_ledger.ledger.alert_routing import Message
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.topics import ALERTS
from coupon_ledger.ledger.words import Note, Speaker
from coupon_ledger.projections import generations
from coupon_ledger.projections.alerts.in_force import stored
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.alerts.rules_file import load
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.store import Store
from tests.alert_owner import FARM, Box, Place, append, claim, farm, now, told
from tests.command_line import ledger
from tests.loopback import Http, serving

SEED = 20261111
PATIENCE_S = 30.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with closing(made.log):
        yield made


@contextmanager
def following(place: Place, messages: Box | None = None, **options: Any) -> Iterator[Owner]:
    """An owner that follows the log in a thread, as `consume --follow` does."""
    failed: list[BaseException] = []
    owners: list[Owner] = []
    ready = threading.Event()

    def consume() -> None:
        try:
            with place.owner(messages=messages, follow=True, **options) as owner:
                owners.append(owner)
                ready.set()
                for _ in owner.run():
                    pass
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=consume)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S) and not failed, failed
        yield owners[0]
    finally:
        for owner in owners:
            owner.stop()
        thread.join(PATIENCE_S)
    assert not failed, failed


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def fired(place: Place) -> Counter[str]:
    """How often each alert fired in the log, by id."""
    return Counter(event.alert_id or "" for event in told(place.log, "fired"))


def evidence_of(event: alert_events.AlertEvent) -> dict[str, Any]:
    evidence = event.details["evidence"]
    assert isinstance(evidence, dict)
    return evidence


# ── From an event to an alert ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_what_a_rule_finds_is_fired_in_the_log_with_its_evidence(place: Place) -> None:
    """Else nobody hears of a device farm, or nobody can check why it was called one."""
    append(place.log, farm("d-1", 0))
    place.run()
    [event] = told(place.log, "fired")
    assert (event.rule, event.labels, event.severity) == ("farm", {"device_id": "d-1"}, "high")
    assert (event.money_minor, event.currency) == (3_000, "CNY")
    evidence = evidence_of(event)
    assert evidence["threshold"] == 3 and evidence["users"] == 3
    assert {row["event_id"] for row in evidence["rows"]} == {"claim-0", "claim-1", "claim-2"}


@pytest.mark.long
def test_a_log_from_before_alerts_is_consumed_all_the_same(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Else each run after an update takes a minute longer, and nobody knows what to do."""
    with closing(sqlite3.connect(place.folder / "log.db")) as log, log:
        log.execute("DELETE FROM partitions WHERE topic = ?", [ALERTS])
    append(place.log, farm("d-1", 0))
    place.run()
    assert _rows(place, "SELECT count(*) FROM coupons") == [(3,)]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("coupon_ledger.consumers")]
    assert not any("trying again" in line for line in said), said
    assert said[0].endswith("no topic coupon.alerts; run `coupon-ledger init`") and "goes on" in said[1]
    place.log.create_topics()
    place.run()
    assert len(fired(place)) == 1


@pytest.mark.long
def test_an_alert_fires_within_seconds_and_people_are_told(place: Place) -> None:
    """Else a farm has emptied the stock before anybody knows."""
    box = Box("pager")
    with following(place, box) as owner:
        append(place.log, [claim(100, "other")])
        until(lambda: owner.figures and owner.figures.evaluated_until)
        started = time.monotonic()
        append(place.log, farm("d-1", 0))
        until(lambda: fired(place))
        assert time.monotonic() - started < 5
        until(lambda: told(place.log, "notified"))
    assert box.kinds() == [("firing", "farm")]
    [notified] = told(place.log, "notified")
    assert (notified.channel, notified.message_id) == ("pager", next(iter(box.taken)))


@pytest.mark.long
def test_an_alert_that_is_over_is_resolved_once(place: Place) -> None:
    """Else it stays open for ever, or people are told twice that it is over."""
    append(place.log, farm("d-1", 0, now() - timedelta(minutes=20)))
    append(place.log, [claim(50, "other")])
    box = Box("pager")
    place.run(messages=box)
    place.run(messages=box)
    assert [event.type for event in told(place.log) if event.type != "not_notified"] == [
        *("fired", "notified", "recovering", "resolved"),
    ]
    assert box.kinds() == [("firing", "farm")], "that it is over is told once the group's interval has passed"


@pytest.mark.long
def test_pending_alerts_fire_by_evaluation_and_not_by_time_alone(place: Place) -> None:
    """Else two bursts and a pause count as a condition that has held."""
    place.rules.write_text(FARM.replace("keep_firing_for: 5m", "keep_firing_for: 5m\n    for: 1m"), encoding="utf-8")
    start = now() - timedelta(minutes=30)
    append(place.log, farm("d-1", 0, start))
    place.run()
    append(place.log, [claim(50, "other", start + timedelta(minutes=2))])
    place.run()
    assert [event.type for event in told(place.log)] == ["pending"]
    append(place.log, [claim(51, "other", start + timedelta(minutes=20))])
    place.run()
    assert [event.type for event in told(place.log)] == ["pending", "cleared"]
    append(place.log, farm("d-2", 10, start + timedelta(minutes=21)))
    append(place.log, [claim(60, "d-2", start + timedelta(minutes=23))])
    place.run()
    assert [e.labels["device_id"] for e in told(place.log, "fired")] == ["d-2"]


# ── Once and only once ───────────────────────────────────────────────────────────────────────────────────────


def history(seed: int, number: int = 300) -> list[dict[str, Any]]:
    """Claims on a few devices over some hours of today, in the order in which they happened."""
    draw = random.Random(seed)
    at = now() - timedelta(minutes=50)
    events = []
    for n in range(number):
        at += timedelta(seconds=draw.choice((1, 5, 10, 40)))
        events.append(claim(n, f"d-{draw.randrange(12)}", min(at, now())))
    return events


@pytest.mark.slow
def test_the_same_log_in_other_batches_fires_the_same_alerts(place: Place) -> None:
    """Else what is an alert depends on how busy the machine was."""
    for event in history(SEED):
        append(place.log, [event])
    place.run("a.duckdb", batch_size=7)
    first = fired(place)
    assert len(first) > 5 and set(first.values()) == {1}
    before = len(told(place.log))
    place.run("b.duckdb", batch_size=100_000)
    assert fired(place) == first
    assert len(told(place.log)) == before, "a second database tells nothing anew"
    for database in ("a.duckdb", "b.duckdb"):
        with open_database(place.folder / database) as store:
            rows = store.rows("SELECT episode_id FROM alert_episodes WHERE fired_at IS NOT NULL")
        assert {episode_id for (episode_id,) in rows} == set(first)


@pytest.mark.long
def test_a_restart_fires_nothing_again(place: Place) -> None:
    """Else every start of the consumer wakes everybody."""
    append(place.log, farm("d-1", 0))
    box = Box("pager")
    place.run(messages=box)
    before = [event.event_id for event in told(place.log)]
    place.run(messages=box)
    place.run(messages=Box("pager"))
    assert [event.event_id for event in told(place.log)] == before
    assert box.kinds() == [("firing", "farm")]


@pytest.mark.slow
@pytest.mark.vital
@pytest.mark.parametrize(
    "boundary", ["rules in force", "alerts decided", "alerts appended", "events stored", "messages queued"]
)
def test_killed_at_any_boundary_each_alert_is_fired_and_told_once(place: Place, boundary: str) -> None:
    """Else a crash loses an alert, or tells it twice."""
    append(place.log, farm("d-1", 0))
    kills = [_process(place, f"{boundary}:{passing}") for passing in (1, 1, 2)]
    assert -signal.SIGKILL in kills
    assert _process(place, "nowhere:1") == 0
    for kind in ("fired", "notified"):
        assert len({event.event_id for event in told(place.log, kind)}) == 1, kind
    assert (place.folder / "messages.txt").read_text(encoding="utf-8").count("firing") == 1
    place.run()
    with open_database(place.folder / "a.duckdb") as store:
        assert store.rows("SELECT count(*) FROM alert_events WHERE type = 'fired'") == [(1,)]
        assert store.rows("SELECT count(*) FROM outbox") == [(0,)]


def _process(place: Place, kill: str) -> int:
    command = [sys.executable, "-m", "tests.alert_owner_process", str(place.folder), kill]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
    return ended.returncode


@pytest.mark.slow
@pytest.mark.vital
def test_a_rebuild_fires_nothing_again_and_the_new_generation_goes_on(place: Place) -> None:
    """Else the most careful way to check a database tells people of everything that ever was."""
    append(place.log, farm("d-1", 0))
    box, path = Box("pager"), place.folder / "a.duckdb"
    place.run(messages=box)
    with Rebuild(LiveDatabase(path, lambda: asking(path)), place.log, 100) as rebuild:
        rebuild.build()
        compared = rebuild.compare()
    assert compared is not None and not compared.different and "alert_episodes" in compared.equal
    with Store.open_generation(path, generations.rebuilt_file(path)) as rebuilt:
        assert rebuilt.rows("SELECT count(*) FROM alert_events WHERE type = 'fired'") == [(1,)]
    before = Counter(event.event_id for event in told(place.log))
    with following(place, box) as owner:
        succeeded = owner.ask(waiting(path, back=False)).result(PATIENCE_S)
        assert succeeded.file.endswith("gen2")
        append(place.log, farm("d-2", 10))
        until(lambda: len(fired(place)) == 2)
        until(lambda: len(told(place.log, "not_notified")) > 0)
    assert box.kinds() == [("firing", "farm")], "the second one waits for the group's interval"
    assert before <= Counter(event.event_id for event in told(place.log))
    assert len(fired(place)) == 2 and set(fired(place).values()) == {1}
    with open_database(path) as store:
        assert store.rows("SELECT count(*) FROM alert_events WHERE type = 'fired'") == [(2,)]


# ── Rules in force ───────────────────────────────────────────────────────────────────────────────────────────


def rules_in_force(place: Place, database: str = "a.duckdb") -> dict[str, Rule]:
    with open_database(place.folder / database) as store:
        return {f.rule.name: f.rule for f in stored(store) if f.until is None}


def changes(place: Place) -> list[Any]:
    """What the recorded changes of rules name."""
    recorded = operations.read(place.log)
    return [r.operation.details for r in recorded if r.operation.action == "alert_rules_changed"]


@pytest.mark.long
def test_a_changed_file_is_in_force_within_seconds_and_recorded_with_versions(place: Place) -> None:
    """Else nobody can say by which rule somebody was accused."""
    with following(place):
        append(place.log, [claim(100, "other")])
        until(lambda: changes(place))
        place.rules.write_text(FARM.replace("at_least: 3", "at_least: 2"), encoding="utf-8")
        until(lambda: len(changes(place)) == 2)
        append(place.log, farm("d-1", 0, number=2))
        until(lambda: fired(place))
    first, second = changes(place)
    [added], [changed] = first["rules"], second["rules"]
    assert added["rule_version_before"] is None
    assert changed["rule_version_before"] == added["rule_version"] != changed["rule_version"]
    assert changed["rule_version"] == rules_in_force(place)["farm"].version == told(place.log, "fired")[0].rule_version
    assert "coupon.events" in {topic for topic, _, _ in second["positions"]}
    assert datetime.fromisoformat(second["since"]) > datetime.fromisoformat(first["since"])


@pytest.mark.long
def test_a_broken_file_leaves_the_rules_in_force_and_says_so(place: Place) -> None:
    """Else a typing mistake switches off all alerts, or one that nobody sees."""
    place.run()
    before = rules_in_force(place)
    place.rules.write_text("groups: [", encoding="utf-8")
    place.run()
    assert rules_in_force(place) == before
    [error] = told(place.log, "error")
    assert error.rule == "alert-rules" and "rules.yaml line" in (error.note or "")
    place.rules.write_text(FARM, encoding="utf-8")
    place.run()
    assert [e.rule for e in told(place.log, "resolved")] == ["alert-rules"]


@pytest.mark.long
@pytest.mark.parametrize("damaged", [FARM[: FARM.index(", at_least")], FARM.replace("expr: {", "expr: &x {")])
def test_a_rule_whose_text_is_broken_stays_in_force_as_it_was(place: Place, damaged: str) -> None:
    """Else whoever saves while the file is half written ends the alerts of all rules below."""
    append(place.log, farm("d-1", 0))
    place.run()
    before = rules_in_force(place)
    place.rules.write_text(damaged, encoding="utf-8")
    place.run()
    assert rules_in_force(place) == before
    assert {e.rule for e in told(place.log, "error")} and not told(place.log, "recovering")


@pytest.mark.long
def test_a_broken_file_brings_no_defaults_back(place: Place) -> None:
    """Else whoever works without the defaults gets their alarms by a typing mistake."""
    append(place.log, farm("d-1", 0))
    place.run()
    for text in ("use_defaults: false\n", "groups: ["):
        place.rules.write_text(text, encoding="utf-8")
        place.run()
        assert rules_in_force(place) == {}


@pytest.mark.long
def test_a_crash_while_rules_come_into_force_loses_nothing_that_they_find(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what the first rules find in the log of before is not told until something else happens."""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    append(place.log, farm("d-1", 0))
    place.rules.write_text("use_defaults: false\n", encoding="utf-8")
    place.run()
    place.rules.write_text(FARM, encoding="utf-8")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("coupon_ledger.consumers.alerts.rules.kept.release", crash)
        place.run()
    place.run()
    assert len(fired(place)) == 1


@pytest.mark.long
def test_a_rule_with_a_mistake_stays_in_force_as_it_was_and_the_others_change(place: Place) -> None:
    """Else who mends one rule loses another."""
    place.run()
    broken = FARM.replace("at_least: 3", "at_least: none")
    more = "  - alert: more\n    expr: {kind: velocity, events: [claimed], by: [ip], at_least: 9, window: 1m}\n"
    place.rules.write_text(broken + more, encoding="utf-8")
    place.run()
    now_ = rules_in_force(place)
    assert now_.keys() == {"farm", "more"} and now_["farm"].expr.at_least == 3  # type: ignore[union-attr]
    assert [e.rule for e in told(place.log, "error")] == ["farm"]


@pytest.mark.long
@pytest.mark.parametrize(
    "broken",
    [
        FARM.replace("alert: farm", "alert: farm: ["),
        FARM.replace("groups:", "group:"),
        FARM.replace("- alert: farm", "- alarm: farm"),
        FARM.replace("rules:", "rule:"),
    ],
    ids=["no YAML", "no groups", "no name", "no rules"],
)
def test_rules_that_may_stand_in_a_part_that_cannot_be_read_go_on(place: Place, broken: str) -> None:
    """Else a slip of the finger takes a rule out of force, and it sees nothing until somebody wonders."""
    place.run()
    before = rules_in_force(place)
    place.rules.write_text(broken, encoding="utf-8")
    place.run()
    assert rules_in_force(place) == before
    assert "alert-rules" in {error.rule for error in told(place.log, "error")}
    place.rules.write_text(FARM.replace("farm", "ranch"), encoding="utf-8")
    place.run()
    assert rules_in_force(place).keys() == {"ranch"}, "and end once the file can be read"


@pytest.mark.long
def test_the_alert_about_the_file_says_what_is_wrong_now_and_ends_with_it(place: Place) -> None:
    """Else people mend a line that is right, or are told of a file that is mended."""
    for at_least in ("none", "x", "x", "3"):
        place.rules.write_text(FARM.replace("at_least: 3", f"at_least: {at_least}"), encoding="utf-8")
        place.run()
    first, second = told(place.log, "error")
    assert "'none' is no whole number" in (first.note or "") and "'x' is no whole number" in (second.note or "")
    assert [e.alert_id for e in told(place.log, "resolved")] == [first.alert_id, second.alert_id]
    evidence = second.details["evidence"]
    assert isinstance(evidence, dict) and evidence["file"] == str(place.rules)
    said = said_in(evidence, None)
    assert isinstance(said, Note) and "不是整数" in Speaker("zh").say(said) and "第 7 行" in Speaker("zh").say(said)


@pytest.mark.long
def test_a_mistake_in_very_many_rules_is_one_alert(place: Place) -> None:
    """Else replacing a word in a long file raises a thousand alerts, and the farm is on the tenth page."""
    rule = "  - alert: r{n}\n    expr: {{kind: velocity, events: [claimed], by: [ip], at_least: none, window: 1m}}\n"
    place.rules.write_text(FARM + "".join(rule.format(n=n) for n in range(30)), encoding="utf-8")
    place.run()
    [error] = told(place.log, "error")
    assert error.rule == "alert-rules" and "and 25 more" in (error.note or "")
    assert rules_in_force(place).keys() == {"farm"}


@pytest.mark.long
def test_alerts_of_a_rule_that_is_gone_end(place: Place) -> None:
    """Else they stand for ever, since nothing evaluates them any more."""
    append(place.log, farm("d-1", 0))
    place.run()
    place.rules.write_text("use_defaults: false\n", encoding="utf-8")
    place.run()
    append(place.log, [claim(50, "other", now() + timedelta(minutes=1))])
    place.run()
    assert [e.type for e in told(place.log) if e.type in ("fired", "recovering")] == ["fired", "recovering"]


# ── Who is told ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_old_episodes_send_no_message_and_say_why(place: Place) -> None:
    """Else a consumer that catches up floods everybody with last week, or alerts vanish without a word."""
    past = now() - timedelta(days=3)
    append(place.log, farm("d-1", 0, past))
    append(place.log, [claim(50, "other", past + timedelta(hours=1))])
    append(place.log, farm("d-2", 10, past + timedelta(hours=2)))
    box = Box("pager")
    place.run(messages=box)
    assert box.kinds() == []
    held = [(e.alert_id, e.reason) for e in told(place.log, "not_notified")]
    assert sorted(held) == sorted((alert_id, "catch_up") for alert_id in fired(place))
    assert len(held) == 2


@pytest.mark.long
def test_alerts_of_the_past_that_still_stand_are_told_in_one_digest(place: Place) -> None:
    """Else what has been wrong since yesterday is never told."""
    place.rules.write_text(FARM.replace("keep_firing_for: 5m", "keep_firing_for: 10d"), encoding="utf-8")
    append(place.log, farm("d-1", 0, now() - timedelta(days=2)))
    append(place.log, farm("d-2", 10, now() - timedelta(days=2)))
    box = Box("pager")
    place.run(messages=box)
    append(place.log, [claim(50, "other")])
    place.run(messages=box)
    assert box.kinds() == [("digest", None)]
    [message] = box.taken.values()
    assert set(message.alert_ids) == set(fired(place))


@pytest.mark.long
def test_of_a_dead_channel_the_others_hear(place: Place) -> None:
    """Else a pager that is off takes every alert with it, and nobody knows."""
    dead = "  - alert: dead\n    expr: {kind: health, of: channel_dead, above: 2}\n    channels: [pager]\n"
    place.rules.write_text(FARM + dead, encoding="utf-8")
    box = Box("pager", "mail")
    box.broken = {"pager": Channel(1, 0, 5, now(), "timeout", dead=True)}
    append(place.log, farm("d-1", 0))
    place.run(messages=box, find=OnTables())
    by_rule = {message.rule: message.channels for message in box.taken.values()}
    assert by_rule == {"farm": ("mail",), "dead": ("mail",)}
    assert [(e.rule, e.labels) for e in told(place.log, "fired") if e.rule == "dead"] == [
        ("dead", {"channel": "pager"})
    ]
    assert ("channel_dead", {"cause": "pager"}) in [(e.reason, e.details) for e in told(place.log, "not_notified")]
    box.broken = {}
    place.run(messages=box, find=OnTables())
    assert "dead" in {e.rule for e in told(place.log, "recovering")}


@pytest.mark.long
def test_a_queue_of_messages_that_cannot_be_used_stops_no_event(place: Place, tmp_path: Path) -> None:
    """Else a full disk or a damaged file of messages ends `consume` at its start, and the ledger stands still for as
    long; and once it is mended, nobody would hear of what was found meanwhile."""
    queue = tmp_path / "messages"
    queue.mkdir()
    place.rules.write_text(FARM + "channels: {hook: {url: 'http://127.0.0.1:9/', secret: {file: key}}}\n")
    (tmp_path / "key").write_text("k")
    append(place.log, farm("d-1", 1))
    append(place.log, [claim(9, "d-2", now() + timedelta(seconds=1))])
    with closing(Posting(queue, folder=tmp_path)) as posting:
        place.run(messages=posting)
    with open_database(tmp_path / "a.duckdb") as store:
        assert store.rows("SELECT count(*) FROM coupons") == [(4,)]
        assert store.rows("SELECT rule FROM alert_episodes") == [("farm",)]
    queue.rmdir()
    with closing(Posting(queue, folder=tmp_path)) as posting:
        place.run(messages=posting)
        assert len(posting.queued()) == 1
    assert [event.rule for event in told(place.log, "fired")] == ["farm"]


@pytest.mark.long
def test_an_alert_that_another_explains_is_held_back(place: Place) -> None:
    """Else one farm sends a message for each symptom."""
    symptom = FARM.replace("farm", "symptom").partition("  rules:\n")[2] + "    inhibited_by: [farm]\n"
    place.rules.write_text(FARM + symptom, encoding="utf-8")
    append(place.log, farm("d-1", 0))
    box = Box("pager")
    place.run(messages=box)
    assert {e.rule for e in told(place.log, "fired")} == {"farm", "symptom"}
    assert box.kinds() == [("firing", "farm")]
    assert [(e.rule, e.reason, e.details) for e in told(place.log, "not_notified")] == [
        ("symptom", "inhibited", {"cause": "farm"})
    ]


@pytest.mark.long
def test_what_an_operator_says_in_the_log_holds_for_the_owner(place: Place) -> None:
    """Else who has taken an alert is woken again."""
    box = Box("pager")
    with following(place, box):
        append(place.log, farm("d-1", 0))
        until(lambda: told(place.log, "notified"))
        book = alert_book(place)
        [alert_id] = fired(place)
        taken = Acknowledge(alert_id=alert_id, operator="mei", now=now())
        place.log.append([alert_events.record_of(e) for e in book.decide(taken)])
        until(lambda: _acknowledged(place))
    [(operator,)] = _rows(place, "SELECT event ->> 'operator' FROM alert_events WHERE type = 'acknowledged'")
    assert operator == "mei"


def alert_book(place: Place) -> AlertBook:
    return AlertBook(told(place.log))


def _acknowledged(place: Place) -> bool:
    return bool(told(place.log, "acknowledged"))


def _rows(place: Place, query: str) -> list[tuple[Any, ...]]:
    place.run()
    with open_database(place.folder / "a.duckdb") as store:
        return store.rows(query)


# ── Rules on the tables ──────────────────────────────────────────────────────────────────────────────────────

SQL = """
use_defaults: false
groups:
- name: tables
  rules:
  - alert: many
    expr: {kind: sql, query: "SELECT 1 AS campaign", key: [campaign]}
    keep_firing_for: 1s
"""


class Tables:
    """Answers as a question would. `offenders`: what is found; `error`: raised instead."""

    def __init__(self) -> None:
        self.offenders: list[Offender] = []
        self.error: Exception | None = None
        self.asked = 0

    def __call__(self, reading: Cursor, rule: Rule, moment: Moment) -> Sequence[Offender]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.offenders


@pytest.mark.long
def test_an_offender_is_an_alert_until_it_is_gone(place: Place) -> None:
    """Else a fault that the tables show is not told, or told again each minute."""
    place.rules.write_text(SQL, encoding="utf-8")
    tables, at = Tables(), now() - timedelta(minutes=30)
    tables.offenders = [Offender({"campaign": "k-1"}, 5, 1, at.replace(tzinfo=None), 700, "CNY")]
    append(place.log, [claim(1, at=at)])
    place.run(find=tables)
    tables.offenders = [Offender({"campaign": "k-1"}, 5, 1, at.replace(tzinfo=None) + timedelta(minutes=1))]
    append(place.log, [claim(2, at=at + timedelta(minutes=5))])
    place.run(find=tables)
    assert [(e.labels, e.money_minor) for e in told(place.log, "fired")] == [({"campaign": "k-1"}, 700)]
    tables.offenders = []
    append(place.log, [claim(3, at=at + timedelta(minutes=10))])
    place.run(find=tables)
    append(place.log, [claim(4, at=at + timedelta(minutes=15))])
    place.run(find=tables)
    assert [e.type for e in told(place.log) if e.type != "not_notified"] == ["fired", "recovering", "resolved"]
    tables.offenders = [Offender({"campaign": "k-1"}, 5, 1, at.replace(tzinfo=None))]
    append(place.log, [claim(5, at=at + timedelta(minutes=20))])
    place.run(find=tables)
    place.run(find=tables)
    assert len(fired(place)) == 2, "it holds anew, and is told anew, once"


@pytest.mark.long
def test_what_an_operator_closed_is_not_fired_again_for_the_same_fault(place: Place) -> None:
    """Else whoever settles a fault is told of it for ever."""
    place.rules.write_text(SQL, encoding="utf-8")
    tables, at = Tables(), now() - timedelta(minutes=30)
    tables.offenders = [Offender({"campaign": "k-1"}, 5, 1, at.replace(tzinfo=None))]
    append(place.log, [claim(1, at=at)])
    place.run(find=tables)
    [alert_id] = fired(place)
    settled = Resolve(alert_id=alert_id, operator="mei", outcome="true", now=now())
    place.log.append([alert_events.record_of(e) for e in alert_book(place).decide(settled)])
    append(place.log, [claim(2, at=at + timedelta(minutes=5))])
    place.run(find=tables)
    assert list(fired(place)) == [alert_id]


@pytest.mark.long
def test_a_rule_that_fails_is_an_alert_of_its_own(place: Place) -> None:
    """Else a rule that does not run looks like a rule that finds nothing."""
    place.rules.write_text(SQL, encoding="utf-8")
    tables = Tables()
    tables.error = ValueError("no such table")
    append(place.log, [claim(1)])
    place.run(find=tables)
    place.run(find=tables)
    [error] = told(place.log, "error")
    assert (error.rule, error.note) == ("many", "no such table")
    tables.error = None
    place.run(find=tables)
    assert [e.rule for e in told(place.log, "resolved")] == ["many"]


def test_a_run_that_ends_with_the_log_waits_for_a_rule_that_takes_a_second(place: Place) -> None:
    """Else `consume` ends with an error that says nothing, and the rules behind the slow one are not asked."""
    place.rules.write_text(SQL, encoding="utf-8")
    tables = Tables()
    tables.offenders = [Offender({"campaign": "k-1"}, 5, 1, (now() - timedelta(minutes=1)).replace(tzinfo=None))]

    def slow(reading: Cursor, rule: Rule, moment: Moment) -> Sequence[Offender]:
        time.sleep(0.8)
        return tables(reading, rule, moment)

    append(place.log, [claim(1)])
    place.run(find=slow)
    assert [e.rule for e in told(place.log, "fired")] == ["many"]


@pytest.mark.slow
def test_a_rule_that_takes_too_long_is_broken_off_and_the_consumer_goes_on(place: Place) -> None:
    """Else one query stops every alert, or the consumer with it."""
    rule = SQL.replace("key: [campaign]", "key: [campaign], timeout: 1s")
    place.rules.write_text(rule, encoding="utf-8")

    def endless(reading: Cursor, rule: Rule, moment: Moment) -> Sequence[Offender]:
        reading.rows("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = 7")
        return []

    append(place.log, [claim(1)])
    with following(place, find=endless):
        started = time.monotonic()
        append(place.log, farm("d-1", 10))
        until(lambda: told(place.log, "error"))
        assert time.monotonic() - started < 20
    [error] = told(place.log, "error")
    assert error.rule == "many" and "longer than 1 s" in (error.note or "")


@pytest.mark.slow
def test_the_default_rules_find_a_double_use_in_the_tables(place: Place) -> None:
    """Else rules, questions and owner each work, and a coupon that was used twice is told to nobody."""
    at = now() - timedelta(minutes=5)
    used: dict[str, Any] = {"type": "used", "order_id": "o-1", "discount_minor": 1_000, "device_id": None}
    append(place.log, [claim(1, at=at)])
    append(place.log, [claim(1, at=at + timedelta(minutes=1), event_id="use-1", **used)])
    append(place.log, [claim(1, at=at + timedelta(minutes=2), event_id="use-2", **(used | {"order_id": "o-2"}))])
    place.run(rules=None, find=OnTables())
    assert [(e.rule, e.labels) for e in told(place.log, "fired") if e.rule == "double_use"] == [
        ("double_use", {"campaign": "k-1"})
    ]
    assert told(place.log, "error") == [], "no default rule fails"


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────

CHANNELS = """
channels:
  hook: {{url: "{url}", secret: {{env: HOOK_SECRET}}, personal_data: true}}
"""


@pytest.mark.slow
def test_the_command_sends_what_a_rule_finds_in_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all parts work, and nobody gets a message."""
    monkeypatch.setenv("HOOK_SECRET", "geheim-7")
    server = Http()
    append(place.log, farm("d-1", 0))
    options = ("--log", place.settings.url, "--database", place.folder / "a.duckdb", "--alert-rules", place.rules)
    with serving(server.serve, server.ending) as port:
        place.rules.write_text(FARM + CHANNELS.format(url=f"http://127.0.0.1:{port}/alerts"), encoding="utf-8")
        assert ledger("init", *options[:4]).code == 0
        assert ledger("consume", *options, "--no-alerts").code == 0
        assert told(place.log) == [] and not server.requests
        ran = ledger("consume", *options)
        assert ran.code == 0, ran.err
        assert ledger("consume", *options).code == 0
    [request] = server.requests
    alert = json.loads(request.body)["alert"]
    assert (alert["rule"], alert["severity"], alert["keys"]) == ("farm", "high", {"device_id": "d-1"})
    assert (alert["value"], alert["threshold"], alert["money_minor"]) == (3, 3, 3_000)
    assert "d-1" in alert["summary"]["en"] and "d-1" in alert["summary"]["zh"]
    assert [e.channel for e in told(place.log, "notified")] == ["hook"]


@pytest.mark.long
def test_a_flood_of_one_rule_does_not_hold_up_the_others(place: Place) -> None:
    """Else whoever wants to rob a campaign first sets off five thousand small alarms."""
    urgent = FARM.replace("farm", "urgent").replace("severity: high", "severity: critical").partition("  rules:\n")[2]
    place.rules.write_text(FARM + urgent.replace("at_least: 3", "at_least: 9"), encoding="utf-8")
    append(place.log, [event for n in range(400) for event in farm(f"d-{n}", 10 * n)])
    append(place.log, farm("d-urgent", 9_000, number=9))
    place.run()
    order = [e.rule for e in told(place.log, "fired")]
    assert Counter(order) == {"farm": 401, "urgent": 1}
    assert order.index("urgent") < 40
    assert sum("rows" in str(e.details) for e in told(place.log, "fired")) < 400, "the others are read when asked for"


class Crashing(Box):
    """The process ends as soon as messages are in the queue."""

    def put(self, messages: Sequence[Message], alerts: Mapping[str, Alert], rules: Mapping[str, Rule]) -> None:
        super().put(messages, alerts, rules)
        raise KeyboardInterrupt


@pytest.mark.long
def test_nobody_is_told_of_an_alert_that_a_crash_then_loses(place: Place) -> None:
    """Else people look for an alert that does not exist, and are told the same once more under another id."""

    tables, box = Tables(), Crashing("pager")
    tables.error = ValueError("no such column")
    place.rules.write_text(SQL, encoding="utf-8")
    append(place.log, [claim(1)])
    with pytest.raises(KeyboardInterrupt):
        place.run(messages=box, find=tables)
    place.run()
    [message] = box.taken.values()
    assert {event.alert_id for event in told(place.log)} >= set(message.alert_ids)


@pytest.mark.long
@pytest.mark.parametrize("damaged", ["groups: [", FARM + "  - alert: more\n    expr: {kind: velocity, ev"])
def test_a_file_that_cannot_be_read_takes_no_channel_away(place: Place, tmp_path: Path, damaged: str) -> None:
    """Else who saves half a file silences every alert, that of the half file too."""
    server = Http()
    (tmp_path / "key").write_text("k", encoding="utf-8")
    with serving(server.serve, server.ending) as port, closing(Posting(tmp_path / "m.db", folder=tmp_path)) as posting:
        hook = f"channels: {{hook: {{url: 'http://127.0.0.1:{port}/', secret: {{file: key}}}}}}\n"
        place.rules.write_text(FARM + hook, encoding="utf-8")
        place.run(messages=posting)
        place.rules.write_text(damaged, encoding="utf-8")
        append(place.log, farm("d-1", 0))
        place.run(messages=posting)
        until(lambda: len(server.requests) == 2)
    assert {json.loads(r.body)["alert"]["rule"] for r in server.requests} == {"farm", "alert-rules"}


@pytest.mark.long
def test_a_channel_without_its_secret_is_an_alert_on_the_others(place: Place, tmp_path: Path) -> None:
    """Else the alerts of its rules reach nobody, and a line in a log that nobody reads is all that says so."""
    server = Http()
    (tmp_path / "key").write_text("k", encoding="utf-8")
    with serving(server.serve, server.ending) as port, closing(Posting(tmp_path / "m.db", folder=tmp_path)) as posting:
        fields = f"url: 'http://127.0.0.1:{port}/'"
        hooks = f"  hook: {{{fields}, secret: {{file: key}}}}\n  lost: {{{fields}, secret: {{file: none}}}}\n"
        place.rules.write_text(f"{FARM}    channels: [lost]\nchannels:\n{hooks}", encoding="utf-8")
        place.run(messages=posting)
        until(lambda: server.requests)
        [said] = [json.loads(request.body)["alert"]["summary"]["en"] for request in server.requests]
        assert "channel lost, secret: the file none cannot be read" in said
        (tmp_path / "none").write_text("k", encoding="utf-8")
        place.rules.write_text(place.rules.read_text(encoding="utf-8") + "# mended\n", encoding="utf-8")
        place.run(messages=posting)
    assert "resolved" in {event.type for event in told(place.log) if event.rule == "alert-rules"}


@pytest.mark.long
def test_a_dead_channel_is_tried_with_the_next_alert_once_nothing_waits_for_it(place: Place, tmp_path: Path) -> None:
    """Else a channel that was gone for a day is never used again, though it works."""
    server, file = Http(), tmp_path / "m.db"
    (tmp_path / "key").write_text("k", encoding="utf-8")
    with closing(MessageQueue(file)) as queue:
        for _ in range(DEAD_AFTER):
            queue.failed("hook", "HTTP status 500", now=time.time() - 90_000, rests_until=time.time() - 89_000)
        queue.reported_dead("hook")
    append(place.log, farm("d-1", 0))
    with serving(server.serve, server.ending) as port, closing(Posting(file, folder=tmp_path)) as posting:
        hook = f"channels: {{hook: {{url: 'http://127.0.0.1:{port}/', secret: {{file: key}}}}}}\n"
        place.rules.write_text(FARM + hook, encoding="utf-8")
        place.run(messages=posting)
        until(lambda: len(server.requests) == 1)
        until(lambda: not posting.channels()["hook"].dead)


# ── Actions without asking ───────────────────────────────────────────────────────────────────────────────────

AUTOMATIC = FARM.rstrip() + "\n    action: {do: revoke_coupons, automatic: proof.json}\n"


def proof(**changed: object) -> str:
    """What a backtest wrote of the rule `FARM`."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(FARM)
        file.flush()
        condition = load(file.name).rule_set.rules[0].condition
    row = {"rule": "farm", "condition": condition, "alerts": 20, "unfounded": 1, "faults_found": 9}
    return json.dumps([row | changed])


@pytest.mark.long
def test_an_action_with_a_proof_is_taken_once_by_itself(place: Place) -> None:
    """Else a farm spends its coupons while people sleep; or a coupon is revoked at each evaluation."""
    (place.folder / "proof.json").write_text(proof(), encoding="utf-8")
    place.rules.write_text(AUTOMATIC, encoding="utf-8")
    with following(place):
        append(place.log, farm("d-1", 0))
        until(lambda: told(place.log, "acted"))
        append(place.log, [claim(9, "d-1")])
    [acted] = told(place.log, "acted")
    assert (acted.action, acted.operator, acted.details["dry"]) == ("revoke_coupons", None, False)
    place.run()
    place.run()
    assert len(told(place.log, "acted")) == 1
    with open_database(place.folder / "a.duckdb") as store:
        found = store.rows("SELECT coupon_id, state FROM coupons ORDER BY coupon_id")
        reasons = store.rows("SELECT DISTINCT reason FROM coupon_events WHERE type = 'revoked'")
    assert [state for coupon, state in found if coupon != "c-9"] == ["revoked"] * 3
    assert reasons == [("rule farm, without asking",)]


@pytest.mark.long
def test_an_automatic_action_that_is_not_folded_yet_can_be_taken_again_by_hand(place: Place) -> None:
    """Else whoever makes sure, after a crash, gives each coupon a second event that conflicts with the first."""
    (place.folder / "proof.json").write_text(proof(), encoding="utf-8")
    place.rules.write_text(AUTOMATIC, encoding="utf-8")
    append(place.log, farm("d-1", 0))
    place.run()
    place.run()
    assert len(told(place.log, "acted")) == 1
    [alert] = fired(place)
    options = ("--log", place.settings.url, "--database", place.folder / "a.duckdb", "--alert-rules", place.rules)
    ran = ledger("alerts", "act", alert, "--yes", "--why", "to be sure", "--by", "mei", *options)
    assert ran.code == 0 and "appended again, which changes nothing" in " ".join(ran.out.split()), ran.err
    place.run()
    with open_database(place.folder / "a.duckdb") as store:
        assert store.rows("SELECT DISTINCT state FROM coupons") == [("revoked",)]
        assert store.rows("SELECT count(*) FROM coupon_conflicts") == [(0,)]


@pytest.mark.long
def test_an_alert_of_the_past_is_not_acted_on(place: Place) -> None:
    """Else a catch-up after an outage, or an import, revokes what people have settled long ago."""
    (place.folder / "proof.json").write_text(proof(), encoding="utf-8")
    place.rules.write_text(AUTOMATIC, encoding="utf-8")
    append(place.log, farm("d-1", 0, now() - timedelta(hours=5)))
    place.run()
    place.run()
    assert fired(place) and not told(place.log, "acted")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("[]", "is no proof of rule farm"),
        ("[" * 100_000, "is no proof of rule farm"),
        (proof(alerts=True), "automatic"),
        (proof(condition="0123456789ab"), "has a proof of another condition"),
        (proof(alerts=4, unfounded=0), "fewer than five alerts"),
        (proof(unfounded=2), "more than one alert in twenty"),
        (proof(faults_found=None), "is no proof of rule farm"),
    ],
)
def test_a_rule_without_a_good_proof_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    """Else a rule that cries wolf revokes the coupons of customers."""
    if content is not None:
        (tmp_path / "proof.json").write_text(content, encoding="utf-8")
    (tmp_path / "rules.yaml").write_text(AUTOMATIC, encoding="utf-8")
    loaded = load(tmp_path / "rules.yaml")
    assert not loaded.rule_set.rules
    assert said in str(loaded.problems[0]) and loaded.problems[0].line in (6, 10)  # the rule, or the field
