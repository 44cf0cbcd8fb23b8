# ruff: noqa: E501 (a mistake is one line, the line and what becomes of it side by side)
"""Mistakes put in on purpose: each must make the cases or the equivalence check fail, else those tests prove little.

A mutant changes one fold alone: a cell of the table as that fold sees it, or a line of its source, in a copy. A line
that is no longer there fails by name: put the mistake into the line that took its place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from types import ModuleType

import pytest

from coupon_ledger.ledger import lifecycle
from coupon_ledger.ledger.lifecycle import Delivery, Folded
from coupon_ledger.ledger.rules import STATES, TRANSITIONS, types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER
from coupon_ledger.projections.live import apply as apply_module
from coupon_ledger.projections.live import entities, fold
from coupon_ledger.projections.store import Store
from tests.folding import Apply, Reference, by_reference, emptied, everything, fold_in, scratch_store, stored
from tests.histories import History, history
from tests.lifecycle_cases import CASES, CELLS, WAYS, batches, check_case
from tests.mistakes import with_mistake
from tests.test_fold_equivalence import check_counts, check_tables

pytestmark = pytest.mark.slow

SEED = 20261111
TOPICS = (COUPON, ORDER, CAMPAIGN, USER)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    print(f"seed {SEED}")
    with scratch_store(tmp_path_factory.mktemp("mutants")) as opened:
        yield opened


# ── The fast checks that must notice ─────────────────────────────────────────────────────────────────────────


@cache
def worlds(topic: str) -> tuple[History, ...]:
    return tuple(history(topic, SEED, 200, keys=40, orderly=orderly) for orderly in (False, True))


def check_reference(mutant: Reference) -> None:
    """The mutant against the cases, then against the fold as it is."""
    told = [d for case in CASES.values() for d in case.deliveries]
    found = by_reference(mutant, told)
    for case in CASES.values():
        check_case(case, found)
    for world in worlds(COUPON):
        deliveries = world.deliveries
        assert by_reference(mutant, deliveries) == by_reference(lifecycle.fold, deliveries)


def check_columnar(store: Store, mutant: Apply, topics: tuple[str, ...] = TOPICS) -> None:
    """The mutant against the cases in every way of arrival, then against folds from the start."""
    for way in WAYS if COUPON in topics else ():
        with emptied(store):
            fold_in(store, mutant, COUPON, batches(way))
            found = stored(store, COUPON)
        for case in CASES.values():
            check_case(case, found)
    of_all = [world for topic in topics for world in worlds(topic)]
    in_batches = [folded_rightly(store, mutant, world) for world in of_all]
    for world, tables in zip(of_all, in_batches, strict=True):
        with emptied(store):
            fold_in(store, mutant, world.topic, [world.deliveries])
            assert everything(store) == tables, "all in one batch gives every column alike"


def folded_rightly(store: Store, mutant: Apply, world: History) -> dict[str, list[str]]:
    """Tables and counts are right; returns every column."""
    with emptied(store):
        counts = fold_in(store, mutant, world.topic, world.batches)
        check_tables(store, world.topic, world.deliveries)
        check_counts(world.topic, counts, world.deliveries)
        return everything(store)


def assert_killed(name: str, check: Callable[[], None]) -> None:
    try:
        check()
    except Exception:  # a wrong row, or something that could not go on
        return
    pytest.fail(f"mutant survived: {name}", pytrace=False)


def test_nothing_is_found_where_nothing_is_wrong(store: Store) -> None:
    """Every mutant would count as killed by a check that always fails."""
    check_reference(lifecycle.fold)
    check_columnar(store, apply_module.apply)


# ── The transition table, as one fold sees it ────────────────────────────────────────────────────────────────


def other_state(state: str, kind: str) -> str:
    now = CELLS[state, kind][0]
    return random.Random(f"{SEED} {state} {kind}").choice([s for s in STATES if s != now])


EVERY_CELL = pytest.mark.parametrize(("state", "kind"), CELLS, ids=lambda part: part)


@EVERY_CELL
@pytest.mark.parametrize("change", ["state", "legality"])
def test_a_wrong_cell_in_the_reference_is_noticed(
    monkeypatch: pytest.MonkeyPatch, state: str, kind: str, change: str
) -> None:
    """`history` could explain by a wrong cell, and no test would say so."""
    row = list(TRANSITIONS[kind])
    cell = row[STATES.index(state)]
    if change == "state":
        changed = other_state(state, kind) + "!" * cell.endswith("!")
    else:
        changed = cell.removesuffix("!") if cell.endswith("!") else cell + "!"
    row[STATES.index(state)] = changed
    monkeypatch.setattr(lifecycle, "TRANSITIONS", TRANSITIONS | {kind: row})
    assert_killed(f"reference: {kind} when {state} is {changed}", lambda: check_reference(lifecycle.fold))


@EVERY_CELL
@pytest.mark.parametrize("change", ["state", "legality"])
def test_a_wrong_cell_in_the_columns_is_noticed(
    monkeypatch: pytest.MonkeyPatch, store: Store, state: str, kind: str, change: str
) -> None:
    """The tables could follow a wrong cell, and no test would say so."""
    at = types(COUPON).index(kind), STATES.index(state)
    if change == "state":
        after = fold._AFTER.copy()
        after[at] = STATES.index(other_state(state, kind))
        monkeypatch.setattr(fold, "_AFTER", after)
    else:
        illegal = fold._ILLEGAL.copy()
        illegal[at] = ~illegal[at]
        monkeypatch.setattr(fold, "_ILLEGAL", illegal)
    assert_killed(f"columns: {kind} when {state}, {change}", lambda: check_columnar(store, apply_module.apply))


GUARD_TABLES = ("_NO_OWNER", "_WRONG_USER", "_WRONG_ORDER", "_OUTSIDE")
# Where an owner is never known, or always, it makes no difference whether these guards look: in `none` and `created`
# nobody can have become the owner (an issue or a claim leads away from them), in `claimed` somebody has.
UNTELLABLE = {("_WRONG_USER", "none"), ("_WRONG_USER", "created"), ("_NO_OWNER", "claimed")}
GUARD_CELLS = [
    (table, kind, state)
    for table in GUARD_TABLES
    for kind in types(COUPON)
    for state in STATES
    if (table, state) not in UNTELLABLE
]


@pytest.mark.parametrize(("table", "kind", "state"), GUARD_CELLS)
def test_a_guard_that_looks_elsewhere_is_noticed(
    monkeypatch: pytest.MonkeyPatch, store: Store, table: str, kind: str, state: str
) -> None:
    """A guard could be missing for one event, or report innocent ones."""
    changed = getattr(fold, table).copy()
    at = types(COUPON).index(kind), STATES.index(state)
    changed[at] = ~changed[at]
    monkeypatch.setattr(fold, table, changed)
    assert_killed(f"{table}: {kind} when {state}", lambda: check_columnar(store, apply_module.apply, (COUPON,)))


# ── Lines of source ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake: in the module's source, `old` (once there) becomes `new`."""

    name: str
    module: ModuleType
    old: str
    new: str


