"""The commands `alerts …`, as people on duty use them: what they show, what they change, and what they refuse."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from coupon_ledger.ledger.alert_events import event
from coupon_ledger.ledger.topics import ALERTS, CAMPAIGN, COUPON
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.reports.text import text_width
from tests.alert_world import EVENING, begin, book_of, consume, fire, follow, tell
from tests.command_line import (
    DATABASE,
    LOG,
    Data,
    Ran,
    coupon_event,
    done,
    ends,
    facts,
    finish,
    ledger,
    ndjson,
    one_sentence,
    start,
)  # fmt: skip

Ids = dict[str, str]


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ids]:
    """A folder with the sale and an alert of each rule, of three minutes ago, and the alerts' ids by rule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C.UTF-8")
        folder = tmp_path_factory.mktemp("evening")
        begin(folder)
        return folder, fire(folder, datetime.now(UTC) - timedelta(minutes=3))


@pytest.fixture
def duty(evening: tuple[Path, Ids], home: Path) -> Ids:
    """The working folder has a copy of the evening. Returns the ids of the alerts by rule."""
    folder, ids = evening
    for name in (LOG, DATABASE):
        shutil.copy(folder / name, home / name)
    return ids


def consumed() -> None:
    consume(Path.cwd())
    follow(Path.cwd())


def life_of(alert: str) -> list[str]:
    return [row["type"] for row in done("alerts", "history", alert, "-o", "ndjson").rows]


def shown(alert: str) -> Data:
    row: Data = done("alerts", "show", alert, "-o", "json").json
    return row


COMMANDS = (
    ("alerts", "list"),
    ("alerts", "list", "--state", "all", "--by", "severity"),
    ("alerts", "show", "FARM"),
    ("alerts", "history"),
    ("alerts", "history", "FARM"),
    ("alerts", "silences", "--all"),
    ("alerts", "stats"),
    ("alerts", "act", "FARM"),
    ("alerts", "act", "MASS"),
)


@pytest.mark.long
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_answer_fits_a_terminal_and_speaks_the_readers_language(duty: Ids, lang: str) -> None:
    """Else a person on duty reads half a table, or codes."""
    done("alerts", "silence", "rule=two_claims", "--for", "1d", "--why", "test", "--by", "mei")
    done("alerts", "ack", duty["device_farm"], "--by", "mei")
    done("alerts", "resolve", duty["device_farm"], "--true", "--by", "mei", "--saved", "35", "CNY")
    follow(Path.cwd())
    names = {"FARM": duty["device_farm"], "MASS": duty["mass_claims"]}
    for command in COMMANDS:
        ran = done(*(names.get(word, word) for word in command), "--lang", lang)
        too_wide = [line for line in ran.out.splitlines() if text_width(line) > 100]
        assert not too_wide, (command, too_wide)
        assert ran.out.strip(), command
        english = {"fired", "acknowledged", "resolved", "claimed", "during", "silenced", "firing", "critical"}
        words = set(ran.out.replace("：", " ").replace("；", " ").split())
        assert lang == "en" or not words & english, (command, words & english)


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_answer_can_be_read_by_machines(duty: Ids, command: tuple[str, ...]) -> None:
    """Else a page or a script has to parse tables."""
    names = {"FARM": duty["device_farm"], "MASS": duty["mass_claims"]}
    ran = done(*(names.get(word, word) for word in command), "--output", "json", "--lang", "zh")
    assert isinstance(ran.json, list | dict) and "–" not in ran.out


@pytest.mark.long
def test_show_begins_with_two_sentences(duty: Ids) -> None:
    """Else whoever is woken at night must read a table before knowing what happened."""
    english = done("alerts", "show", duty["device_farm"], "--lang", "en").out
    said = " ".join(english.split("\n\n")[0].split())
    assert said.startswith("8 users claimed with device d-farm within 10 min. It began at 2026-11-11 20:00:28 and is")
    assert "8 coupons of 8 users are behind it; 40.00 CNY is at stake." in said
    chinese = done("alerts", "show", duty["device_farm"], "--lang", "zh").out
    assert chinese.startswith("10 分钟内有 8 个用户用设备 d-farm 领券。\n始于 2026-11-11 20:00:28")
    both = shown(duty["device_farm"])["what_happened"]
    assert both["en"].startswith("8 users claimed") and both["zh"].startswith("10 分钟内有")


