"""`alerts rules list`: what is in force, beside what the file says; and who is told while the file is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.cli.alerts.rules_in_force import AS_FILED, Standing, beside_the_file
from coupon_ledger.consumers.alerts.rules import put_in_force
from coupon_ledger.delivery.posting import Posting
from coupon_ledger.projections.alerts.in_force import versions
from coupon_ledger.projections.alerts.rules_file import load_bytes
from coupon_ledger.projections.store import Store
from tests.alert_owner import FARM, Place, append, farm, told
from tests.command_line import Ran, done
from tests.examples import examples
from tests.folding import scratch_store

FILE = Path("rules.yaml")
OTHER = FARM.replace("alert: farm", "alert: twins")
BROKEN = "]]: {"
HOOK = "channels: {hook: {url: 'http://127.0.0.1:9/', secret: {file: key}}}\n"


@pytest.fixture
def shop(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which the rules of `FARM` are in force."""
    monkeypatch.setenv("COUPON_LEDGER_ALERT_RULES", str(FILE))
    FILE.write_text(FARM, encoding="utf-8")
    done("init")
    done("consume")
    return home


def _states() -> dict[str, str]:
    return {row["rule"]: row["rule_state"] for row in done("alerts", "rules", "list", "-o", "ndjson").rows}


def _listed(lang: str = "en") -> str:
    ran: Ran = done("--lang", lang, "alerts", "rules", "list")
    return " ".join(ran.out.split())


@pytest.mark.long
def test_rules_of_an_unread_file_are_told_from_those_in_force(shop: Path) -> None:
    """Else people read a new threshold in the list, and the old one judges."""
    assert _states() == {"farm": "as_filed"} and "alerts rules" not in _listed()
    FILE.write_text(FARM.replace("at_least: 3", "at_least: 9"), encoding="utf-8")
    assert _states() == {"farm": "other_version"}
    [row] = done("alerts", "rules", "list", "-o", "json").json
    assert row["version"] != row["version_of_file"]
    assert "in force in another version than that of the file: farm" in _listed()
    assert "现行版本与文件不同：farm" in _listed("zh")
    FILE.write_text(OTHER, encoding="utf-8")
    assert _states() == {"twins": "not_in_force", "farm": "not_in_file"}
    done("consume")
    assert _states() == {"twins": "as_filed"}


@pytest.mark.long
@pytest.mark.parametrize("damaged", [BROKEN, "", FARM.replace("at_least: 3", "at_least: x")])
def test_while_the_file_is_broken_the_list_has_what_is_in_force(shop: Path, damaged: str) -> None:
    """Else the list shows the default rules, and people believe that their own are gone."""
    FILE.write_text(damaged, encoding="utf-8")
    assert _states() == {"farm": "as_before"}
    assert ("cannot be read" if damaged in (BROKEN, "") else "the file has a mistake about them") in _listed()
    done("consume")
    assert _states() == {"farm": "as_before"}


def test_without_a_database_the_list_has_the_rules_of_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who writes a file before the first run cannot look at it."""
    monkeypatch.setenv("COUPON_LEDGER_ALERT_RULES", str(FILE))
    FILE.write_text(FARM, encoding="utf-8")
    assert _states() == {"farm": "not_in_force"}
    assert "no rule is in force yet" in _listed()
    assert not Path("coupon-ledger.duckdb").exists()


NAMES = ("farm", "twins", "drip")
RULES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["3", "4", "x", "off"]))


def _file(rules: dict[str, str]) -> bytes:
    entries = [
        f"  - {{alert: {name}, enabled: {str(bound != 'off').lower()}, expr: {{kind: velocity, events: [claimed],"
        f" by: [device_id], at_least: {'3' if bound == 'off' else bound}, window: 10m}}}}\n"
        for name, bound in rules.items()
    ]
    group = "groups:\n- name: risk\n  rules:\n" + "".join(entries)
    return f"use_defaults: false\n{group if entries else ''}".encode()


@pytest.mark.long
@given(before=RULES, after=RULES, broken=st.booleans())
@examples(25)
def test_the_list_says_what_the_consumer_will_do_with_the_file(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, str], after: dict[str, str], broken: bool
) -> None:
    """Else a rule that the list calls kept, changed or gone is something else after the file was read."""
    with scratch_store(tmp_path_factory.mktemp("listed")) as store:
        put_in_force(store, load_bytes(_file(before), "rules.yaml"), FILE)
        loaded = load_bytes(BROKEN.encode() if broken else _file(after), "rules.yaml")
        current = _current(store)
        listed = {one.rule.name: one for one in beside_the_file(loaded, current)}
        put_in_force(store, loaded, FILE)
        then = versions(store)
    for name, one in listed.items():
        same = then.get(name) == one.rule.version
        match one.state:
            case "as_filed" | "as_before":
                assert same and name in current
            case "other_version":
                assert name in then and not same
            case "not_in_file":
                assert name in current and name not in then
            case "not_in_force":
                assert same and name not in current
            case "switched_off":
                assert name not in current and name not in then
    assert then.keys() <= listed.keys() and current.keys() <= listed.keys()


def _current(store: Store) -> dict[str, Standing]:
    from coupon_ledger.projections.alerts.in_force import stored

    return {one.rule.name: Standing(one.rule, AS_FILED, one.since) for one in stored(store) if one.until is None}


# ── Channels ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    (tmp_path / "key").write_text("k", encoding="utf-8")
    made.rules.write_text(FARM + HOOK, encoding="utf-8")
    with closing(made.log):
        yield made


@pytest.mark.long
def test_after_a_start_on_a_broken_file_it_is_said_that_nobody_is_told(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else alerts fire, no message goes out, and nothing says why."""
    said = "no channel is known until the rules file is mended"
    place.run()
    place.rules.write_text(BROKEN, encoding="utf-8")
    append(place.log, farm("d-1", 0))
    with closing(Posting(tmp_path / "m.db", folder=tmp_path)) as posting:
        place.run(messages=posting)
    assert said in caplog.text
    assert said in str([event.note for event in told(place.log, "error")])


@pytest.mark.parametrize("then", [BROKEN, FARM])
def test_channels_that_are_known_are_not_called_unknown(place: Place, tmp_path: Path, then: str) -> None:
    """Else people look for messages that were sent, or for channels that they never had."""
    with closing(Posting(tmp_path / "m.db", folder=tmp_path)) as posting:
        for content in (FARM + HOOK, then):
            notes = [str(one) for one in posting.use(load_bytes(content.encode(), "rules.yaml"))]
            assert not any("no channel is known" in one for one in notes)