def _mutants(module: ModuleType, *mistakes: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(name, module, old, new) for name, old, new in mistakes]


REFERENCE = _mutants(
    lifecycle,
    ("types in reverse order", '_TYPE_ORDER[event["type"]], event', '-_TYPE_ORDER[event["type"]], event'),
    ("types do not order", '_TYPE_ORDER[event["type"]], event', "0, event"),
    ("ids as UTF-16", 'event["event_id"].encode()', 'event["event_id"].encode("utf-16-be")'),
    ("ids without case", 'event["event_id"].encode()', 'event["event_id"].lower().encode()'),
    ("ids do not order", 'event["event_id"].encode()', 'b""'),
    ("instants to the second", 'return event["occurred_at"], _TYPE', 'return event["occurred_at"].replace(minute=0), _TYPE'),
    ("the last position stands", "key=lambda d: d.position)", "key=lambda d: d.position, reverse=True)"),
    ("the first arrival stands", "sorted(deliveries, key=lambda d: d.position)", "list(deliveries)"),
    ("the partition before the time", "self.recorded_at, self.partition, self.offset", "self.partition, self.recorded_at, self.offset"),
    ("the offset before the partition", "self.recorded_at, self.partition, self.offset", "self.recorded_at, self.offset, self.partition"),
    ("one conflict an identity", "list(c.values())[1:]", "list(c.values())[1:2]"),
    ("the first conflict is lost", "list(c.values())[1:]", "list(c.values())[2:]"),
    ("conflicts are folded too", "sorted(facts, key=canonical_order)", "sorted(facts + conflicts, key=canonical_order)"),
    ("conflicts do not count", "violations=len(violations))", "violations=len(violations) - len(conflicts))"),
    ("null is content", "for k, v in event.items() if v is not None}", "for k, v in event.items()}\n    return tuple(sorted((k, repr(v)) for k, v in values.items()))"),
    ("JSON is text", "_json_text(v) if k in JSON_FIELDS else v", "v"),
    ("JSON null is content", "return None if parsed is None else canonical_json(parsed)", "return canonical_json(parsed)"),
    ("the source is no content", "for k, v in event.items() if v is not None}", 'for k, v in event.items() if v is not None and k != "source"}'),
    ("the last carried value", "getattr(coupon, f) is None and event.get(f) is not None", "event.get(f) is not None"),
    ("zero is no value", "getattr(coupon, f) is None and event.get(f) is not None", "getattr(coupon, f) is None and event.get(f)"),
    ("only legal events carry", "coupon = _carry(coupon, event)", 'coupon = coupon if TRANSITIONS[kind][STATES.index(before)].endswith("!") else _carry(coupon, event)'),
    ("guards before values", "*_guards(coupon, event))", '*_guards(replace(coupon, valid_from=coupon.valid_from and (None if coupon.valid_from == event.get("valid_from") else coupon.valid_from)), event))'),
    ("no_owner negated", "coupon.owner is None:", "coupon.owner is not None:"),
    ("no_owner dropped", '_applies("no_owner", kind, state) and', "False and"),
    ("no_owner in every state", '_applies("no_owner", kind, state) and', 'kind in ("reserved", "used") and'),
    ("wrong_user also without an owner", 'coupon.owner not in (None, event.get("user_id"))', 'coupon.owner != event.get("user_id")'),
    ("wrong_user negated", 'coupon.owner not in (None, event.get("user_id"))', 'coupon.owner == event.get("user_id")'),
    ("wrong_user dropped", '_applies("wrong_user", kind, state) and', "False and"),
    ("wrong_user without case", 'coupon.owner not in (None, event.get("user_id"))', '(coupon.owner or "").lower() not in ("", (event.get("user_id") or "").lower().strip())'),
    ("wrong_order negated", 'coupon.order_id != event.get("order_id")', 'coupon.order_id == event.get("order_id")'),
    ("wrong_order dropped", 'coupon.order_id != event.get("order_id")', "False"),
    ("wrong_order in every state", 'GUARDS["wrong_order"]["events"].get(kind) == state and', 'kind in GUARDS["wrong_order"]["events"] and'),
    ("outside_validity dropped", '_applies("outside_validity", kind, state) and', "False and"),
    ("outside_validity for every event", '_applies("outside_validity", kind, state) and', "True and"),
    ("valid_from exclusive", "instant < coupon.valid_from", "instant <= coupon.valid_from"),
    ("valid_until exclusive", "instant > coupon.valid_until", "instant >= coupon.valid_until"),
    ("outside both ends", "early or (", "early and ("),
    ("every extension counts", 'kind == "extended" and not cell.endswith("!")', 'kind == "extended"'),
    ("extensions count as any carrier", 'kind == "extended" and not cell.endswith("!")', "False"),
    ("the first extension counts", 'kind == "extended" and not cell.endswith("!")', 'kind == "extended" and not cell.endswith("!") and coupon.extended_at is None'),
    ("wrong_order freezes nothing", 'if "wrong_order" in codes and', "if False and"),
    ("wrong_order freezes every event", 'kind in GUARDS["wrong_order"]["frozen"]', "True"),
    ("frozen events do not count", "        return coupon, codes\n    if cell", "        return replace(coupon, events=coupon.events - 1), codes\n    if cell"),
    ("resting is not updated", "coupon = replace(coupon, resting=coupon.state)", "pass"),
    ("resting is updated from a hold too", ' and coupon.state not in ("reserved", "used"):', ":"),
    ("resting is the first", "coupon = replace(coupon, resting=coupon.state)", 'coupon = replace(coupon, resting=coupon.state if coupon.resting == "none" else coupon.resting)'),
    ("the discount is not cleared", "order_id=None, discount_minor=None)", "order_id=None)"),
    ("the order is not cleared", "order_id=None, discount_minor=None)", "discount_minor=None)"),
    ("returns go to claimed", "state=coupon.resting, order_id", 'state="claimed", order_id'),
    ("returns set instants", "state=coupon.resting, order_id=None", 'state=coupon.resting, ended_at=event["occurred_at"], order_id=None'),
    ("events enter without a change", "if state != before:", "if True:"),
    ("an issue sets no owner", 'kind == "claimed" or (kind == "issued" and event.get("user_id") is not None)', 'kind == "claimed"'),
    ("a claim sets no owner", 'kind == "claimed" or (kind == "issued"', '(kind == "issued"'),
    ("a use sets the owner", 'kind == "claimed" or (', 'kind in ("claimed", "used") or ('),
    ("a reservation has no order", 'reserved_at=at, order_id=event["order_id"]', "reserved_at=at"),
    ("a use keeps the reserved order", 'order_id=event["order_id"], discount_minor', "order_id=coupon.order_id or event['order_id'], discount_minor"),
    ("the first reservation's instant", "reserved_at=at,", "reserved_at=coupon.reserved_at or at,"),
    ("the first use's instant", "used_at=at,", "used_at=coupon.used_at or at,"),
    ("the first end's instant", "ended_at=at,", "ended_at=coupon.ended_at or at,"),
    ("the first reason", 'reason=event["reason"])', 'reason=coupon.reason or event["reason"])'),
    ("no claim channel", 'claim_channel=event.get("channel")', "claim_channel=None"),
    ("no issue channel", 'issue_channel=event.get("channel")', "issue_channel=None"),
    ("the first event's instant is the last", 'last_event_at=event["occurred_at"])', 'last_event_at=coupon.last_event_at or event["occurred_at"])'),
    ("events are not counted", "events=coupon.events + 1", "events=1"),
    ("violations name the state after", "_violation(event, code, before.state)", "_violation(event, code, coupon.state)"),
)  # fmt: skip

