"""The life of a coupon by example: every cell of the transition table, every guard, every rule of the row and of the
order of facts, each as a case with a name, the deliveries and what must come of them.

Written by hand from the specification; the two tables are copied from it as text. Nothing here is read from
`lifecycle.toml` or computed by a fold.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from coupon_ledger.ledger.lifecycle import Delivery
from tests.folding import COUPON_COLUMNS, Outcome

Row = dict[str, Any]
Event = dict[str, Any]

TABLE = """
|state \\ event|created|issued|claimed|reserved|released|used|returned|expired|revoked|extended|
|---|---|---|---|---|---|---|---|---|---|---|
|none|created|issued !|claimed !|reserved !|none !|used !|none !|expired !|revoked !|none !|
|created|created !|issued|claimed !|reserved !|created !|used !|created !|expired|revoked|created|
|issued|issued !|issued !|claimed|reserved|issued !|used|issued !|expired|revoked|issued|
|claimed|claimed !|claimed !|claimed !|reserved|claimed !|used|claimed !|expired|revoked|claimed|
|reserved|reserved !|reserved !|reserved !|reserved !|*resting*|used|reserved !|expired !|revoked|reserved|
|used|used !|used !|used !|used !|used !|used !|*resting*|used !|used !|used !|
|expired|expired !|expired !|expired !|expired !|expired !|used !|expired !|expired !|revoked|expired !|
|revoked|revoked !|revoked !|revoked !|revoked !|revoked !|used !|revoked !|revoked !|revoked !|revoked !|
"""


def cells() -> dict[tuple[str, str], tuple[str, bool]]:
    """(state, event) to (next state, illegal)."""
    head, _, *lines = ([c.strip() for c in line.strip("|").split("|")] for line in TABLE.strip().splitlines())
    return {
        (state, kind): (cell.removesuffix("!").strip().strip("*"), cell.endswith("!"))
        for state, *found in lines
        for kind, cell in zip(head[1:], found, strict=True)
    }


CELLS = cells()
START = datetime(2026, 11, 11, tzinfo=UTC)


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


NEEDED: dict[str, Event] = {
    "created": {"campaign_id": "k-1", "coupon_type": "cash"},
    "issued": {"channel": "app"},
    "claimed": {"user_id": "u-1", "channel": "shop"},
    "reserved": {"user_id": "u-1", "order_id": "o-1"},
    "released": {"order_id": "o-1"},
    "used": {"user_id": "u-1", "order_id": "o-1", "discount_minor": 500},
    "returned": {"order_id": "o-1"},
    "expired": {"reason": "not_used"},
    "revoked": {"reason": "abuse"},
    "extended": {"valid_until": at(60)},
}


def event(kind: str, hour: float, **other: Any) -> Event:
    """An event with what its type needs; its id is its type and its hour."""
    return (
        {"event_id": f"{kind}-{hour}", "type": kind, "occurred_at": at(hour), "source": "shop"} | NEEDED[kind] | other
    )


@dataclass(frozen=True, slots=True)
class Case:
    """`row`: what the specification says of these columns; `violations`: (event_id, violation, state found)."""

    name: str
    deliveries: tuple[Delivery, ...]
    violations: tuple[tuple[str, str, str | None], ...]
    row: Row

    @property
    def coupon_id(self) -> str:
        return self.name


CASES: dict[str, Case] = {}


def case(
    name: str,
    told: Iterable[Event | tuple[Event, int, int, int]],
    /,
    *violations: str | tuple[str, str],
    **row: Any,
) -> None:
    """Add a case. An event stands at its place in the list of one partition, or (event, recorded hour, partition,
    offset). A violation `code@event_id` was found in the state that the code names or that follows it as a tuple."""
    assert name not in CASES, name
    deliveries = []
    for n, given in enumerate(told):
        content, recorded, partition, offset = given if isinstance(given, tuple) else (given, 100 + n, 0, n)
        micros = (at(recorded) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        deliveries.append(Delivery({"coupon_id": name, **content}, micros, partition, offset))
    found = []
    for violation in violations:
        text, state = violation if isinstance(violation, tuple) else (violation, None)
        code, _, event_id = text.partition("@")
        found.append((event_id, code, code.partition("_when_")[2] or state))
    row = {"violations": len(found)} | row
    CASES[name] = Case(name, tuple(deliveries), tuple(found), row)


# ── The transition table ─────────────────────────────────────────────────────────────────────────────────────

CREATED, ISSUED, GRANTED = event("created", 1), event("issued", 2), event("issued", 2, user_id="u-1")
CLAIMED, RESERVED, USED = event("claimed", 3), event("reserved", 4), event("used", 5)
PATHS: dict[str, list[Event]] = {
    "none": [],
    "created": [CREATED],
    "issued": [CREATED, GRANTED],
    "claimed": [CREATED, ISSUED, CLAIMED],
    "reserved": [CREATED, ISSUED, CLAIMED, RESERVED],
    "used": [CREATED, ISSUED, CLAIMED, RESERVED, USED],
    "expired": [CREATED, ISSUED, CLAIMED, event("expired", 7)],
    "revoked": [CREATED, ISSUED, CLAIMED, event("revoked", 7)],
}

NOTHING: Row = dict.fromkeys(
    "campaign_id coupon_type face_value_minor percent_off_bp min_spend_minor currency valid_from valid_until owner"
    " order_id discount_minor issue_channel claim_channel reason created_at issued_at claimed_at reserved_at used_at"
    " ended_at extended_at".split()
) | {"state": "none", "resting": "none"}
_CREATED = NOTHING | {"state": "created", "campaign_id": "k-1", "coupon_type": "cash", "created_at": at(1)}
_ISSUED = _CREATED | {"state": "issued", "issued_at": at(2), "issue_channel": "app"}
_CLAIMED = _ISSUED | {"state": "claimed", "owner": "u-1", "claimed_at": at(3), "claim_channel": "shop"}
_RESERVED = _CLAIMED | {"state": "reserved", "order_id": "o-1", "reserved_at": at(4), "resting": "claimed"}
ROWS: dict[str, Row] = {
    "none": NOTHING,
    "created": _CREATED,
    "issued": _ISSUED | {"owner": "u-1"},
    "claimed": _CLAIMED,
    "reserved": _RESERVED,
    "used": _RESERVED | {"state": "used", "discount_minor": 500, "used_at": at(5)},
    "expired": _CLAIMED | {"state": "expired", "ended_at": at(7), "reason": "not_used"},
    "revoked": _CLAIMED | {"state": "revoked", "ended_at": at(7), "reason": "abuse"},
}
"""The coupon's row after each path."""