@pytest.mark.long
def test_a_rule_without_texts_has_sentences_by_its_kind(duty: Ids) -> None:
    """Else the alerts of a first own rule say nothing."""
    said = done("alerts", "show", duty["mass_claims"]).out
    assert said.startswith("8 events (claimed) of campaign k-1, ip 10.0.0.7 came within 5.0 min; the rule fires at 6.")
    said = done("alerts", "show", duty["mass_claims"], "--lang", "zh").out
    assert said.startswith("5.0 分钟内，活动 k-1，IP 10.0.0.7发生 8 次领取；触发阈值为 6。")


@pytest.mark.long
def test_show_says_what_to_do_and_only_what_is_left_to_do(duty: Ids) -> None:
    """Else people are told to take what is taken."""
    said = done("alerts", "show", duty["device_farm"]).out
    for step in ("docs/alerts.md#device_farm", "alerts ack", "alerts act", "alerts resolve"):
        assert step in said
    done("alerts", "ack", duty["device_farm"], "--by", "mei")
    follow(Path.cwd())
    assert "alerts ack" not in done("alerts", "show", duty["device_farm"]).out


@pytest.mark.long
def test_show_says_what_was_done_and_what_that_leaves(duty: Ids) -> None:
    """Else whoever opens a closed alert does not see that its coupons were revoked, or that some can still be used."""
    alert = duty["device_farm"]
    assert "7 coupons behind it can still be used" in " ".join(done("alerts", "show", alert).out.split())
    done("alerts", "act", alert, "--yes", "--why", "one device", "--by", "mei")
    consumed()
    done("alerts", "resolve", alert, "--true", "--by", "li")
    follow(Path.cwd())
    said = " ".join(done("alerts", "show", alert).out.split())
    assert re.search(
        r"what was done 1\. \S+ \S+, mei: revoke the coupons behind it, with 7 events \(one device\)", said
    )
    assert "can still be used" not in said and "alerts act" not in said
    chinese = done("alerts", "show", alert, "--lang", "zh").out
    assert "已做处置" in chinese and "mei：作废涉及的券，追加 7 个事件（one device）" in chinese
    assert shown(alert)["life"][-2]["events"] == 7
    done("alerts", "act", duty["mass_claims"], "--dry-run")
    assert "what was done" not in done("alerts", "show", duty["mass_claims"]).out


@pytest.mark.long
def test_who_takes_an_alert_is_recorded_and_told_what_happens_next(duty: Ids) -> None:
    """Else two people work on one alert, and nobody on the other."""
    alert = duty["device_farm"]
    said = done("alerts", "ack", alert[:6], "--by", "mei", "--for", "2h", "--why", "calling the shop").out
    assert "mei has taken alert" in said and "people are told again" in " ".join(said.split())
    follow(Path.cwd())
    row = shown(alert)
    assert (row["status"], row["acknowledged_by"], row["assignee"]) == ("acknowledged", "mei", "mei")
    assert row["life"][-1]["note"] == "calling the shop"
    done("alerts", "assign", alert, "li", "--by", "mei", "--why", "night shift")
    done("alerts", "note", alert, "the shop does not answer", "--by", "li")
    follow(Path.cwd())
    assert shown(alert)["assignee"] == "li"
    assert life_of(alert) == ["fired", "acknowledged", "owner_assigned", "noted"]