COLUMNS = _mutants(
    fold,
    ("the last carried value", "source[of[first]] = carrying[first]", "source[of] = carrying"),
    ("a known value is carried again", "source[self.rows[name].is_not_null().to_numpy()] = -1", "pass"),
    ("validity of a later event", "(source < 0) | (source <= np.arange(m))", "np.ones(m, dtype=np.bool_)"),
    ("validity not of this event", "source <= np.arange(m)", "source < np.arange(m)"),
    ("validity of this batch alone", "(source < 0) | (source <= np.arange(m))", "(source >= 0) & (source <= np.arange(m))"),
    ("valid_from exclusive", "at < limit", "at <= limit"),
    ("valid_until exclusive", "at > limit", "at >= limit"),
    ("never too late", 'self._beyond("valid_from") | self._beyond("valid_until")', 'self._beyond("valid_from")'),
    ("never too early", 'self._beyond("valid_from") | self._beyond("valid_until")', 'self._beyond("valid_until")'),
    ("every extension counts", '(self.kind == TYPE["extended"]) & ~self.illegal', 'self.kind == TYPE["extended"]'),
    ("extensions count as any carrier", "np.where(extended >= 0, extended, source)", "source"),
    ("an extension of another coupon counts", "return np.where(before, -1, latest)", "return latest"),
    ("extensions are judged by, and not kept", 'np.where(extended >= 0, extended, self.first["valid_until"])', 'self.first["valid_until"]'),
    ("the first extension is kept", "extended = self._latest(self.extending)", 'extended = self._first(self.extending, "extended_at")'),
    ("wrong_order freezes nothing", "frozen = wrong_order & _FROZEN[kind]", "frozen = wrong_order & False"),
    ("wrong_order freezes every event", "frozen = wrong_order & _FROZEN[kind]", "frozen = wrong_order"),
    ("frozen events clear the order", "back = (cell == _RESTING) & ~frozen", "back = cell == _RESTING"),
    ("events enter without a change", "entered = (after != before) & ~back\n        self.before", "entered = ~back\n        self.before"),
    ("returns go to claimed", "np.where(back, self.resting[coupon], cell)", 'np.where(back, STATE["claimed"], cell)'),
    ("resting is not updated", "self.resting[coupon[leaving]] = before[leaving]", "pass"),
    ("resting is updated from a hold too", "entered & _HOLDING[after] & ~_HOLDING[before]", "entered & _HOLDING[after]"),
    ("resting is the state after", "self.resting[coupon[leaving]] = before[leaving]", "self.resting[coupon[leaving]] = after[leaving]"),
    ("an owner without a change", 'owned = entered & ((kind == TYPE["claimed"])', 'owned = ((kind == TYPE["claimed"])'),
    ("a claim sets no owner", '((kind == TYPE["claimed"]) | ((kind == TYPE["issued"])', '((kind == TYPE["issued"]) | ((kind == TYPE["issued"])'),
    ("an issue sets no owner", '| ((kind == TYPE["issued"]) & self.has_user[at])', ""),
    ("a use sets the owner", '((kind == TYPE["claimed"]) | ((', '((kind == TYPE["claimed"]) | (kind == TYPE["used"]) | (('),
    ("an order without a change", "held = entered & _HOLDING[after]", "held = _HOLDING[after]"),
    ("the order is not cleared", "self.order[coupon[back]] = -1", "pass"),
    ("a use keeps the reserved order", "self.order[coupon[held]] = at[held]", "self.order[coupon[held & (self.order[coupon] < 0)]] = at[held & (self.order[coupon] < 0)]"),
    ("no_owner negated", "_NO_OWNER[kind, state] & (owner < 0)", "_NO_OWNER[kind, state] & (owner >= 0)"),
    ("no_owner dropped", "_NO_OWNER[kind, state] & (owner < 0)", "False"),
    ("wrong_user also without an owner", "_WRONG_USER[kind, state] & (owner >= 0)", "_WRONG_USER[kind, state]"),
    ("wrong_user dropped", "_WRONG_USER[kind, state] & (owner >= 0)", "_WRONG_USER[kind, state] & False"),
    ("users and orders that are equal are wrong", "a.ne_missing(b)", "a.eq_missing(b)"),
    ("wrong_order dropped", "self.guards[2, at] = wrong_order", "self.guards[2, at] = False"),
    ("violations name the state after", "_names(self.before[events], STATES)", "_names(self.after[events], STATES)"),
    ("the first reservation's instant", "self._latest(reserved)", 'self._first(reserved, "reserved_at")'),
    ("the first use's instant", "latest_used = self._latest(used)", 'latest_used = self._first(used, "used_at")'),
    ("the first end's instant", '"occurred_at", self._latest(ended)', '"occurred_at", self._first(ended, "ended_at")'),
    ("the first reason", '"reason", self._latest(ended)', '"reason", self._first(ended, "reason")'),
    ("a revoked coupon has not ended", '[STATE["expired"], STATE["revoked"]]', '[STATE["expired"]]'),
    ("the issue's channel for the claim", '"channel", first_claimed', '"channel", first_issued'),
    ("no issue channel", '"channel", first_issued', '"code", first_issued'),
    ("the discount is not cleared", "taken.set(pl.Series(cleared), None)", "taken"),
    ("the discount is cleared by later batches alone", '(entered & (self.after == STATE["used"])) | self.went_back', 'entered & (self.after == STATE["used"])'),
    ("returns set instants", "entered = (self.after != self.before) & ~self.went_back\n        created", "entered = self.after != self.before\n        created"),
    ("events of one round only", "turn += 1", "turn += 2"),
)  # fmt: skip