LATER = {
    "created": event("created", 9, campaign_id="k-9", coupon_type="gift"),
    "issued": event("issued", 9, channel="mail", user_id="u-9"),
    "claimed": event("claimed", 9, channel="till"),
    "reserved": event("reserved", 9),
    "released": event("released", 9),
    "used": event("used", 9, discount_minor=900),
    "returned": event("returned", 9),
    "expired": event("expired", 9, reason="campaign_ended"),
    "revoked": event("revoked", 9, reason="fraud"),
    "extended": event("extended", 9),
}
ENTERED: dict[str, Row] = {
    "created": {"created_at": at(9)},
    "issued": {"issued_at": at(9), "issue_channel": "mail", "owner": "u-9"},
    "claimed": {"claimed_at": at(9), "claim_channel": "till", "owner": "u-1"},
    "reserved": {"reserved_at": at(9), "order_id": "o-1"},
    "used": {"used_at": at(9), "order_id": "o-1", "discount_minor": 900},
    "expired": {"ended_at": at(9), "reason": "campaign_ended"},
    "revoked": {"ended_at": at(9), "reason": "fraud"},
}
"""What the later event sets when it changes the state to this one."""

for (_state, _kind), (_next, _illegal) in CELLS.items():
    _row = dict(ROWS[_state])
    if _kind == "created" and _state == "none":
        _row |= {"campaign_id": "k-9", "coupon_type": "gift"}
    if _kind == "extended":
        _row |= {"valid_until": at(60), "extended_at": None if _illegal else at(9)}
    if _next == "resting":
        _row |= {"state": "claimed", "order_id": None, "discount_minor": None}
    elif _next != _state:
        _row |= {"state": _next} | ENTERED[_next]
        if _next in ("reserved", "used") and _state not in ("reserved", "used"):
            _row["resting"] = _state
    case(
        f"cell: {_kind} when {_state}",
        [*PATHS[_state], LATER[_kind]],
        *([f"{_kind}_when_{_state}@{_kind}-9"] if _illegal else []),
        **_row,
        events=len(PATHS[_state]) + 1,
        last_event_at=at(9),
    )
for _state, _row in ROWS.items():
    if _state != "none":
        case(f"path: {_state}", PATHS[_state], **_row, events=len(PATHS[_state]))

for _state in ("none", "created", "issued", "claimed"):
    _illegal = _state in ("none", "created")
    case(
        f"resting: released to {_state}",
        [*PATHS[_state], event("reserved", 8), event("released", 9)],
        *([f"reserved_when_{_state}@reserved-8"] if _illegal else []),
        **ROWS[_state] | {"resting": _state, "reserved_at": at(8), "order_id": None},
    )
for _state in ("none", "created", "issued", "claimed", "expired", "revoked"):
    _illegal = _state not in ("issued", "claimed")
    case(
        f"resting: returned to {_state}",
        [*PATHS[_state], event("used", 8), event("returned", 9)],
        *([f"used_when_{_state}@used-8"] if _illegal else []),
        **ROWS[_state] | {"resting": _state, "used_at": at(8), "order_id": None, "discount_minor": None},
    )
case(
    "resting: reserved, then used, then returned goes back to before the reservation",
    [*PATHS["used"], event("returned", 6)],
    **_RESERVED | {"state": "claimed", "order_id": None, "used_at": at(5)},
)
case(
    "resting: the one of the last leaving, not of the first",
    [
        CREATED,
        event("used", 2),
        event("returned", 3),
        event("issued", 4, user_id="u-1"),
        event("used", 5),
        event("returned", 6),
    ],
    "used_when_created@used-2",
    state="issued",
    resting="issued",
    order_id=None,
    discount_minor=None,
    used_at=at(5),
    issued_at=at(4),
)
case(
    "resting: used again after it was returned to expired",
    [*PATHS["expired"], event("used", 8), event("returned", 9), event("used", 10, order_id="o-2", discount_minor=7)],
    "used_when_expired@used-8",
    "used_when_expired@used-10",
    state="used",
    resting="expired",
    order_id="o-2",
    discount_minor=7,
    used_at=at(10),
    ended_at=at(7),
    reason="not_used",
)

