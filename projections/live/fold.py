"""The columnar fold of coupons: advances many coupons by many events at once. A pure function of rows and events.

It works in rounds. Round k applies the k-th event of every coupon in parallel, and looks up the next states in a table.
The events of each coupon must be distinct and in canonical order: the fold knows nothing of positions or repeats. It
shares only `lifecycle.toml` with the reference fold in `ledger/lifecycle.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from polars._typing import PolarsDataType

from coupon_ledger.ledger.rules import GUARDS, STATES, TRANSITIONS, types
from coupon_ledger.ledger.topics import COUPON

Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]

INSTANT: Final = pl.Datetime("us")
STATE: Final = {name: code for code, name in enumerate(STATES)}
TYPES: Final = types(COUPON)
TYPE: Final = {name: code for code, name in enumerate(TYPES)}
_RESTING: Final = len(STATES)

FIRST_CARRIED: Final[dict[str, PolarsDataType]] = {
    "campaign_id": pl.String,
    "coupon_type": pl.String,
    "face_value_minor": pl.Int64,
    "percent_off_bp": pl.Int64,
    "min_spend_minor": pl.Int64,
    "currency": pl.String,
    "valid_from": INSTANT,
    "valid_until": INSTANT,
}

EVENT_FIELDS: Final = (
    *("event_id", "type", "occurred_at", "user_id", "order_id", "channel", "reason", "discount_minor"),
    *FIRST_CARRIED,
)
"""The event fields that the fold reads."""

ROW_SCHEMA: Final[dict[str, PolarsDataType]] = {
    "state": pl.Int8,
    "resting": pl.Int8,
    **FIRST_CARRIED,
    "owner": pl.String,
    "order_id": pl.String,
    "discount_minor": pl.Int64,
    "acquired_at": INSTANT,
    "acquired_event_id": pl.String,
    "acquired_by": pl.String,
    "used_event_id": pl.String,
    "issue_channel": pl.String,
    "claim_channel": pl.String,
    "reason": pl.String,
    "created_at": INSTANT,
    "issued_at": INSTANT,
    "claimed_at": INSTANT,
    "reserved_at": INSTANT,
    "used_at": INSTANT,
    "ended_at": INSTANT,
    "extended_at": INSTANT,
}
"""The columns of a coupon's row that the fold maintains. `state` and `resting` are codes into `rules.STATES`. For a
coupon without events, both are 0 (`none`), and all other columns are null."""


def _transition_tables() -> tuple[Int8, Mask]:
    """Two tables, by event type and by state before the event. First: the code of the state after the event; `_RESTING`
    means that the coupon returns to its resting state. Second: whether the event is illegal."""
    after = np.zeros((len(TYPES), len(STATES)), dtype=np.int8)
    illegal = np.zeros_like(after, dtype=np.bool_)
    for kind, cells in TRANSITIONS.items():
        for state, cell in enumerate(cells):
            name = cell.rstrip("!")
            after[TYPE[kind], state] = _RESTING if name == "resting" else STATE[name]
            illegal[TYPE[kind], state] = cell.endswith("!")
    return after, illegal


def _guard_table(name: str) -> Mask:
    """A table of booleans, by event type and by state before the event: whether the guard `name` is checked then."""
    table = np.zeros((len(TYPES), len(STATES)), dtype=np.bool_)
    events = GUARDS[name]["events"]
    if isinstance(events, dict):
        for kind, state in events.items():
            table[TYPE[kind], STATE[state]] = True
        return table
    states = GUARDS[name]["states"]
    columns = range(len(STATES)) if states == ["*"] else [STATE[s] for s in states]
    table[np.ix_([TYPE[kind] for kind in events], list(columns))] = True
    return table


_AFTER, _ILLEGAL = _transition_tables()
_NO_OWNER = _guard_table("no_owner")
_WRONG_USER = _guard_table("wrong_user")
_WRONG_ORDER = _guard_table("wrong_order")
_OUTSIDE = _guard_table("outside_validity")
_FROZEN = np.isin(TYPES, GUARDS["wrong_order"]["frozen"])
_HOLDING = np.isin(STATES, ["reserved", "used"])
_ROUNDS: Final = 64
_FEW: Final = 64
"""If fewer coupons than this have events left after `_ROUNDS` rounds, these are folded event by event: a round with a
few coupons costs as much as one with hundreds."""
_GUARD_NAMES: Final = ("no_owner", "wrong_user", "wrong_order", "outside_validity")


@dataclass(frozen=True, slots=True)
class Folded:
    """The result of a fold. `rows`: the given rows, with new values in the columns of `ROW_SCHEMA`.

    `violations`: one row per violation. `event`: the row number of the event; `violation`: the rule; `state`: the name
    of the coupon's state before the event. For `wrong_user` also `user_id` (of the event) and `owner` (of the coupon at
    that time).
    """

    rows: pl.DataFrame
    violations: pl.DataFrame


def fold(rows: pl.DataFrame, events: pl.DataFrame) -> Folded:
    """Advance `rows` (one per coupon, with the columns of `ROW_SCHEMA` and any others) by `events`.

    `events`: the wire columns, with instants in naive UTC, and `coupon` (row number in `rows`). They are sorted by
    `coupon` and then in canonical order, are distinct, and are later than everything that the rows have folded.
    """
    run = _Rounds(rows, events)
    run.play()
    return Folded(run.finished(), run.violations())


def states_of(events: pl.DataFrame) -> tuple[Int8, Int8]:
    """Per event, the codes of the coupon's states before and after it.

    `events`: as for `fold`; they must be all events of these coupons.
    """
    coupons = 1 + int(events["coupon"].max() or 0) if events.height else 0  # type: ignore[arg-type]
    nothing = pl.DataFrame(schema=ROW_SCHEMA).clear(coupons).with_columns(pl.col("state", "resting").fill_null(0))
    run = _Rounds(nothing, events)
    run.play()
    return run.before, run.after


class _Rounds:
    """The working arrays of one fold. Users and orders are represented by references: row numbers in a column of texts,
    `users` or `orders`.

    Per coupon: `state`, `resting`, `owner`, `order`. Per event: `coupon`, `kind` (code of the type), `before`, `after`
    (codes of the states), `illegal`, `guards` (which it breaks), `went_back` (to the resting state), `owned` (set the
    owner).
    """

    def __init__(self, rows: pl.DataFrame, events: pl.DataFrame) -> None:
        n, m = rows.height, events.height
        self.rows, self.events = rows, events
        self.coupon: Int64 = events["coupon"].cast(pl.Int64).to_numpy()
        self.kind = events["type"].cast(pl.Enum(list(TYPES))).to_physical().cast(pl.Int64).to_numpy()
        self.state: Int8 = rows["state"].to_numpy().copy()
        self.resting: Int8 = rows["resting"].to_numpy().copy()
        # A reference below m is the user of an event; one from m on is the owner in a row; -1 is no user. The same with
        # orders.
        self.users = pl.concat([events["user_id"], rows["owner"]])
        self.orders = pl.concat([events["order_id"], rows["order_id"]])
        self.owner: Int64 = np.where(rows["owner"].is_null().to_numpy(), -1, m + np.arange(n))
        self.order: Int64 = np.where(rows["order_id"].is_null().to_numpy(), -1, m + np.arange(n))
        self.has_user: Mask = events["user_id"].is_not_null().to_numpy()
        self.before = np.zeros(m, dtype=np.int8)
        self.after = np.zeros(m, dtype=np.int8)
        self.illegal = np.zeros(m, dtype=np.bool_)
        self.guards = np.zeros((len(_GUARD_NAMES), m), dtype=np.bool_)
        self.went_back = np.zeros(m, dtype=np.bool_)
        self.owned = np.zeros(m, dtype=np.bool_)
        self.other_owner = np.full(m, -1, dtype=np.int64)
        """Per event, the reference of the coupon's owner at that time if the event breaks `wrong_user`; otherwise
        -1."""
        self.first = {name: self._first_carrying(name) for name in FIRST_CARRIED}

    def _first_carrying(self, name: str) -> Int64:
        """Per coupon, the index in `events` of its first event in which the field `name` has a value. -1 if there is no
        such event, or if the row already has a value."""
        carrying = np.flatnonzero(self.events[name].is_not_null().to_numpy())
        of = self.coupon[carrying]
        first = np.ones(len(of), dtype=np.bool_)
        first[1:] = of[1:] != of[:-1]
        source = np.full(self.rows.height, -1, dtype=np.int64)
        source[of[first]] = carrying[first]
        source[self.rows[name].is_not_null().to_numpy()] = -1
        return source

    def _beyond(self, name: str) -> Mask:
        """Per event, whether it is outside the coupon's validity: before `valid_from` or after `valid_until`. `name`:
        the one of the two to check. Its value is the one that is known from this event and earlier ones."""
        source = self.first[name][self.coupon]
        if name == "valid_until":
            extended = self._extended_by_then()
            source = np.where(extended >= 0, extended, source)
        m = self.events.height
        known = pl.concat([self.events[name], self.rows[name]])
        reference = np.where(source >= 0, source, m + self.coupon)
        limit = known.gather(reference)
        at = self.events["occurred_at"]
        beyond = (at < limit if name == "valid_from" else at > limit).fill_null(False).to_numpy()
        # A value that a later event carries is not known yet.
        known_by_then: Mask = (source < 0) | (source <= np.arange(m))
        result: Mask = beyond & known_by_then
        return result

    def _extended_by_then(self) -> Int64:
        """Per event, the number of its coupon's last legal `extended` event, up to and including the event itself. -1
        if there is none."""
        m = len(self.coupon)
        latest = np.maximum.accumulate(np.where(self.extending, np.arange(m), -1))
        before = latest < np.searchsorted(self.coupon, self.coupon)  # of another coupon
        return np.where(before, -1, latest)

    def play(self) -> None:
        """Fold all events. This fills the working arrays."""
        self._play_rounds()
        self.extending: Mask = (self.kind == TYPE["extended"]) & ~self.illegal
        outside = self._beyond("valid_from") | self._beyond("valid_until")
        self.guards[3] = _OUTSIDE[self.kind, self.before] & outside

    def _play_rounds(self) -> None:
        m = len(self.coupon)
        starts = np.flatnonzero(np.r_[True, self.coupon[1:] != self.coupon[:-1]]) if m else np.zeros(0, int)
        sizes = np.diff(np.r_[starts, m])
        turn = 0
        while starts.size:
            if turn >= _ROUNDS and starts.size < _FEW:
                for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                    self._one_by_one(start + turn, start + size)
                return
            self._round(starts + turn)
            turn += 1
            more = sizes > turn
            if not more.all():
                starts, sizes = starts[more], sizes[more]

    def _round(self, at: Int64) -> None:
        """Fold the events with the numbers `at`, which are all of different coupons, and note the results in the
        working arrays."""
        coupon, kind = self.coupon[at], self.kind[at]
        before = self.state[coupon]
        cell = _AFTER[kind, before]
        self.illegal[at] = _ILLEGAL[kind, before]
        wrong_order = self._judge(at, coupon, kind, before)
        frozen = wrong_order & _FROZEN[kind]
        back = (cell == _RESTING) & ~frozen
        after = np.where(frozen, before, np.where(back, self.resting[coupon], cell)).astype(np.int8)
        entered = (after != before) & ~back
        self.before[at], self.after[at], self.went_back[at] = before, after, back
        self.state[coupon] = after
        leaving = entered & _HOLDING[after] & ~_HOLDING[before]
        self.resting[coupon[leaving]] = before[leaving]
        owned = entered & ((kind == TYPE["claimed"]) | ((kind == TYPE["issued"]) & self.has_user[at]))
        self.owner[coupon[owned]] = at[owned]
        self.owned[at] = owned
        held = entered & _HOLDING[after]
        self.order[coupon[held]] = at[held]
        self.order[coupon[back]] = -1

    def _judge(self, at: Int64, coupon: Int64, kind: Int64, state: Int8) -> Mask:
        """Check the guards no_owner, wrong_user and wrong_order for the events with the numbers `at`, and set their
        `guards`. Returns per event whether it breaks wrong_order."""
        owner, order = self.owner[coupon], self.order[coupon]
        self.guards[0, at] = _NO_OWNER[kind, state] & (owner < 0)
        wrong_user = _differ(self.users, at, owner, _WRONG_USER[kind, state] & (owner >= 0))
        self.guards[1, at] = wrong_user
        self.other_owner[at] = np.where(wrong_user, owner, -1)
        wrong_order = _differ(self.orders, at, order, _WRONG_ORDER[kind, state])
        self.guards[2, at] = wrong_order
        return wrong_order

    def _one_by_one(self, start: int, end: int) -> None:
        """Fold the events with the numbers `start` to `end` (exclusive), one after another, with `_OneCoupon`. They are
        all of one coupon."""
        coupon = int(self.coupon[start])
        held = ((self.users, int(self.owner[coupon])), (self.orders, int(self.order[coupon])))
        owner, order = ((reference, None if reference < 0 else texts[reference]) for texts, reference in held)
        run = _OneCoupon(int(self.state[coupon]), int(self.resting[coupon]), owner, order)
        events = zip(
            range(start, end),
            self.kind[start:end].tolist(),
            self.events["user_id"][start:end].to_list(),
            self.events["order_id"][start:end].to_list(),
            strict=True,
        )
        steps = np.array([run.step(*event) for event in events], dtype=np.int64)
        self.before[start:end], self.after[start:end], self.other_owner[start:end] = steps[:, :3].T
        self.illegal[start:end], self.went_back[start:end], self.owned[start:end] = steps[:, 3:6].T
        self.guards[:3, start:end] = steps[:, 6:].T
        self.state[coupon], self.resting[coupon] = run.state, run.resting
        self.owner[coupon], self.order[coupon] = run.owner[0], run.order[0]

    def violations(self) -> pl.DataFrame:
        frames = [self._named(np.flatnonzero(self.illegal), None)]
        frames += [self._named(np.flatnonzero(hit), name) for name, hit in zip(_GUARD_NAMES, self.guards, strict=True)]
        return pl.concat(frames).sort("event", maintain_order=True)

    def _named(self, events: Int64, guard: str | None) -> pl.DataFrame:
        states = _names(self.before[events], STATES)
        if guard is None:
            kinds = _names(self.kind[events].astype(np.int8), TYPES)
            violation = kinds + "_when_" + states
        else:
            violation = pl.repeat(guard, len(events), dtype=pl.String, eager=True)
        nulls = pl.repeat(None, len(events), dtype=pl.String, eager=True)
        wrong_user = guard == "wrong_user"
        return pl.DataFrame(
            {
                "event": events,
                "violation": violation,
                "state": states,
                "user_id": self.events["user_id"][events] if wrong_user else nulls,
                "owner": self.users.gather(self.other_owner[events]) if wrong_user else nulls,
            }
        )

    def finished(self) -> pl.DataFrame:
        extended = self._latest(self.extending)
        sources = self.first | {"valid_until": np.where(extended >= 0, extended, self.first["valid_until"])}
        new = {
            "state": pl.Series(self.state),
            "resting": pl.Series(self.resting),
            **{name: self._taken(name, source) for name, source in sources.items()},
            "extended_at": self._taken("occurred_at", extended, "extended_at"),
            "owner": _referred(self.users, self.owner),
            "order_id": _referred(self.orders, self.order),
            "discount_minor": self._discounts(),
            **self._acquired(),
            **self._instants(),
        }
        return self.rows.with_columns(**new)

    def _acquired(self) -> dict[str, pl.Series]:
        first = self._first(self.owned, "acquired_at")
        fields = {"acquired_at": "occurred_at", "acquired_event_id": "event_id", "acquired_by": "user_id"}
        return {name: self._taken(field, first, name) for name, field in fields.items()}

    def _instants(self) -> dict[str, pl.Series]:
        """The columns that an entry into a state sets: its instant, and for some states also the channel, the event's
        id or the reason. A state that a coupon enters only once in its life: from the first entry. Others: from the
        latest entry."""
        entered = (self.after != self.before) & ~self.went_back
        created, issued, claimed, reserved, used = (
            entered & (self.after == STATE[s]) for s in ("created", "issued", "claimed", "reserved", "used")
        )
        ended = entered & np.isin(self.after, [STATE["expired"], STATE["revoked"]])
        first_issued, first_claimed = self._first(issued, "issued_at"), self._first(claimed, "claimed_at")
        latest_used = self._latest(used)
        return {
            "created_at": self._taken("occurred_at", self._first(created, "created_at"), "created_at"),
            "issued_at": self._taken("occurred_at", first_issued, "issued_at"),
            "issue_channel": self._taken("channel", first_issued, "issue_channel"),
            "claimed_at": self._taken("occurred_at", first_claimed, "claimed_at"),
            "claim_channel": self._taken("channel", first_claimed, "claim_channel"),
            "reserved_at": self._taken("occurred_at", self._latest(reserved), "reserved_at"),
            "used_at": self._taken("occurred_at", latest_used, "used_at"),
            "used_event_id": self._taken("event_id", latest_used, "used_event_id"),
            "ended_at": self._taken("occurred_at", self._latest(ended), "ended_at"),
            "reason": self._taken("reason", self._latest(ended), "reason"),
        }

    def _first(self, events: Mask, unless: str) -> Int64:
        """Per coupon, the number of the first event that `events` selects. -1 if there is none, or if the row already
        has a value in the column `unless`."""
        first = np.full(self.rows.height, -1, dtype=np.int64)
        at = np.flatnonzero(events)[::-1]
        first[self.coupon[at]] = at
        first[self.rows[unless].is_not_null().to_numpy()] = -1
        return first

    def _latest(self, events: Mask) -> Int64:
        """Per coupon, the number of the last event that `events` selects. -1 if there is none."""
        latest = np.full(self.rows.height, -1, dtype=np.int64)
        at = np.flatnonzero(events)
        latest[self.coupon[at]] = at
        return latest

    def _discounts(self) -> pl.Series:
        entered = (self.after != self.before) & ~self.went_back
        source = self._latest((entered & (self.after == STATE["used"])) | self.went_back)
        taken = self._taken("discount_minor", source)
        cleared = (source >= 0) & self.went_back[source]
        return taken.set(pl.Series(cleared), None)

    def _taken(self, field: str, source: Int64, name: str | None = None) -> pl.Series:
        """Per coupon, the value of `field` in its event with the number `source`. If `source` is -1, the value that the
        row already has in the column `name` (default: `field`)."""
        old = self.rows[name or field]
        here = np.flatnonzero(source >= 0)
        if not here.size:
            return old
        if old.null_count() == len(old):
            return _referred(self.events[field], source)
        both = pl.concat([self.events[field], old])
        reference = self.events.height + np.arange(len(old))
        reference[here] = source[here]
        return both.gather(reference)


class _OneCoupon:
    """Folds the events of one coupon one after another. It applies the rules of `_Rounds._round` to plain values
    instead of arrays. `owner`, `order`: each a pair of a reference (see `_Rounds`) and its text."""

    def __init__(self, state: int, resting: int, owner: tuple[int, str | None], order: tuple[int, str | None]) -> None:
        self.state, self.resting, self.owner, self.order = state, resting, owner, order
        looks = (_NO_OWNER, _WRONG_USER, _WRONG_ORDER)
        self._after, self._illegal = _AFTER.tolist(), _ILLEGAL.tolist()
        self._no_owner, self._wrong_user, self._wrong_order = (table.tolist() for table in looks)
        self._frozen, self._holding = _FROZEN.tolist(), _HOLDING.tolist()

    def step(self, at: int, kind: int, user: str | None, order: str | None) -> tuple[int, ...]:
        """Fold event number `at`. Returns nine values: the codes of the states before and after it; the reference of
        the owner if the event breaks wrong_user, otherwise -1; whether the event is illegal, leads back to the resting
        state, and sets the owner; and whether it breaks the guards no_owner, wrong_user and wrong_order."""
        before = self.state
        no_owner = self._no_owner[kind][before] and self.owner[0] < 0
        wrong_user = self._wrong_user[kind][before] and self.owner[0] >= 0 and user != self.owner[1]
        wrong_order = self._wrong_order[kind][before] and (self.order[0] < 0 or order != self.order[1])
        other_owner = self.owner[0] if wrong_user else -1
        cell = self._after[kind][before]
        frozen = wrong_order and self._frozen[kind]
        back = cell == _RESTING and not frozen
        after = before if frozen else self.resting if back else cell
        entered = after != before
        owned = entered and (kind == TYPE["claimed"] or (kind == TYPE["issued"] and user is not None))
        if entered and self._holding[after]:
            self.order = at, order
            if not self._holding[before]:
                self.resting = before
        if owned:
            self.owner = at, user
        if back:
            self.order = -1, None
        self.state = after
        illegal = self._illegal[kind][before]
        return before, after, other_owner, illegal, back, owned, no_owner, wrong_user, wrong_order


def _differ(texts: pl.Series, left: Int64, right: Int64, where: Mask) -> Mask:
    """Per event, whether the two texts in `texts` with the references `left` and `right` differ. False if `where` is
    false for the event. If `right` is -1, the texts count as different."""
    result: Mask = np.zeros(len(left), dtype=np.bool_)
    here = np.flatnonzero(where)
    if here.size:
        a, b = texts.gather(left[here]), texts.gather(np.maximum(right[here], 0))
        result[here] = a.ne_missing(b).to_numpy() | (right[here] < 0)
    return result


def _referred(texts: pl.Series, reference: Int64) -> pl.Series:
    """Per reference, the text in `texts` with this row number. Null for the reference -1."""
    rows = pl.Series(reference)
    return texts.gather(rows.set(rows < 0, None))


def _names(codes: Int8, names: tuple[str, ...]) -> pl.Series:
    return pl.Series(names, dtype=pl.String).gather(codes.astype(np.int64))