TABLES = _mutants(
    apply_module,
    ("instants do not order", 'sort("entity", "occurred_at", "type_order"', 'sort("entity", "type_order"'),
    ("types do not order", '"occurred_at", "type_order", "event_id", *', '"occurred_at", "event_id", *'),
    ("ids do not order", '"type_order", "event_id", *_POSITION)', '"type_order", *_POSITION)'),
    ("every id is surely new", "again[entity[self._maybe_seen()]] = True", "pass"),
    ("an id cannot come twice in a batch", "twice[columns[2][order[1:][same]]] = True", "pass"),
    ("only neighbours in arrival can be repeats", "order = np.lexsort(columns)", "order = np.arange(events.height)"),
    ("every event is later", "again |= not_later.to_series().fill_null(False).to_numpy()", "pass"),
    ("earlier types are later", "<= pl.col(\"last_type\")", "< 0"),
    ("equal types are later", "<= pl.col(\"last_type\")", "< pl.col(\"last_type\")"),
    ("earlier instants are later", "(pl.col(\"occurred_at\") < pl.col(\"last_event_at\"))", "pl.lit(False)"),
    ("the last position stands", ".sort(_POSITION, maintain_order=True)", ".sort(_POSITION, descending=True)"),
    ("what was there stands", ".sort(_POSITION, maintain_order=True)", ""),
    ("the last content stands", "pl.struct(identity).is_first_distinct()", "pl.struct(identity).is_last_distinct()"),
    ("the last of a content stands", 'subset=["entity", *wire_fields], keep="first"', 'subset=["entity", *wire_fields], keep="last"'),
    ("the identity is the content", 'subset=["entity", *wire_fields]', 'subset=["entity", "event_id"]'),
    ("an id is one event for all keys", 'identity = ["entity", "event_id"]', 'identity = ["event_id"]'),
    ("repeats are events", "if not twice.size:", "if True:"),
    ("no identity stands twice", "repeated = placed[1:][placed[1:] == placed[:-1]]", "repeated = placed[:0]"),
    ("no content of an identity stands", 'kept[contents.filter(stands)["row"].to_numpy()] = True', "pass"),
    ("conflicts are forgotten", "[stored, conflicting, events.select", "[stored, events.select"),
    ("conflicts are no violations", "violations = pl.concat([violations, _as_stored(on, named)])", "pass"),
    ("conflicts do not count", "folded = _with_conflicts(folded, conflicts)", "pass"),
    (
        "old violations stay",
        'self._delete_violations(keys.filter(self.rows[chosen]["violations"] > 0))',
        "pass",
    ),
    ("nothing broken before is nothing to delete", '["violations"] > 0))', '["violations"] > 1))'),
    ("old positions stay in the account", "_add(self.counts.applied, replaced, -1)", "pass"),
    ("old conflicts stay in the account", "_add(self.counts.conflicts, before, -1)", "pass"),
    ("old conflicts stay", "self._delete(self.on.conflicts, keys)", "pass"),
    ("old positions stay", "if replaced.height:", "if False:"),
    ("the history since the youngest key", 'pl.col("first_recorded_at").min()', 'pl.col("first_recorded_at").max()'),
    ("the history is not looked at", ".item() or datetime.max", ".item() and datetime.max"),
    ("the first event is the last", "last[entity] = np.arange(len(entity))", "last[entity[::-1]] = np.arange(len(entity))[::-1]"),
    ("events are counted by batch", 'events=rows["events"] + pl.Series(counted)', "events=pl.Series(counted)"),
    ("violations are counted by batch", 'violations=rows["violations"] + pl.Series(broken)', "violations=pl.Series(broken)"),
    ("rows stay as they were beside the new ones", 'self.store.delete(self.on.table, rows["row_id"].drop_nulls())', "pass"),
    ("rows fold on from what they were", "_nothing_folded(fresh, self.rows)]", "self.rows[refolding]]"),
)  # fmt: skip

