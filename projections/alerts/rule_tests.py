"""Tests of alert rules, as people write them: events, and the alerts that the rules must raise on them, no more and no
fewer. The shape is that of `promtool test rules`, with events in the place of series (docs/alert-rules.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path as File
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from coupon_ledger.ledger.events import Instant
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts import document
from coupon_ledger.projections.alerts.document import Node, Path
from coupon_ledger.projections.alerts.durations import Between, Duration
from coupon_ledger.projections.alerts.rule_test_events import Timed, of_file, of_node
from coupon_ledger.projections.alerts.rules import ASKED, SETTLED, Label, Name, Names, Number, Once, Rule, RuleSet
from coupon_ledger.projections.alerts.rules_file import Loaded, load
from coupon_ledger.projections.alerts.text_file import Problem, Problems, read_file
from coupon_ledger.projections.alerts.troubles import Trouble, no_rule, own_field, shown, troubles_of

MOST_EVENTS: Final = 200_000
"""Number of events of one test."""
MOST_ALERTS: Final = 500
"""Number of expected alerts of one test."""
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_TOP: Final = ("rules", "tests")
_YEARS: Final = (2000, 2100)
_NOT_TESTED: Final = frozenset({"health", "reconciliation"})
_YEAR: Final = timedelta(days=366)
M = TypeVar("M", bound=BaseModel)


def _near(at: datetime) -> datetime:
    if not _YEARS[0] <= at.year <= _YEARS[1]:
        raise ValueError("is not in the years 2000 to 2100")
    return at


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


Offset = Annotated[Duration, AfterValidator(Between(timedelta(0), _YEAR))]


class ExpectedAlert(_Model):
    """An alert that must be raised. What is left out may be anything."""

    rule: Annotated[Name, "The rule."]
    key: Annotated[dict[Name, Label], "Parts of the alert's key, with their values."] = Field(default_factory=dict)
    fired: Annotated[Offset | None, "When it fires, after `start`."] = None
    between: Annotated[
        tuple[Offset, Offset] | None, "The earliest and the latest instant at which it may fire, after `start`."
    ] = None
    value: Annotated[Number | None, "The value when it fires."] = None

    @model_validator(mode="after")
    def _one_time(self) -> ExpectedAlert:
        if self.fired is not None and self.between is not None:
            raise ValueError("fired and between exclude each other; leave one out")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError("between ends before it begins; exchange the two")
        return self

    @property
    def has_time(self) -> bool:
        return self.fired is not None or self.between is not None


class CaseFields(_Model):
    """One test."""

    name: Annotated[Label, Field(min_length=1), "What the test shows."]
    of: Annotated[Names, Once, "The rules whose alerts are compared; none: all that can be tested."] = ()
    start: Annotated[Instant, AfterValidator(_near), "The instant from which times count, with a zone."] = START
    events: Annotated[Any, "A list of events, below."] = None
    file: Annotated[str | None, "A file of further events, one JSON object a line, beside the file of tests."] = None
    alerts: Annotated[Any, "All alerts that these rules must raise, or `none`."]


@dataclass(frozen=True, slots=True)
class Expectation:
    """An expected alert, with its line in the file."""

    line: int
    alert: ExpectedAlert


@dataclass(frozen=True, slots=True)
class Case:
    """One test. `of`: the rules whose alerts are compared. `events`: in the order of recording."""

    name: str
    line: int
    start: datetime
    of: tuple[Rule, ...]
    events: tuple[Timed, ...]
    expected: tuple[Expectation, ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of a file; `problems`: of the file of tests, of its files of events and of the rules file. The tests
    can be run only if there are none."""

    file: str
    cases: tuple[Case, ...] = ()
    problems: tuple[Problem, ...] = field(default_factory=tuple)


def read_tests(path: File) -> Suite:
    """The tests in a file of YAML or TOML."""
    file = read_file(path)
    problems = file.problems()
    if file.root is None or not isinstance(file.root.value, dict):
        if not file.faults:
            said = note("has no tests; write rules: and the name of a rules file, and tests: with a list")
            problems.report(Trouble(document.START, (), said))
        return Suite(file.name, (), problems.in_order())
    reading = _Reading(path.parent, problems, file.root)
    cases = tuple(reading.cases())
    return Suite(file.name, cases, (*problems.in_order(), *reading.others))