# ── Guards ───────────────────────────────────────────────────────────────────────────────────────────────────

OPEN = [CREATED, ISSUED]
OTHER = {"user_id": "u-2"}

for _kind in ("reserved", "used"):
    case(
        f"no_owner: {_kind} of an open issue",
        [*OPEN, event(_kind, 9)],
        (f"no_owner@{_kind}-9", "issued"),
        state=_kind,
        owner=None,
        resting="issued",
        order_id="o-1",
    )
    case(f"no_owner: not for {_kind} after a grant", [CREATED, GRANTED, event(_kind, 9)], state=_kind, owner="u-1")
    case(f"no_owner: not for {_kind} after a claim", [*PATHS["claimed"], event(_kind, 9)], state=_kind, owner="u-1")
    case(
        f"no_owner: not for {_kind} of one only created",
        [CREATED, event(_kind, 9)],
        f"{_kind}_when_created@{_kind}-9",
        state=_kind,
        owner=None,
    )
    case(
        f"no_owner: not for {_kind} of the unknown",
        [event(_kind, 9)],
        f"{_kind}_when_none@{_kind}-9",
        state=_kind,
        owner=None,
    )
    case(
        f"no_owner: again when {_kind} after the return to issued",
        [*OPEN, event("used", 3), event("returned", 4), event(_kind, 9)],
        ("no_owner@used-3", "issued"),
        (f"no_owner@{_kind}-9", "issued"),
        state=_kind,
        owner=None,
    )
case(
    "no_owner: not for used of a reservation",
    [*OPEN, event("reserved", 4), event("used", 5)],
    ("no_owner@reserved-4", "issued"),
    state="used",
    owner=None,
)
case("no_owner: not for claimed", [*OPEN, event("claimed", 9)], state="claimed", owner="u-1")

for _state, _kind in itertools.product(PATHS, ("claimed", "reserved", "used")):
    _owned = _state not in ("none", "created")
    _next, _illegal = CELLS[_state, _kind]
    _found = [f"{_kind}_when_{_state}@{_kind}-9"] if _illegal else []
    _wrong: list[str | tuple[str, str]] = [*_found, (f"wrong_user@{_kind}-9", _state)] if _owned else [*_found]
    _owner = ROWS[_state]["owner"]
    case(
        f"wrong_user: {_kind} by another when {_state}",
        [*PATHS[_state], event(_kind, 9, **OTHER)],
        *_wrong,
        state=_next,
        owner="u-2" if _kind == "claimed" and _next != _state else _owner,
    )
case(
    "wrong_user: users are compared as written",
    [*PATHS["claimed"], event("used", 9, user_id="U-1 ")],
    ("wrong_user@used-9", "claimed"),
    state="used",
    owner="u-1",
)
case(
    "wrong_user: not for an issue to another",
    [*PATHS["claimed"], event("issued", 9, user_id="u-2")],
    "issued_when_claimed@issued-9",
    state="claimed",
    owner="u-1",
)
case(
    "wrong_user: not for the end of a hold, whoever ends it",
    [*PATHS["reserved"], event("released", 9, user_id="u-2")],
    state="claimed",
    owner="u-1",
)
case(
    "wrong_user: a claim by another than the grant's user takes it over",
    [CREATED, GRANTED, event("claimed", 3, **OTHER), event("used", 5, **OTHER)],
    ("wrong_user@claimed-3", "issued"),
    state="used",
    owner="u-2",
)
case(
    "wrong_user: an owner stays known after an illegal claim made one",
    [event("claimed", 3), event("used", 5, **OTHER)],
    "claimed_when_none@claimed-3",
    ("wrong_user@used-5", "claimed"),
    state="used",
    owner="u-1",
)

ANOTHER = {"order_id": "o-2"}
case(
    "wrong_order: used for another order than reserved",
    [*PATHS["reserved"], event("used", 9, **ANOTHER)],
    ("wrong_order@used-9", "reserved"),
    state="used",
    order_id="o-2",
    discount_minor=500,
    used_at=at(9),
    resting="claimed",
)
case(
    "wrong_order: a release for another order changes nothing",
    [*PATHS["reserved"], event("released", 9, **ANOTHER)],
    ("wrong_order@released-9", "reserved"),
    **ROWS["reserved"],
    events=5,
    last_event_at=at(9),
)
case(
    "wrong_order: a return of another order changes nothing",
    [*PATHS["used"], event("returned", 9, **ANOTHER)],
    ("wrong_order@returned-9", "used"),
    **ROWS["used"],
    events=6,
    last_event_at=at(9),
)
case(
    "wrong_order: after it the right return still works",
    [*PATHS["used"], event("returned", 8, **ANOTHER), event("returned", 9)],
    ("wrong_order@returned-8", "used"),
    state="claimed",
    order_id=None,
    discount_minor=None,
)
case(
    "wrong_order: the order is the one used, not the one reserved",
    [*PATHS["reserved"], event("used", 5, **ANOTHER), event("returned", 9)],
    ("wrong_order@used-5", "reserved"),
    ("wrong_order@returned-9", "used"),
    state="used",
    order_id="o-2",
)
case(
    "wrong_order: a frozen event still carries values",
    [*PATHS["reserved"], event("released", 9, order_id="o-2", currency="CNY", valid_until=at(8)), event("used", 10)],
    ("wrong_order@released-9", "reserved"),
    ("outside_validity@used-10", "reserved"),
    state="used",
    currency="CNY",
    valid_until=at(8),
)
for _state, _kind in (
    ("used", "used"),
    ("used", "reserved"),
    ("used", "released"),
    ("reserved", "returned"),
    ("reserved", "reserved"),
    ("claimed", "released"),
    ("claimed", "returned"),
    ("expired", "used"),
):
    _next, _illegal = CELLS[_state, _kind]
    case(
        f"wrong_order: not for {_kind} when {_state}",
        [*PATHS[_state], event(_kind, 9, **ANOTHER)],
        f"{_kind}_when_{_state}@{_kind}-9",
        state=_next,
        order_id="o-2" if _state == "expired" else ROWS[_state]["order_id"],
    )