DEEP = _mutants(
    fold,
    ("events after the rounds are not folded", "self._one_by_one(start + turn, start + size)", "pass"),
    ("the last event is left out", "self._one_by_one(start + turn, start + size)", "self._one_by_one(start + turn, max(start + turn + 1, start + size - 1))"),
    ("an unknown owner is not missed", "self._no_owner[kind][before] and self.owner[0] < 0", "self._no_owner[kind][before] and self.owner[0] < -1"),
    ("any user is right", "and user != self.owner[1]", "and False"),
    ("nobody is a wrong owner", "self.owner[0] >= 0 and user", "user"),
    ("any order is right", "or order != self.order[1])", ")"),
    ("a wrong order freezes nothing", "frozen = wrong_order and self._frozen[kind]", "frozen = False"),
    ("a wrong order freezes every event", "frozen = wrong_order and self._frozen[kind]", "frozen = wrong_order"),
    ("frozen events go back", "back = cell == _RESTING and not frozen", "back = cell == _RESTING"),
    ("returns go to claimed", "else self.resting if back else cell", 'else STATE["claimed"] if back else cell'),
    ("events enter without a change", "entered = after != before\n        owned", "entered = not back\n        owned"),
    ("resting is updated from a hold too", "if not self._holding[before]:", "if True:"),
    ("resting is not updated", "self.resting = before", "pass"),
    ("an issue sets no owner", ' or (kind == TYPE["issued"] and user is not None))', ")"),
    ("a claim sets no owner", '(kind == TYPE["claimed"] or (', "(False or ("),
    ("an owner is not kept", "self.owner = at, user", "pass"),
    ("an order is not kept", "self.order = at, order", "pass"),
    ("the order is not cleared", "self.order = -1, None", "pass"),
    ("the state stays", "self.state = after", "pass"),
    ("the row keeps its state", "self.state[coupon], self.resting[coupon] = run.state, run.resting", "pass"),
    ("the row keeps its order", "self.owner[coupon], self.order[coupon] = run.owner[0], run.order[0]", "self.owner[coupon] = run.owner[0]"),
    ("the row keeps its owner", "self.owner[coupon], self.order[coupon] = run.owner[0], run.order[0]", "self.order[coupon] = run.order[0]"),
) + _mutants(
    apply_module,
    ("repeats of a deep key stay", "kept = ~exact[entity]", "kept = np.ones(len(entity), dtype=np.bool_)"),
    ("new events of a deep key go with the repeats", "kept[facts] = True", "pass"),
    ("events that were not looked up go", "kept |= np.isin(np.arange(len(entity)), suspects, invert=True)", "pass"),
    ("conflicts of a deep key are repeats", "exact[odd] = False", "pass"),
    ("the journal is not asked", "stored.join(keys, on=", "stored.clear().join(keys, on="),
    ("a deep key is new all over", "again &= ~self.exact", "again[:] = False"),
    ("the first events are those of before", "self.first = _first_of_each(self.events", "_first_of_each(self.events"),
    ("keys that are left keep their numbers", "return exact[left]", "return exact[: len(left)]"),
)  # fmt: skip