class _Reading:
    """Reads the tests of one file. `others`: the problems of other files."""

    def __init__(self, folder: File, problems: Problems, root: Node) -> None:
        self.others: list[Problem] = []
        self._folder = folder
        self._problems = problems
        self._root = root
        for name in root.value:
            if name not in _TOP:
                problems.report(Trouble(root.keys[name], (name,), own_field(name, _TOP)))
        loaded = self._rules()
        self._every = loaded.rule_set
        self._in_force = {rule.name: rule for rule in loaded.rule_set.in_force()}

    def _rules(self) -> Loaded:
        node = self._root.value.get("rules")
        if node is None or node.value is None:
            return load(None)
        if not isinstance(node.value, str):
            said = note("{value} is no text; put a text in quotes", value=shown(node.data()))
            self._problems.report(Trouble(node.place, ("rules",), said))
            return load(None)
        loaded = load(self._folder / node.value)
        self.others += loaded.problems
        return loaded

    def cases(self) -> Iterator[Case]:
        node = self._root.value.get("tests")
        if node is None or not isinstance(node.value, list) or not node.value:
            place = document.START if node is None else node.place
            self._problems.report(Trouble(place, ("tests",), note("has no tests; begin each with - name:")))
            return
        for number, item in enumerate(node.value):
            case = self._case(item, ("tests", number))
            if case is not None:
                yield case

    def _case(self, node: Node, path: Path) -> Case | None:
        fields = self._model(node, path, CaseFields)
        if fields is None:
            return None
        of = self._of(node, path, fields.of)
        expected = tuple(self._expected(node, path, of))
        events = self._events(node, path, fields)
        line = self._problems.line(node.place)
        return Case(fields.name, line, fields.start, of, tuple(sorted(events, key=_recorded)), expected)

    def _model(self, node: Node, path: Path, model: type[M]) -> M | None:
        try:
            return model.model_validate(node.data())
        except ValidationError as error:
            self._problems.report_all(troubles_of(error, node, path, model))
            return None

    # ── Rules ────────────────────────────────────────────────────────────────────────────────────────────────

    def _of(self, node: Node, path: Path, names: Iterable[str]) -> tuple[Rule, ...]:
        """The rules of a test. Those that cannot be tested are reported if they are named, else left out."""
        wanted = list(names)
        if not wanted:
            return tuple(rule for rule in self._in_force.values() if rule.expr.kind not in _NOT_TESTED)
        for number, name in enumerate(wanted):
            said = _untestable(name, self._every)
            if said is not None:
                self._report(node, path, ("of", number), said)
        return tuple(self._in_force[name] for name in wanted if name in self._in_force)

    def _report(self, node: Node, path: Path, inner: Path, said: Note) -> None:
        self._problems.report(Trouble(node.under(inner)[1], (*path, *inner), said))

    # ── Alerts ───────────────────────────────────────────────────────────────────────────────────────────────

    def _expected(self, node: Node, path: Path, of: tuple[Rule, ...]) -> Iterator[Expectation]:
        alerts = node.value["alerts"]
        if alerts.value == "none":
            return
        if not isinstance(alerts.value, list):
            self._report(node, path, ("alerts",), note("is neither a list nor none; begin each alert with - rule:"))
            return
        if len(alerts.value) > MOST_ALERTS:
            said = note("a test has at most {n:count} alerts; split it", n=MOST_ALERTS)
            self._report(node, path, ("alerts",), said)
            return
        for number, item in enumerate(alerts.value):
            here = (*path, "alerts", number)
            alert = self._model(item, here, ExpectedAlert)
            if alert is not None and self._possible(item, here, alert, of):
                yield Expectation(self._problems.line(item.place), alert)

    def _possible(self, node: Node, path: Path, alert: ExpectedAlert, of: tuple[Rule, ...]) -> bool:
        rule = next((rule for rule in of if rule.name == alert.rule), None)
        if rule is None:
            said = _untestable(alert.rule, self._every) or note("is not among the rules of this test; add it under of")
            self._report(node, path, ("rule",), said)
        elif alert.has_time and rule.expr.kind in ASKED | SETTLED:
            inner = "fired" if alert.fired is not None else "between"
            said = note("rule {rule} is asked after the last event, so its alerts have no instant; leave this out",
                        rule=rule.name)  # fmt: skip
            self._report(node, path, (inner,), said)
        else:
            return True
        return False

    # ── Events ───────────────────────────────────────────────────────────────────────────────────────────────

    def _events(self, node: Node, path: Path, fields: CaseFields) -> list[Timed]:
        found: list[Timed] = []
        listed = node.value.get("events")
        if listed is not None and not isinstance(listed.value, list):
            self._report(node, path, ("events",), note("is no list; begin each event with - type:"))
        elif listed is not None:
            for number, item in enumerate(listed.value):
                here = (*path, "events", number)
                found += of_node(item, here, fields.start, len(found), MOST_EVENTS, self._problems)
        if fields.file is not None:
            events, problems = of_file(self._folder / fields.file, MOST_EVENTS - len(found))
            self.others += problems
            found += events
        if not found and not self._problems.found and not self.others:
            self._report(node, path, (), note("has no events; write some under events, or name a file of events"))
        return found


def _recorded(event: Timed) -> datetime:
    return event.recorded_at


def _untestable(name: str, rules: RuleSet) -> Note | None:
    """Why a rule cannot be tested; None if it can."""
    rule = next((rule for rule in rules.rules if rule.name == name), None)
    if rule is None:
        return no_rule(name, [rule.name for rule in rules.rules])
    if not rule.enabled:
        return note("rule {rule} is switched off; write enabled: true in the rules file", rule=name)
    if rule.expr.kind in _NOT_TESTED:
        return note("rule {rule} watches the ledger itself, which a test does not have; leave it out", rule=name)
    return None