case(
    "wrong_order: not in revoked, though an order is still named",
    [*PATHS["reserved"], event("revoked", 6), event("used", 9, **ANOTHER)],
    "used_when_revoked@used-9",
    state="used",
    order_id="o-2",
    resting="revoked",
    reason="abuse",
    ended_at=at(6),
)

WINDOW = {"valid_from": at(9), "valid_until": at(11)}
VALID = event("created", 1, **WINDOW)
for _kind in ("claimed", "reserved", "used"):
    _path = [VALID, GRANTED]
    for _hour, _outside in ((8.9999, True), (9, False), (10, False), (11, False), (11.0001, True)):
        case(
            f"outside_validity: {_kind} at {_hour} of 9 to 11",
            [*_path, event(_kind, _hour)],
            *([(f"outside_validity@{_kind}-{_hour}", "issued")] if _outside else []),
            state=_kind,
            valid_from=at(9),
            valid_until=at(11),
        )
    case(
        f"outside_validity: {_kind} by its own validity",
        [CREATED, GRANTED, event(_kind, 8, valid_from=at(9))],
        (f"outside_validity@{_kind}-8", "issued"),
        state=_kind,
        valid_from=at(9),
        valid_until=None,
    )
    case(
        f"outside_validity: {_kind} by an illegal event's validity",
        [event("returned", 0, valid_until=at(5)), CREATED, GRANTED, event(_kind, 8)],
        "returned_when_none@returned-0",
        (f"outside_validity@{_kind}-8", "issued"),
        valid_until=at(5),
    )
    case(
        f"outside_validity: not {_kind} by what a later event carries",
        [CREATED, GRANTED, event(_kind, 8), event("issued", 9, **WINDOW)],
        f"issued_when_{_kind}@issued-9",
        state=_kind,
        valid_from=at(9),
    )
    case(
        f"outside_validity: {_kind} by the first that carries it, not by the last",
        [
            event("created", 1, valid_until=at(5)),
            event("issued", 2, user_id="u-1", valid_until=at(20)),
            event(_kind, 8),
        ],
        (f"outside_validity@{_kind}-8", "issued"),
        valid_until=at(5),
    )
    case(
        f"outside_validity: {_kind} by two carriers, an end each",
        [event("created", 1, valid_until=at(20)), event("issued", 2, user_id="u-1", valid_from=at(9)), event(_kind, 8)],
        (f"outside_validity@{_kind}-8", "issued"),
        valid_from=at(9),
        valid_until=at(20),
    )
_UNTIL_5, _UNTIL_20 = {"valid_until": at(5)}, {"valid_until": at(20)}
for _kind in ("claimed", "reserved", "used"):
    case(
        f"extended: {_kind} within the longer time",
        [event("created", 1, **_UNTIL_5), GRANTED, event("extended", 6, **_UNTIL_20), event(_kind, 8)],
        state=_kind,
        valid_until=at(20),
        extended_at=at(6),
    )
    case(
        f"extended: {_kind} beyond the shorter time",
        [event("created", 1, **_UNTIL_20), GRANTED, event("extended", 3, **_UNTIL_5), event(_kind, 8)],
        (f"outside_validity@{_kind}-8", "issued"),
        state=_kind,
        valid_until=at(5),
        extended_at=at(3),
    )
    case(
        f"extended: {_kind} before the extension came",
        [event("created", 1, **_UNTIL_5), GRANTED, event(_kind, 8), event("revoked", 9), event("extended", 10)],
        (f"outside_validity@{_kind}-8", "issued"),
        f"extended_when_{_kind if _kind == 'used' else 'revoked'}@extended-10",
        *(["revoked_when_used@revoked-9"] if _kind == "used" else []),
        valid_until=at(5),
        extended_at=None,
    )
    case(
        f"extended: {_kind} by the last of several",
        [
            event("extended", 3, **_UNTIL_20),
            event("created", 1),
            GRANTED,
            event("extended", 7, **_UNTIL_5),
            event(_kind, 8),
            event("extended", 2.5, valid_until=at(30)),
        ],
        (f"outside_validity@{_kind}-8", "issued"),
        valid_until=at(5),
        extended_at=at(7),
    )
    case(
        f"extended: an illegal one that is the first to carry it counts for {_kind} like any event",
        [event("extended", 0, **_UNTIL_5), event("created", 1, **_UNTIL_20), GRANTED, event(_kind, 8)],
        "extended_when_none@extended-0",
        (f"outside_validity@{_kind}-8", "issued"),
        valid_until=at(5),
        extended_at=None,
    )
    case(
        f"extended: an illegal one changes nothing for {_kind} where another came first",
        [
            event("created", 1, **_UNTIL_5),
            GRANTED,
            event("used", 3, order_id="o-9"),
            event("extended", 4, **_UNTIL_20),
            event("returned", 6, order_id="o-9"),
            event(_kind, 8),
        ],
        "extended_when_used@extended-4",
        (f"outside_validity@{_kind}-8", "issued"),
        valid_until=at(5),
        extended_at=None,
    )
    case(
        f"extended: a legal one counts for {_kind} after an illegal one",
        [event("extended", 0, **_UNTIL_5), CREATED, GRANTED, event("extended", 6, **_UNTIL_20), event(_kind, 8)],
        "extended_when_none@extended-0",
        valid_until=at(20),
        extended_at=at(6),
    )
    case(
        f"extended: its valid_from counts for {_kind} as any other",
        [
            CREATED,
            GRANTED,
            event("extended", 6, valid_from=at(9)),
            event(_kind, 8),
            event("issued", 9, valid_from=at(1)),
        ],
        (f"outside_validity@{_kind}-8", "issued"),
        f"issued_when_{_kind}@issued-9",
        valid_from=at(9),
        valid_until=at(60),
        extended_at=at(6),
    )
    case(
        f"extended: {_kind} of the same instant comes before it",
        [event("created", 1, **_UNTIL_5), GRANTED, event("extended", 8), event(_kind, 8)],
        (f"outside_validity@{_kind}-8", "issued"),
        *(["extended_when_used@extended-8"] if _kind == "used" else []),
        valid_until=at(5) if _kind == "used" else at(60),
        extended_at=None if _kind == "used" else at(8),
    )