ENTITIES = _mutants(
    entities,
    ("null stands where it comes last", "carrying = events.filter(pl.col(name).is_not_null())", "carrying = events"),
    ("the first value stands", "reference[entity.to_numpy()] = np.arange(len(values))", "reference[entity.to_numpy()[::-1]] = np.arange(len(values))[::-1]"),
    ("old values stand", "pl.concat([values, old]).gather(reference)", "pl.select(pl.coalesce(old, pl.concat([values, old]).gather(reference))).to_series()"),
    ("refunds of the last batch alone", "old.fill_null(0) + fresh", "fresh"),
    ("every event refunds", 'events.filter(pl.col("type") == "refunded")', 'events.filter(pl.col("refund_minor").is_not_null())'),
    ("no refund is a refund of nothing", ".otherwise(old)", ".otherwise(old.fill_null(0))"),
    ("a cancelled order stays cancelled", 'rows["cancelled_at"].set(pl.Series(last_paid >= 0), None)', 'rows["cancelled_at"]'),
    ("a payment undoes no cancellation before it", "pl.Series(place > last_paid[entity])", "pl.Series(place >= 0)"),
    ("a payment undoes the cancellation after it", "pl.Series(place > last_paid[entity])", "pl.Series(last_paid[entity] < 0)"),
    ("the latest payment's instant", "pl.coalesce(old, first)", "pl.coalesce(first, old)"),
    ("the last payment's instant in a batch", 'events.filter(pl.col("type") == kind).reverse()', 'events.filter(pl.col("type") == kind)'),
    ("a cost changes the terms", 'events.filter(pl.col("type").is_in(TERM_EVENTS))', "events"),
    ("an end carries no terms", '"unpublished", "amended", "ended")\n"""', '"unpublished", "amended")\n"""'),
    ("an end makes a rule version", '_RULE_EVENTS: Final = ("drafted", ', '_RULE_EVENTS: Final = ("ended", "drafted", '),
    ("unpublishing makes no rule version", '"published", "unpublished", "amended")', '"published", "amended")'),
    ("an amendment is a status", '_STATUS_EVENTS: Final = ("drafted", ', '_STATUS_EVENTS: Final = ("amended", "drafted", '),
    ("the rule version is the rule", 'versions["event_id"]', 'versions["rule_id"].fill_null("")'),
    ("every event is a touch", '(pl.col("type") == "touched").sum()', "pl.len()"),
    ("touches of the last batch alone", 'touches=pl.col("touches").fill_null(0) + ', "touches="),
    ("aliases are repeated", ".list.unique()", ""),
    ("aliases are not sorted", ".list.sort()", '.list.reverse()'),
    ("aliases of the last batch alone", 'pl.concat_list(pl.col("aliases").fill_null(empty), ', "pl.concat_list("),
)  # fmt: skip