@pytest.mark.long
def test_resolving_says_what_came_of_it_and_twice_changes_nothing(duty: Ids) -> None:
    """Else a slip of the finger counts twice in the statistics."""
    alert = duty["device_farm"]
    said = done("alerts", "resolve", alert, "--true", "--saved", "35.00", "CNY", "--by", "mei").out
    assert "is closed, as true" in said and "35.00 CNY" in said
    before = ends([ALERTS])
    assert "nothing changed" in done("alerts", "resolve", alert, "--true", "--by", "mei").out
    assert ends([ALERTS]) == before
    assert "now counts as false" in done("alerts", "resolve", alert, "--false", "--by", "mei").out
    follow(Path.cwd())
    [row] = [r for r in done("alerts", "stats", "-o", "ndjson").rows if r["rule"] == "device_farm"]
    assert (row["false_alerts"], row["true_alerts"], row["precision_rate"]) == (1, 0, 0.0)


@pytest.mark.long
def test_a_poor_rule_is_named(home: Path) -> None:
    """Else the rule that cries wolf is muted, and with it the others."""
    expr = {"kind": "velocity", "events": ["claimed", "used"], "by": ["user_id"], "at_least": 2, "window": "P10D"}
    anybody = Rule.model_validate({"name": "anybody", "expr": expr})
    begin(home, [anybody])
    fire(home, datetime.now(UTC), rules=[anybody])
    first, *others = [row["alert_id"] for row in done("alerts", "list", "-o", "ndjson").rows]
    assert len(others) == 2
    done("alerts", "resolve", first, "--true", "--by", "mei")
    for number, alert in enumerate(others):
        done("alerts", "resolve", alert, "--false", "--by", "mei")
        follow(home)
        said = " ".join(done("alerts", "stats").out.split())
        assert ("rule anybody is poor: 1 of 3 judged alerts were right" in said) == (number == 1)