case(
    "extended: of one instant the last by id counts",
    [
        event("created", 1, **_UNTIL_5),
        event("extended", 3, event_id="z", **_UNTIL_20),
        event("extended", 3, event_id="a", valid_until=at(30)),
    ],
    valid_until=at(20),
    extended_at=at(3),
)
case(
    "extended: what follows carries no other end",
    [CREATED, event("extended", 3, **_UNTIL_20), event("issued", 4, user_id="u-1", **_UNTIL_5), event("used", 8)],
    state="used",
    valid_until=at(20),
    extended_at=at(3),
)
case(
    "extended: also while it is held",
    [
        event("created", 1, **_UNTIL_5),
        GRANTED,
        event("reserved", 4),
        event("extended", 6, **_UNTIL_20),
        event("used", 8),
    ],
    state="used",
    valid_until=at(20),
    extended_at=at(6),
)
for _kind in ("issued", "expired", "revoked"):
    case(f"outside_validity: not for {_kind}", [VALID, event(_kind, 2)], state=_kind)
case("outside_validity: not for the end of a hold", [VALID, GRANTED, event("reserved", 9), event("released", 12)])
case("outside_validity: not for the end of a use", [VALID, GRANTED, event("used", 9), event("returned", 12)])
case(
    "outside_validity: an illegal event too",
    [VALID, event("used", 10), event("used", 12, order_id="o-2")],
    "used_when_created@used-10",
    "used_when_used@used-12",
    ("outside_validity@used-12", "used"),
    state="used",
    order_id="o-1",
)
case(
    "guards: one event breaks all but one",
    [VALID, GRANTED, event("reserved", 9), event("used", 12, user_id="u-2", order_id="o-2")],
    ("wrong_user@used-12", "reserved"),
    ("wrong_order@used-12", "reserved"),
    ("outside_validity@used-12", "reserved"),
    state="used",
    owner="u-1",
    order_id="o-2",
)
case(
    "guards: no owner and outside validity",
    [VALID, ISSUED, event("reserved", 12)],
    ("no_owner@reserved-12", "issued"),
    ("outside_validity@reserved-12", "issued"),
    state="reserved",
)
case(
    "guards: illegal, wrong user and outside validity",
    [*PATHS["used"], event("claimed", 9, user_id="u-2", valid_from=at(10))],
    "claimed_when_used@claimed-9",
    ("wrong_user@claimed-9", "used"),
    ("outside_validity@claimed-9", "used"),
    state="used",
    owner="u-1",
)

# Every guard at every cell: what it must report there, and above all what it must not.
_UNOWNED: dict[str, list[Event]] = {
    "none": [],
    "created": [CREATED],
    "issued": OPEN,
    "reserved": [CREATED, event("reserved", 4)],
    "used": [CREATED, event("used", 5)],
    "expired": [*OPEN, event("expired", 7)],
    "revoked": [*OPEN, event("revoked", 7)],
}
for (_state, _kind), (_, _illegal) in CELLS.items():
    _found = [f"{_kind}_when_{_state}@{_kind}-9"] if _illegal else []
    if _state in _UNOWNED:
        _before = [
            f"{_state}_when_created@{e['event_id']}" for e in _UNOWNED[_state] if e["type"] in ("reserved", "used")
        ]
        _guard = [("no_owner@" + _kind + "-9", _state)] if _state == "issued" and _kind in ("reserved", "used") else []
        case(
            f"guards: {_kind} when {_state} and nobody owns it",
            [*_UNOWNED[_state], event(_kind, 9)],
            *_before,
            *_found,
            *_guard,
        )
    _guard = [(f"outside_validity@{_kind}-9", _state)] if _kind in ("claimed", "reserved", "used") else []
    case(
        f"guards: {_kind} when {_state} and out of date",
        [*PATHS[_state], event(_kind, 9, valid_until=at(8))],
        *_found,
        *_guard,
        valid_until=at(8),
    )
    _order = ANOTHER if _kind in ("reserved", "released", "used", "returned") else {}
    _told = (_state, _kind) in {("reserved", "used"), ("reserved", "released"), ("used", "returned")}
    case(
        f"guards: {_kind} when {_state} by another for another order",
        [*PATHS[_state], event(_kind, 9, user_id="u-2", **_order)],
        *_found,
        *([(f"wrong_order@{_kind}-9", _state)] if _told else []),
        *(
            [(f"wrong_user@{_kind}-9", _state)]
            if _kind in ("claimed", "reserved", "used") and _state not in ("none", "created")
            else []
        ),
    )