NAME = attrgetter("name")


def mutated(mutant: Mutant) -> ModuleType:
    return with_mistake(mutant.module, mutant.old, mutant.new)


@pytest.mark.parametrize("mutant", REFERENCE, ids=NAME)
def test_a_wrong_line_in_the_reference_is_noticed(mutant: Mutant) -> None:
    """The fold that everything is checked against could be wrong itself."""
    module = mutated(mutant)

    def mutant_fold(told: Iterable[Delivery]) -> Folded:
        folded: Folded = module.fold([module.Delivery(d.event, d.recorded_at, d.partition, d.offset) for d in told])
        return folded

    assert_killed(mutant.name, lambda: check_reference(mutant_fold))


@pytest.mark.parametrize("mutant", COLUMNS, ids=NAME)
def test_a_wrong_line_in_the_columns_is_noticed(monkeypatch: pytest.MonkeyPatch, store: Store, mutant: Mutant) -> None:
    """The tables could be wrong in a way that no test looks at."""
    monkeypatch.setattr(apply_module, "fold", mutated(mutant))
    assert_killed(mutant.name, lambda: check_columnar(store, apply_module.apply, (COUPON,)))


@pytest.mark.parametrize("mutant", TABLES, ids=NAME)
def test_a_wrong_line_around_the_tables_is_noticed(store: Store, mutant: Mutant) -> None:
    """Late, repeated or conflicting events could be folded wrongly, and no test would say so."""
    module = mutated(mutant)
    assert_killed(mutant.name, lambda: check_columnar(store, module.apply))