@pytest.mark.long
def test_a_silence_holds_until_it_is_ended(duty: Ids) -> None:
    """Else a load test wakes everybody, or a forgotten silence hides the next attack."""
    said = done(
        "alerts", "silence", "--alert", duty["device_farm"], "--for", "1d", "--why", "load test", "--by", "mei"
    ).out
    assert "1 open alert is silenced" in said
    follow(Path.cwd())
    assert shown(duty["device_farm"])["status"] == "silenced"
    [silence] = done("alerts", "silences", "-o", "ndjson").rows
    assert (silence["matchers"], silence["alerts"]) == ("rule=device_farm, device_id=d-farm", 1)
    assert "has ended" in done("alerts", "unsilence", silence["silence_id"][:6], "--by", "mei").out
    follow(Path.cwd())
    assert done("alerts", "silences", "-o", "ndjson").rows == []
    one_sentence(ledger("alerts", "unsilence", silence["silence_id"]), 1, "has ended already")


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("show", "zzz"), 1, ("there is no alert 'zzz'", "alerts list")),
        (("ack", "zzz"), 1, ("there is no alert 'zzz'", "alerts list")),
        (("ack", ""), 1, ("there is no alert ''",)),
        (("history", "zzz"), 1, ("there is no alert 'zzz'",)),
        (("act", "zzz"), 1, ("there is no alert 'zzz'",)),
        (("unsilence", "zzz"), 1, ("there is no silence zzz",)),
        (("ack", "FARM", "--until", "2020-01-01"), 1, ("2019-12-31T16:00:00Z", "has passed")),
        (("ack", "FARM", "--for", "1h", "--until", "2030-01-01"), 2, ("exclude each other",)),
        (("ack", "FARM", "--for", "999999999d"), 2, ("--for",)),
        (("resolve", "FARM"), 2, ("--true, --false or --unknown",)),
        (("resolve", "FARM", "--true", "--saved", "1.234", "CNY"), 2, ("1.234", "2 decimals")),
        (("resolve", "FARM", "--true", "--saved", "-5", "CNY"), 2, ("from 0 up",)),
        (("resolve", "FARM", "--true", "--saved", "5", "DOGE"), 2, ("DOGE", "ISO 4217")),
        (("resolve", "FARM", "--true", "--saved", "NaN", "CNY"), 2, ("NaN",)),
        (("silence", "--for", "1d", "--why", "x"), 1, ("1 to 20 matchers",)),
        (("silence", "farm", "--for", "1d", "--why", "x"), 1, ("matcher farm", "label=value")),
        (("silence", "rule=x", "--for", "1d"), 2, ("--why",)),
        (("silence", "rule=x", "--why", "x"), 2, ("--for or --until",)),
        (("note", "FARM", " "), 1, ("note is empty",)),
        (("assign", "FARM", " "), 2, ("PERSON",)),
        (("act", "QUIET"), 1, ("two_claims", "names no action", "--do")),
        (("act", "FARM", "--yes"), 2, ("--why",)),
        (("act", "FARM", "--yes", "--dry-run", "--why", "x"), 2, ("exclude each other",)),
        (("act", "QUIET", "--do", "webhook"), 1, ("no channel", "--channel")),
        (("act", "QUIET", "--do", "webhook", "--channel", "nope"), 1, ("no channel nope",)),
        (("act", "FARM", "--do", "unpublish_campaign", "--campaign", "k-9"), 1, ("k-9",)),
        (("history", "--type", "firred"), 2, ("firred", "fired")),
        (("list", "--key", "=x"), 2, ("label=value",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_mistakes_are_answered_with_one_sentence(
    duty: Ids, command: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    """Else whoever mistypes at night reads a traceback, or believes that it worked."""
    names = {"FARM": duty["device_farm"], "QUIET": duty["two_claims"]}
    before = ends([ALERTS, COUPON, CAMPAIGN])
    one_sentence(ledger("alerts", *(names.get(word, word) for word in command)), code, *words)
    assert ends([ALERTS, COUPON, CAMPAIGN]) == before, "nothing was appended"


@pytest.mark.long
def test_an_ambiguous_beginning_is_refused_with_what_it_may_mean(home: Path) -> None:
    """Else another alert is closed than the one that was meant."""
    done("init")
    tell(home, [event("fired", event_id=i, occurred_at=EVENING, fingerprint=i, alert_id=i, rule="farm", severity="high")
                for i in ("ab12", "ab34", "cd56")])  # fmt: skip
    for command in (("ack", "ab"), ("show", "ab"), ("history", "ab"), ("resolve", "ab", "--true")):
        one_sentence(ledger("alerts", *command), 2, "'ab'", "ab12, ab34", "write more of the id")
    assert "has taken alert cd56" in done("alerts", "ack", "c", "--by", "mei").out


@pytest.mark.long
def test_acting_shows_its_effect_first_and_appends_nothing(duty: Ids) -> None:
    """Else people revoke coupons by looking."""
    before = ends([ALERTS, COUPON, CAMPAIGN])
    plan = done("alerts", "act", duty["device_farm"], "-o", "json").json
    assert (plan["dry_run"], plan["new_events"]) == (True, 7)
    assert plan["effect"]["states"] == {"claimed": 7}
    assert plan["effect"]["promised"] == [{"currency": "CNY", "promised_minor": 3_500}]
    assert "7 events would be appended" in done("alerts", "act", duty["device_farm"], "--dry-run").out
    assert ends([ALERTS, COUPON, CAMPAIGN]) == before


@pytest.mark.long
def test_acting_revokes_what_can_still_be_used_and_twice_changes_nothing(duty: Ids) -> None:
    """Else a used coupon is revoked, which is illegal, or the farm keeps its coupons; or a second click does damage."""
    alert = duty["device_farm"]
    act = ("alerts", "act", alert, "--yes", "--why", "one device, eight accounts", "--by", "mei")
    assert "7 events appended" in done(*act).out
    again = done(*act).out  # before the consumer has folded them
    assert "appended again, which changes nothing" in " ".join(again.split())
    consumed()
    row = shown(alert)
    assert {s["state"]: s["coupons"] for s in row["states"]} == {"revoked": 7, "used": 1}
    assert [e["action"] for e in row["life"] if e["type"] == "acted"] == ["revoke_coupons"]
    settled, before = facts(), ends([ALERTS, COUPON])
    assert "nothing else is left to do" in done(*act).out
    assert ends([ALERTS, COUPON]) == before
    consumed()
    assert facts() == settled
    state = done("state", "c-0", "-o", "json").json
    assert (state["state"], state["reason"]) == ("revoked", "one device, eight accounts")
    [told] = [e for e in done("history", "c-0", "-o", "ndjson").rows if e["type"] == "revoked"]
    assert told["violations"] == [] and told["data"]["attributes"]["operator"] == "mei"
    assert done("violations", "--count", "-o", "ndjson").rows == []


@pytest.mark.long
def test_an_action_that_was_interrupted_is_completed(duty: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut between the record of an action and its events leaves the farm its coupons for good."""
    from coupon_ledger.ledger.sqlite_log import SqliteLog

    alert, append = duty["device_farm"], SqliteLog.append

    def only_alerts(self: SqliteLog, records: Any) -> Any:
        if records[0].topic == COUPON:
            raise OSError("power cut")
        return append(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLog, "append", only_alerts)
        assert ledger("alerts", "act", alert, "--yes", "--why", "one device", "--by", "mei").code != 0
    assert book_of(Path.cwd()).alerts[alert].acted == {"revoke_coupons"}
    done("alerts", "act", alert, "--yes", "--why", "again", "--by", "li")
    consumed()
    [told] = [e for e in done("history", "c-0", "-o", "ndjson").rows if e["type"] == "revoked"]
    assert (told["data"]["reason"], told["data"]["attributes"]["operator"]) == ("one device", "mei")
    assert [e for e in life_of(alert) if e == "acted"] == ["acted"]


@pytest.mark.long
@pytest.mark.parametrize("rule", ["device_farm", "mass_claims"])
def test_an_action_taken_by_several_at_the_same_moment_is_one(duty: Ids, rule: str) -> None:
    """Else each coupon is revoked by one event and conflicts with another, which is an alarm of its own."""
    act = ("alerts", "act", duty[rule], "--yes", "--why")
    for process in [start(*act, f"seen by {who}", "--by", who) for who in ("mei", "li", "wu")]:
        assert finish(process).code == 0
    consumed()
    status = done("status", "-o", "json").json
    assert (status["conflicts"], status["violations"]) == (0, 0)


@pytest.mark.long
def test_acting_unpublishes_the_campaign_once(duty: Ids) -> None:
    """Else the drain goes on, or a campaign that was published again is unpublished by an old alert."""
    act = ("alerts", "act", duty["mass_claims"], "--yes", "--why", "mass claims", "--by", "mei")
    before = ends([CAMPAIGN])
    assert "1 event appended" in done(*act).out
    consumed()
    assert done("campaigns", "show", "k-1", "-o", "json").json["status"] == "unpublished"
    assert "nothing else is left to do" in done(*act).out
    assert ends([CAMPAIGN]) == before + 1


class Receiver(BaseHTTPRequestHandler):
    got: ClassVar[list[Data]] = []
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).got.append({"id": self.headers["webhook-id"], "body": json.loads(body)})
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    Receiver.got, Receiver.status = [], 200
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.long
def test_a_webhook_is_called_once(duty: Ids, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the shop's till is blocked twice, or nobody knows that it was not."""
    monkeypatch.setenv("HOOK_SECRET", "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0")
    Path("rules.yaml").write_text(
        f"channels:\n  till: {{url: 'http://127.0.0.1:{receiver.server_port}/hook', secret: {{env: HOOK_SECRET}}}}\n"
    )
    act = ("alerts", "act", duty["two_claims"], "--do", "webhook", "--channel", "till", "--alert-rules", "rules.yaml")
    done(*act)
    assert Receiver.got == [], "looking calls nobody"
    Receiver.status = 503
    one_sentence(ledger(*act, "--yes", "--why", "block it", "--by", "mei"), 1, "till", "nothing was recorded")
    Receiver.status = 200
    assert "has accepted the message" in done(*act, "--yes", "--why", "block it", "--by", "mei").out
    assert "nothing is sent again" in done(*act, "--yes", "--why", "block it", "--by", "mei").out
    assert len(Receiver.got) == 2 and len({one["id"] for one in Receiver.got}) == 1
    follow(Path.cwd())
    assert [e["action"] for e in shown(duty["two_claims"])["life"] if e["type"] == "acted"] == ["webhook"]


@pytest.mark.long
def test_an_alerts_past_is_shown_as_it_was(duty: Ids) -> None:
    """Else an audit of last night sees what was done this morning."""
    alert = duty["device_farm"]
    taken = datetime.now(UTC)
    done("alerts", "ack", alert, "--by", "mei")
    follow(Path.cwd())
    at = (taken - timedelta(seconds=1)).isoformat()
    assert done("alerts", "show", alert, "--at", at, "-o", "json").json["status"] == "firing"
    assert [r["status"] for r in done("alerts", "list", "--rule", "device_farm", "--at", at, "-o", "ndjson").rows] == [
        "firing"
    ]
    assert done("alerts", "history", alert, "--at", at, "-o", "ndjson").rows[-1]["type"] == "fired"
    one_sentence(ledger("alerts", "show", alert, "--at", "2026-01-01"), 1, "there is no alert")


@pytest.mark.long
def test_a_list_of_the_evening_is_empty_without_alerts(home: Path) -> None:
    """Else nothing at all looks like an error."""
    done("init")
    assert done("alerts", "list").out == "no alert is open; --state all also shows closed ones\n"
    assert done("alerts", "list", "--lang", "zh").out == "没有未关闭的告警；--state all 也显示已关闭的\n"
    assert done("alerts", "silences").out == "nothing is silenced\n"
    assert done("alerts", "stats").out == "no alert fired in this period, and nothing was reported as missed\n"
    assert done("alerts", "list", "-o", "json").json == []


def test_another_log_than_the_databases_is_refused(duty: Ids, tmp_path: Path) -> None:
    """Else the acknowledgement goes where nobody reads it."""
    done("init", "--log", f"sqlite:///{tmp_path / 'other.db'}", "--database", tmp_path / "other.duckdb")
    ran: Ran = ledger("alerts", "ack", duty["device_farm"], "--log", f"sqlite:///{tmp_path / 'other.db'}")
    one_sentence(ran, 4)


@pytest.mark.long
def test_what_is_done_stands_after_the_events_that_it_answers(duty: Ids) -> None:
    """Else a revocation would be folded before the claim that it takes back, wherever the data's clock is ahead."""
    done("alerts", "act", duty["device_farm"], "--yes", "--why", "x", "--by", "mei")
    consumed()
    events = done("history", "c-0", "-o", "ndjson").rows
    assert events[-1]["type"] == "revoked" and events[-1]["occurred_at"] >= EVENING.isoformat()


@pytest.mark.long
def test_the_default_rules_watch_without_a_setting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a shop that installs the ledger is watched by nobody, and does not know."""
    monkeypatch.delenv("COUPON_LEDGER_ALERT_RULES")
    done("init")
    done("publish", Path(__file__).parent.parent / "docs" / "device-farm.ndjson")
    done("consume")
    [farm] = done("alerts", "list", "--state", "all", "--rule", "device_farm", "-o", "json").json
    assert farm["key"] == {"device_id": "d-farm"} and farm["measured"] >= 5
    [changed] = done("operations", "-o", "json").json
    assert changed["action"] == "alert_rules_changed"


REFUSED = (
    ("ack", "FARM", "--for", "x"),
    ("ack", "FARM", "--for", "1h", "--until", "2036-01-01"),
    ("ack", "zzz"),
    ("ack",),
    ("ack", "FARM", "--by", "x" * 300),
    ("resolve", "FARM"),
    ("resolve", "zzz", "--true"),
    ("resolve", "FARM", "--true", "--saved", "x", "CNY"),
    ("resolve", "FARM", "--true", "--saved", "1", "ZZZ"),
    ("resolve", "FARM", "--true", "--saved", "0.001", "CNY"),
    ("assign", "FARM", " "),
    ("assign", "zzz", "mei"),
    ("note", "FARM", ""),
    ("silence", "rule=a"),
    ("silence", "rule=a", "--for", "1h"),
    ("silence", "a", "--for", "1h", "--why", "x"),
    ("silence", "--for", "1h", "--why", "x"),
    ("silence", "rule=a", "--until", "2020-01-01", "--why", "x"),
    ("silence", "rule=a", "--until", "soon", "--why", "x"),
    ("silence", "rule=a", "--for", "1h", "--why", "x" * 2_000),
    ("unsilence", "zzz"),
    ("act", "zzz"),
    ("act", "FARM", "--yes"),
    ("act", "FARM", "--yes", "--dry-run"),
    ("act", "FARM", "--do", "nothing"),
    ("act", "FARM", "--do", "webhook"),
    ("act", "FARM", "--do", "webhook", "--channel", "nowhere"),
    ("act", "FARM", "--do", "unpublish_campaign", "--campaign", "nowhere"),
)


@pytest.mark.long
@pytest.mark.parametrize("command", REFUSED, ids=lambda command: " ".join(command)[:60])
def test_what_is_refused_is_refused_in_the_readers_language(duty: Ids, command: tuple[str, ...]) -> None:
    """Else the one sentence that would help is the one that a reader of Chinese cannot read."""
    words = [duty["device_farm"] if word == "FARM" else word for word in command]
    ran = ledger("alerts", *words, "--lang", "zh")
    assert ran.code and not ran.out, ran
    said = ran.err.removeprefix("错误: ").strip()
    assert ran.err.startswith("错误: ") and re.search("[一-鿿]{2}", said), ran.err
    quoted = re.sub(r"`[^`]*`|'[^']*'", "", said)
    english = {"is", "the", "write", "no", "needed", "closed", "there", "must", "has", "value", "and", "or", "of"}
    assert not english & set(re.findall("[a-z]+", quoted)), said


SHARED_PHONE = """groups:
- name: g
  rules:
  - alert: group
    expr: {kind: linked, events: [claimed], over: [device_id], users: 4, at_least: 4, window: 1d}
    action: {do: revoke_coupons}
  - alert: one_phone
    expr: {kind: concentration, events: [claimed], of: device_id, by: [campaign_id], top: 1, share: 0.5, at_least: 5,
           window: 1d}
"""


@pytest.mark.long
@pytest.mark.parametrize("rule", ["group", "one_phone"])
def test_behind_an_alert_are_all_that_the_rule_found_and_no_others(home: Path, rule: str) -> None:
    """Seven people on one phone, and six on their own. Else `act` revokes one coupon of the seven, or those of
    bystanders; and once the alert is closed, other ones than before."""
    Path("rules.yaml").write_text(SHARED_PHONE, encoding="utf-8")
    devices = [*["phone"] * 7, *(f"d-{n}" for n in range(6))]
    claims = [
        coupon_event("claimed", f"e-{n}", coupon_id=f"c-{n}", user_id=f"u-{n}", device_id=device, campaign_id="k",
                     occurred_at=f"2026-11-11T10:{3 * n:02}:00Z")
        for n, device in enumerate(devices)
    ]  # fmt: skip
    late = coupon_event("claimed", "e-99", coupon_id="c-99", user_id="u-99", occurred_at="2026-11-11T11:40:00Z")
    done("init")
    done("publish", "-", stdin=ndjson([*claims, late]))
    done("consume", "--alert-rules", "rules.yaml")
    [alert] = [r["alert_id"] for r in done("alerts", "list", "--rule", rule, "-o", "json").json]
    for _ in range(2):
        row = shown(alert)
        assert (row["coupons"], {one["coupon_id"] for one in row["coupon_list"]}) == (7, {f"c-{n}" for n in range(7)})
        ledger("alerts", "resolve", alert, "--true", "--by", "mei", "--why", "one phone")
        done("consume", "--alert-rules", "rules.yaml")
    assert row["status"] == "resolved"