# ── The row ──────────────────────────────────────────────────────────────────────────────────────────────────

VALUES = {
    "campaign_id": ("k-5", "k-6"), "coupon_type": ("gift", "cash"), "face_value_minor": (0, 7),
    "percent_off_bp": (0, 7), "min_spend_minor": (0, 7), "currency": ("CNY", "USD"),
    "valid_from": (at(-9), at(-8)), "valid_until": (at(50), at(60)),
}  # fmt: skip
_FIRST, _SECOND = ({k: v[i] for k, v in VALUES.items()} for i in (0, 1))
case(
    "values: from the first that carries them, in any order of arrival",
    [event("revoked", 5, **_SECOND), event("created", 1, **_FIRST)],
    state="revoked",
    **_FIRST,
)
case(
    "values: an illegal event carries them too",
    [event("released", 0, **_FIRST), event("created", 1, **_SECOND)],
    "released_when_none@released-0",
    state="created",
    **_FIRST,
)
case(
    "values: an event that changes nothing carries them too",
    [event("issued", 0.1), event("issued", 0.2, **_FIRST), event("created", 1, **_SECOND)],
    "issued_when_none@issued-0.1",
    "issued_when_issued@issued-0.2",
    "created_when_issued@created-1",
    state="issued",
    **_FIRST,
)
for _name in VALUES:
    case(
        f"values: {_name} alone from a later event",
        [event("returned", 0, **{k: v for k, v in _FIRST.items() if k != _name}), event("revoked", 5, **_SECOND)],
        "returned_when_none@returned-0",
        "revoked_when_none@revoked-5",
        **_FIRST | {_name: _SECOND[_name]},
    )

case(
    "owner: not set by an issue that changes nothing",
    [*OPEN, event("issued", 3, user_id="u-1")],
    "issued_when_issued@issued-3",
    owner=None,
    issue_channel="app",
)
case(
    "owner: not set by a claim that changes nothing",
    [*PATHS["expired"], event("claimed", 9, user_id="u-2")],
    "claimed_when_expired@claimed-9",
    ("wrong_user@claimed-9", "expired"),
    owner="u-1",
    claimed_at=at(3),
)
case("owner: not set by a use", [CREATED, event("used", 5)], "used_when_created@used-5", owner=None)
case(
    "owner: set by an illegal issue that changes the state",
    [event("issued", 2, user_id="u-1")],
    "issued_when_none@issued-2",
    state="issued",
    owner="u-1",
    issued_at=at(2),
    issue_channel="app",
)
case("owner: a claim after an open issue", PATHS["claimed"], owner="u-1")

case(
    "order: a second reservation changes nothing",
    [*PATHS["reserved"], event("reserved", 9, **ANOTHER)],
    "reserved_when_reserved@reserved-9",
    order_id="o-1",
    reserved_at=at(4),
)
case(
    "order: a double use changes nothing",
    [*PATHS["used"], event("used", 9, order_id="o-2", discount_minor=9)],
    "used_when_used@used-9",
    order_id="o-1",
    discount_minor=500,
    used_at=at(5),
)
case(
    "order: kept when a reservation is revoked",
    [*PATHS["reserved"], event("revoked", 9)],
    state="revoked",
    order_id="o-1",
    discount_minor=None,
    resting="claimed",
)
case(
    "order: kept when a reservation expires, illegally",
    [*PATHS["reserved"], event("expired", 9)],
    "expired_when_reserved@expired-9",
    **ROWS["reserved"] | {"state": "expired", "ended_at": at(9), "reason": "not_used"},
)
case(
    "order: a new reservation after a return has no discount",
    [*PATHS["used"], event("returned", 6), event("reserved", 9, **ANOTHER)],
    state="reserved",
    order_id="o-2",
    discount_minor=None,
    reserved_at=at(9),
    used_at=at(5),
)
case(
    "order: what a return says of a discount is not kept",
    [*PATHS["used"], event("returned", 6, discount_minor=7)],
    state="claimed",
    discount_minor=None,
)
case(
    "order: what a reservation says of a discount is not kept",
    [*PATHS["claimed"], event("reserved", 6, discount_minor=7)],
    state="reserved",
    discount_minor=None,
)
case(
    "order: a discount of zero is a discount",
    [*PATHS["reserved"], event("used", 5, discount_minor=0)],
    discount_minor=0,
)