def as_if_deep(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Fold every key as one with many events."""
    for module in modules:
        for name in {"_ROUNDS", "_MANY"} & vars(module).keys():
            monkeypatch.setattr(module, name, 0)


def test_nothing_is_found_in_keys_with_many_events(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Every mutant of their fold would count as killed by a check that always fails."""
    as_if_deep(monkeypatch, fold, apply_module)
    check_columnar(store, apply_module.apply)


@pytest.mark.parametrize("mutant", DEEP, ids=NAME)
def test_a_wrong_line_for_keys_with_many_events_is_noticed(
    monkeypatch: pytest.MonkeyPatch, store: Store, mutant: Mutant
) -> None:
    """Keys with many events are folded by lines of their own, which no test might look at."""
    module = mutated(mutant)
    as_if_deep(monkeypatch, fold, apply_module, module)
    if mutant.module is fold:
        monkeypatch.setattr(apply_module, "fold", module)
    apply = apply_module.apply if mutant.module is fold else module.apply
    assert_killed(mutant.name, lambda: check_columnar(store, apply))


@pytest.mark.parametrize("mutant", ENTITIES, ids=NAME)
def test_a_wrong_line_for_orders_campaigns_users_is_noticed(
    monkeypatch: pytest.MonkeyPatch, store: Store, mutant: Mutant
) -> None:
    """An order's sums or a campaign's rules could be wrong, and no test would say so."""
    folds = mutated(mutant).FOLDS
    for topic in folds:
        projected = replace(apply_module.PROJECTED[topic], fold=apply_module._plain(folds[topic]))
        monkeypatch.setitem(apply_module.PROJECTED, topic, projected)
    assert_killed(mutant.name, lambda: check_columnar(store, apply_module.apply, tuple(folds)))