case(
    "channels: of the first issue and the first claim that changed the state",
    [event("claimed", 0.5, channel="illegal"), CREATED, event("issued", 2), event("claimed", 3)],
    "claimed_when_none@claimed-0.5",
    "created_when_claimed@created-1",
    "issued_when_claimed@issued-2",
    "claimed_when_claimed@claimed-3",
    state="claimed",
    claim_channel="illegal",
    issue_channel=None,
    claimed_at=at(0.5),
    issued_at=None,
    created_at=None,
)
case(
    "channels: a return to issued is no issue",
    [CREATED, GRANTED, event("used", 5), event("returned", 6, channel="web")],
    issue_channel="app",
    issued_at=at(2),
)
case(
    "channels: a return to claimed is no claim",
    [*PATHS["used"], event("returned", 6, channel="web")],
    claim_channel="shop",
    claimed_at=at(3),
)

case(
    "reason: the latest of an end",
    [*PATHS["expired"], event("revoked", 9)],
    state="revoked",
    reason="abuse",
    ended_at=at(9),
)
case(
    "reason: kept after a use of what had ended",
    [*PATHS["revoked"], event("used", 9)],
    "used_when_revoked@used-9",
    state="used",
    reason="abuse",
    ended_at=at(7),
)
case(
    "reason: not of an end that changed nothing",
    [*PATHS["expired"], event("expired", 9, reason="not_claimed")],
    "expired_when_expired@expired-9",
    reason="not_used",
    ended_at=at(7),
)
case("reason: not of events that do not end", [*PATHS["claimed"], event("reserved", 9, reason="basket")], reason=None)

case(
    "instants: the latest reservation and the latest use",
    [*PATHS["used"], event("returned", 6), event("reserved", 7), event("used", 8)],
    created_at=at(1),
    issued_at=at(2),
    claimed_at=at(3),
    reserved_at=at(7),
    used_at=at(8),
    last_event_at=at(8),
    events=8,
)
case(
    "instants: nothing clears them",
    [*PATHS["used"], event("returned", 6), event("expired", 7, reason="order_cancelled")],
    state="expired",
    reserved_at=at(4),
    used_at=at(5),
    ended_at=at(7),
)
case(
    "instants: back to expired is no second end",
    [*PATHS["expired"], event("used", 8), event("returned", 9, reason="x")],
    "used_when_expired@used-8",
    state="expired",
    ended_at=at(7),
    reason="not_used",
)
case(
    "counts: illegal events count",
    [event("released", 1), event("returned", 2)],
    "released_when_none@released-1",
    "returned_when_none@returned-2",
    state="none",
    events=2,
    last_event_at=at(2),
    **dict.fromkeys(("owner", "order_id")),
)

# ── The order of facts ───────────────────────────────────────────────────────────────────────────────────────

case("order of facts: a repeat counts once", [CREATED, CREATED, ISSUED, CREATED, ISSUED], state="issued", events=2)
case("order of facts: late events fold where they belong", list(reversed(PATHS["used"])), **ROWS["used"], events=5)
_TEN = ("extended", "revoked", "returned", "used", "released", "reserved", "claimed", "issued", "created", "expired")
case(
    "order of facts: of one instant, by type",
    [event(kind, 1) for kind in _TEN],
    "extended_when_revoked@extended-1",
    **_CLAIMED
    | {"state": "revoked", "resting": "claimed", "reason": "abuse", "order_id": None, "discount_minor": None}
    | dict.fromkeys(("created_at", "issued_at", "claimed_at", "reserved_at", "used_at", "ended_at"), at(1))
    | {"valid_until": at(60)},
    events=10,
)
for _less, _more, _why in (
    ("\uffff", "\U00010000", "not as UTF-16"),
    ("B", "a", "capitals first"),
    ("e10", "e9", "not as numbers"),
    ("e", "e\x00", "a prefix first"),
    ("e\u0301", "\u00e9", "not normalised"),
    ("z", "ä", "not as a language sorts"),
    ("x" * 8 + "\x00", "x" * 9, "beyond eight bytes"),
):
    _uses = [event("used", 5, event_id=e, order_id=f"for {e}") for e in (_less, _more)]
    for _arrival in (_uses, _uses[::-1]):
        case(
            f"order of facts: of one type and instant, by id as UTF-8 bytes, {_why}, {_arrival[0]['event_id']!r} first",
            [*PATHS["claimed"], *_arrival],
            (f"used_when_used@{_more}", "used"),
            order_id=f"for {_less}",
        )
case(
    "order of facts: time before type, type before id",
    [
        event("created", 2, event_id="a"),
        event("used", 2, event_id="b"),
        event("issued", 1, event_id="z"),
        event("claimed", 2, event_id="c"),
    ],
    "issued_when_none@z",
    "created_when_issued@a",
    state="used",
    owner="u-1",
    created_at=None,
    resting="claimed",
)

OTHERWISE = event("created", 1, campaign_id="k-2")
THIRD = event("created", 1, campaign_id="k-3")
case(
    "conflict: the content at the first position stands",
    [CREATED, OTHERWISE],
    "conflicting_duplicate@created-1",
    campaign_id="k-1",
    events=1,
)
case(
    "conflict: each other content once, however often delivered",
    [CREATED, OTHERWISE, OTHERWISE, CREATED, THIRD, OTHERWISE, THIRD],
    "conflicting_duplicate@created-1",
    "conflicting_duplicate@created-1",
    campaign_id="k-1",
    events=1,
)
case(
    "conflict: the first position may arrive last, in another partition",
    [(CREATED, 100, 0, 5), (ISSUED, 101, 0, 6), (OTHERWISE, 99, 1, 70)],
    "conflicting_duplicate@created-1",
    campaign_id="k-2",
    state="issued",
    events=2,
)
case(
    "conflict: what was in conflict may turn out to be the first",
    [(CREATED, 100, 0, 5), (OTHERWISE, 120, 0, 6), (OTHERWISE, 50, 1, 0)],
    "conflicting_duplicate@created-1",
    campaign_id="k-2",
)
case(
    "conflict: a first position beside which two others lie",
    [(CREATED, 100, 0, 5), (OTHERWISE, 120, 0, 6), (THIRD, 50, 1, 0)],
    "conflicting_duplicate@created-1",
    "conflicting_duplicate@created-1",
    campaign_id="k-3",
)
case(
    "conflict: of one recording instant, the lower partition is first, as a number",
    [(CREATED, 100, 10, 0), (OTHERWISE, 100, 9, 77)],
    "conflicting_duplicate@created-1",
    campaign_id="k-2",
)
case(
    "conflict: within a partition, the lower offset is first, as a number",
    [(CREATED, 100, 0, 10), (OTHERWISE, 100, 0, 9)],
    "conflicting_duplicate@created-1",
    campaign_id="k-2",
)
case(
    "conflict: the time of recording counts before partition and offset",
    [(CREATED, 100, 9, 99), (OTHERWISE, 101, 0, 0)],
    "conflicting_duplicate@created-1",
    campaign_id="k-1",
)
case(
    "conflict: another instant or type is other content",
    [CREATED, event("revoked", 30, event_id="created-1"), ISSUED],
    "conflicting_duplicate@created-1",
    state="issued",
    events=2,
    last_event_at=at(2),
)
case(
    "conflict: another source is other content",
    [CREATED, CREATED | {"source": "till"}],
    "conflicting_duplicate@created-1",
    events=1,
)
case(
    "conflict: beside what the transitions and guards say",
    [*OPEN, event("used", 5), event("used", 5, discount_minor=1), event("used", 6)],
    ("no_owner@used-5", "issued"),
    "conflicting_duplicate@used-5",
    "used_when_used@used-6",
    state="used",
    discount_minor=500,
    events=4,
)
case(
    "conflict: a first position that changes the state takes back what followed",
    [*OPEN, (event("used", 5), 200, 0, 9), (event("revoked", 4, event_id="used-5"), 150, 1, 0)],
    "conflicting_duplicate@used-5",
    state="revoked",
    used_at=None,
    order_id=None,
    events=3,
    last_event_at=at(4),
)
_SAME: tuple[tuple[str, Event, Event], ...] = (
    ("null and absent", {}, {"rule_id": None, "attributes": None, "valid_from": None}),
    ("JSON null and absent", {}, {"attributes": "null"}),
    ("JSON with its keys in another order", {"attributes": '{"a":1,"b":[2]}'}, {"attributes": ' {"b":[2],"a":1}'}),
    ("JSON numbers written otherwise", {"attributes": '{"a":1}'}, {"attributes": '{"a":1.0}'}),
    ("JSON texts written otherwise", {"attributes": '{"a":"券"}'}, {"attributes": '{"a":"\\u5238"}'}),
)
for _name, _one, _same in _SAME:
    case(f"same content: {_name}", [CREATED | _one, CREATED | _same, CREATED | _one], events=1, state="created")
_NOT_SAME: tuple[tuple[str, Event, Event], ...] = (
    ("zero and absent", {"face_value_minor": 0}, {}),
    ("empty text and absent", {"channel": ""}, {}),
    ("JSON true and 1", {"attributes": '{"a":1}'}, {"attributes": '{"a":true}'}),
    ("an empty JSON object and absent", {"attributes": "{}"}, {}),
    ("texts of two Unicode forms", {"channel": "\u00e9"}, {"channel": "e\u0301"}),
)
for _name, _one, _same in _NOT_SAME:
    case(
        f"other content: {_name}",
        [CREATED | _one, CREATED | _same, CREATED | _one],
        "conflicting_duplicate@created-1",
        events=1,
        state="created",
    )

# ── Checking ─────────────────────────────────────────────────────────────────────────────────────────────────

WAYS = ("at once", "one by one", "one by one, backwards")


def batches(way: str) -> Iterator[Sequence[Delivery]]:
    """All cases' deliveries, cut in that way: the k-th delivery of every case is in the k-th batch, or all in one."""
    told = [case.deliveries[::-1] if way.endswith("backwards") else case.deliveries for case in CASES.values()]
    if way == "at once":
        yield [d for mine in told for d in mine]
    else:
        for turn in itertools.zip_longest(*told):
            yield [d for d in turn if d is not None]


def check_case(case: Case, outcome: Outcome) -> None:
    """The outcome says of the case's coupon what the specification says."""
    row = outcome.rows[case.coupon_id]
    assert set(COUPON_COLUMNS) == set(row)
    assert {name: row[name] for name in case.row} == case.row
    found: Counter[tuple[str, str, str | None]] = Counter()
    for (_, event_id, code, state, _), number in outcome.violations_by_key.get(case.coupon_id, {}).items():
        found[event_id, code, state] += number
    assert found == Counter(case.violations)
