"""What people ask the live tables: each question a function here, its SQL in a file beside it with bound parameters.

`QUESTIONS` is the table of them. The command line asks through a `Source`, which is the database itself (`Local`) or,
where another process owns it, that process (`api.client.Remote`); both come here, so the answers are the same.
A new question is a function, its SQL, and a line in `QUESTIONS`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Protocol, get_type_hints

import polars as pl

from ledger.codec import micros
from ledger.errors import LedgerError
from ledger.lifecycle import Delivery, fold
from ledger.plain import plain
from ledger.rules import STATES, SWEPT
from ledger.topics import COUPON
from projections import digest as digests_of
from projections.due import due as due_at
from projections.live import journal
from projections.live.signature import stable_hash
from projections.store import Reading, sql

_RULE_TYPES: Final = ("drafted", "published", "unpublished", "amended")
_NO_RULES: Final = {"event_id", "type", "occurred_at", "source", *journal.POSITION}


class NotThere(LedgerError):
    """What was asked for is not in the database."""


class UnknownCoupon(NotThere):
    pass


# --- asking


@dataclass(frozen=True, slots=True)
class AsOf:
    """The committed state that an answer is of. `positions`: rows of topic, partition, next_offset."""

    commits: int
    committed_at: datetime | None
    data_clock: datetime | None
    positions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Frames of the same columns, at least one, to be taken once."""

    as_of: AsOf
    frames: Iterator[pl.DataFrame]

    def row(self) -> dict[str, Any]:
        """Of an answer that is one row."""
        return next(self.frames).row(0, named=True)


class Source(Protocol):
    """Who answers questions."""

    def ask(self, question: str, **parameters: Any) -> Answer:
        """Parameters that are left out are None. Raises `NotThere` and what reading a database raises."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Question:
    """`limit_s`: how long it may take beside the consumer. `json`: columns whose text is JSON."""

    ask: Callable[..., pl.DataFrame | Iterator[pl.DataFrame]]
    limit_s: float = 30.0
    json: tuple[str, ...] = ()

    @property
    def slow(self) -> bool:
        """It may go over all rows."""
        return self.limit_s > 30

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """By name, with their types; those of the function after the reading."""
        hints = get_type_hints(self.ask)
        _, *rest = inspect.signature(self.ask).parameters.values()
        return {p.name: p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in rest}


class Local:
    """The database itself, open for reading."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def ask(self, question: str, **parameters: Any) -> Answer:
        return answer(self._reading, question, parameters)

    def close(self) -> None:
        pass


def answer(reading: Reading, question: str, parameters: Mapping[str, Any]) -> Answer:
    """The answer as of what `reading` sees; the caller sees to it that this is one state."""
    found = QUESTIONS[question].ask(reading, **{name: _naive(value) for name, value in parameters.items()})
    return Answer(as_of(reading), iter([found]) if isinstance(found, pl.DataFrame) else found)


def as_of(reading: Reading) -> AsOf:
    [(commits, committed_at, data_clock)] = reading.rows(_query("as_of"))
    names = ("topic", "partition", "next_offset")
    positions = [dict(zip(names, row, strict=True)) for row in sorted(reading.rows(_query("positions")))]
    return AsOf(commits, committed_at, data_clock, positions)


def _naive(value: Any) -> Any:
    """The tables hold naive UTC."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value


# --- questions


def state(reading: Reading, coupon: str) -> pl.DataFrame:
    """One coupon's row. Raises `UnknownCoupon`."""
    found = reading.frame(_query("coupon"), {"coupon_id": coupon, "key_hash": key_hash(coupon)})
    if not found.height:
        raise UnknownCoupon(f"coupon {coupon}: no event of it has been consumed; check the id, or run `consume`")
    return found


_HISTORY: Final[dict[str, Any]] = {
    "occurred_at": pl.Datetime("us"),
    "type": pl.String,
    "event_id": pl.String,
    "source": pl.String,
    "before": pl.String,
    "after": pl.String,
    "violations": pl.List(pl.String),
    "data": pl.String,
    "recorded_at": pl.Datetime("us"),
    "partition": pl.Int64,
    "offset": pl.Int64,
}


def history(reading: Reading, coupon: str) -> pl.DataFrame:
    """The coupon folded by the reference: a row per event, with where and when the log recorded it.

    `data`: the event's other fields as JSON. Raises `UnknownCoupon`.
    """
    parameters = {"coupon_id": coupon, "key_hash": key_hash(coupon)}
    told = [
        row
        for table in (journal.JOURNAL[COUPON], journal.CONFLICTS[COUPON])
        for row in reading.frame(
            f"SELECT * EXCLUDE (key_hash) FROM {table} WHERE key_hash = $key_hash AND coupon_id = $coupon_id",
            parameters,
        ).iter_rows(named=True)
    ]
    if not told:
        state(reading, coupon)
    positions: dict[str, dict[str, Any]] = {}
    deliveries = []
    for row in told:
        position = {name: row.pop(name) for name in journal.POSITION}
        positions.setdefault(row["event_id"], position)
        recorded_at = micros(position["recorded_at"].replace(tzinfo=UTC))
        deliveries.append(Delivery(row, recorded_at, position["log_partition"], position["log_offset"]))
    folded = fold(deliveries)
    conflicts = [v.event_id for v in folded.violations if v.violation == "conflicting_duplicate"]
    rows = []
    for step in folded.steps:
        event = {k: v for k, v in step.event.items() if v is not None and k != "coupon_id"}
        if "attributes" in event:
            event["attributes"] = json.loads(event["attributes"])
        at = positions[event["event_id"]]
        head = [event.pop(name) for name in ("occurred_at", "type", "event_id", "source")]
        violations = [*step.violations, *("conflicting_duplicate" for e in conflicts if e == step.event["event_id"])]
        data = json.dumps(plain(event), ensure_ascii=False)
        rows.append([*head, step.before, step.after, violations, data, *at.values()])
    return pl.DataFrame(rows, schema=_HISTORY, orient="row")


def coupons(
    reading: Reading,
    campaign: str | None = None,
    state: str | None = None,
    owner: str | None = None,
    coupon_type: str | None = None,
    channel: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    ended_days: int | None = None,
    limit: int | None = None,
) -> Iterator[pl.DataFrame]:
    """Coupons by id, piece by piece. A filter that is None lets all pass."""
    return reading.batches(_query("coupons"), _parameters(locals()))


def states(
    reading: Reading,
    campaign: str | None = None,
    state: str | None = None,
    owner: str | None = None,
    coupon_type: str | None = None,
    channel: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    ended_days: int = 30,
) -> pl.DataFrame:
    """Coupons per state. Filters as of `coupons`."""
    return reading.frame(_query("states"), _parameters(locals()))


def user(reading: Reading, user: str) -> pl.DataFrame:
    """One person, with all that is linked: one row, its `coupons` a list. Raises `NotThere`."""
    found = reading.frame(_query("user"), {"user": user, "key_hash": key_hash(user)})
    linked = found["linked"].list.drop_nulls()[0]
    ids = [user, *(linked.to_list() if linked is not None else [])]
    theirs = reading.frame(_query("user_coupons"), {"ids": ids})
    if not theirs.height and not found["known"][0] and len(ids) == 1:
        raise NotThere(f"user {user}: has no coupon and no event; check the id, or run `consume`")
    counts = {n: theirs.filter(pl.col("standing") == n).height for n in ("usable", "used", "expired")}
    return found.drop("known").with_columns(
        linked=pl.Series([ids[1:]], dtype=pl.List(pl.String)),
        **{name: pl.lit(count, dtype=pl.Int64) for name, count in counts.items()},
        coupons=_as_list(theirs),
    )


def order(reading: Reading, order: str) -> pl.DataFrame:
    """One order: one row, its `coupons` and `violations` lists. Raises `NotThere`."""
    parameters = {"order": order, "key_hash": key_hash(order)}
    found = reading.frame(_query("order"), parameters)
    theirs = reading.frame(_query("order_coupons"), parameters)
    if not found.height and not theirs.height:
        raise NotThere(f"order {order}: no event and no coupon names it; check the id, or run `consume`")
    if not found.height:  # only coupons name it
        found = found.clear(1).with_columns(order_id=pl.lit(order))
    wrong = reading.frame(_query("order_violations"), {"order": order, "coupons": theirs["coupon_id"].to_list()})
    return found.with_columns(
        coupons_discount_minor=pl.lit(theirs.filter(pl.col("state") == "used")["discount_minor"].sum(), dtype=pl.Int64),
        coupons=_as_list(theirs),
        violations=_as_list(wrong),
    )


def campaigns(reading: Reading) -> pl.DataFrame:
    return reading.frame(_query("campaigns"))


def campaign(reading: Reading, campaign: str) -> pl.DataFrame:
    """One campaign: one row; `states`, `versions`, `conservation` are lists. Raises `NotThere`."""
    parameters = {"campaign": campaign, "key_hash": key_hash(campaign)}
    found = reading.frame(_query("campaign"), parameters)
    if not found["known"][0] and not found["coupons"][0]:
        raise NotThere(f"campaign {campaign}: no event and no coupon names it; see `coupon-ledger campaigns`")
    counted = dict(states(reading, campaign=campaign).select("state", "coupons").iter_rows())
    everywhere = pl.DataFrame({"state": list(STATES), "coupons": [counted.get(s, 0) for s in STATES]})
    balance = reading.frame(_query("campaign_conservation"), {"campaign": campaign})
    return found.drop("known").with_columns(
        states=_as_list(everywhere),
        versions=_as_list(_versions(reading, parameters)),
        conservation=_as_list(balance.with_columns(ok=pl.col("counted") == pl.col("stands"))),
    )


def _versions(reading: Reading, parameters: Mapping[str, Any]) -> pl.DataFrame:
    """Per rule version: the event, and as JSON the values that it changed."""
    rows = []
    current: dict[str, Any] = {}
    told = reading.frame(_query("campaign_versions"), {**parameters, "types": _RULE_TYPES})
    for event in told.iter_rows(named=True):
        changed = {k: v for k, v in event.items() if k not in _NO_RULES and v is not None and current.get(k) != v}
        current |= changed
        told_as = json.dumps(plain(changed), ensure_ascii=False)
        rows.append([event["occurred_at"], event["type"], event["event_id"], event["source"], told_as])
    names = ("type", "rule_version", "source", "changed")
    schema = {"occurred_at": pl.Datetime("us"), **dict.fromkeys(names, pl.String())}
    return pl.DataFrame(rows, schema=schema, orient="row")


def violations(
    reading: Reading,
    coupon: str | None = None,
    violation: str | None = None,
    scope: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
) -> Iterator[pl.DataFrame]:
    """Violations by time. A filter that is None lets all pass; `since`, `until`: of the event.

    `superseded`: of an event of the ledger's own sweeps that a fact told later overtook: no fault.
    """
    return reading.batches(_query("violations"), _parameters(locals()) | {"swept": SWEPT})


def violation_counts(
    reading: Reading,
    coupon: str | None = None,
    violation: str | None = None,
    scope: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pl.DataFrame:
    """Violations per code; the superseded are counted apart. Filters as of `violations`."""
    return reading.frame(_query("violation_counts"), _parameters(locals()) | {"swept": SWEPT})


_DUE: Final = ("type", "reason", "campaign_id", "currency")


def due(reading: Reading, until: datetime | None = None) -> pl.DataFrame:
    """What a sweep up to then (the data's clock, if None) would append: coupons and their face value, by reason and
    campaign."""
    until = until or reading.rows("SELECT data_clock FROM ledger")[0][0]
    pieces = due_at(reading, until) if until else iter(())
    counted = [_counted(piece.with_columns(coupons=pl.lit(1, dtype=pl.Int64))) for piece in pieces]
    nothing = dict.fromkeys(_DUE, pl.String()) | dict.fromkeys(("coupons", "face_value_minor"), pl.Int64())
    return _counted(pl.concat([pl.DataFrame(schema=nothing), *counted])).sort(_DUE, nulls_last=True)


def _counted(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by(_DUE).agg(pl.col("coupons", "face_value_minor").sum())


_EXPIRIES_BY: Final = {"reason": "reason", "campaign": "campaign_id", "channel": "channel"}


def expiries(
    reading: Reading,
    by: str = "reason,campaign,channel",
    campaign: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pl.DataFrame:
    """Expired coupons and the face value lost with them. `by`: reason, campaign, channel, with commas between them;
    `since`, `until`: of the expiry."""
    wanted = by.split(",")
    if unknown := sorted(set(wanted) - set(_EXPIRIES_BY)):
        raise NotThere(f"expiries by {', '.join(unknown)}: there is no such part; there are {', '.join(_EXPIRIES_BY)}")
    asked = {f"by_{name}": name in wanted for name in _EXPIRIES_BY}
    found = reading.frame(_query("expiries"), {**asked, "campaign": campaign, "since": since, "until": until})
    return found.drop(column for name, column in _EXPIRIES_BY.items() if name not in wanted)


def expiring(
    reading: Reading,
    within_s: int,
    campaign: str | None = None,
    channel: str | None = None,
    limit: int | None = None,
) -> Iterator[pl.DataFrame]:
    """Usable coupons whose validity ends within so many seconds of the data's clock, by what ends first."""
    return reading.batches(_query("expiring"), _parameters(locals()))


def dead_letters(reading: Reading, limit: int | None = None) -> Iterator[pl.DataFrame]:
    return reading.batches(_query("dead_letters"), {"limit": limit})


def dead_letter(reading: Reading, topic: str, partition: int, offset: int) -> pl.DataFrame:
    """One record that was not folded. Raises `NotThere`."""
    found = reading.frame(_query("dead_letter"), {"topic": topic, "log_partition": partition, "log_offset": offset})
    if not found.height:
        raise NotThere(f"dead letter {topic} {partition} {offset}: not there; see `coupon-ledger dead-letters list`")
    return found


def summary(reading: Reading) -> pl.DataFrame:
    """Counts over the whole database, the data's clock, the last commit; `partitions`: the account of each."""
    return reading.frame(_query("summary"))


def digest(reading: Reading) -> pl.DataFrame:
    schema = {"table": pl.String, "rows": pl.Int64, "facts": pl.String, "full": pl.String}
    return pl.DataFrame([asdict(d) for d in digests_of.digests(reading)], schema=schema)


QUESTIONS: Final[Mapping[str, Question]] = {
    "state": Question(state),
    "history": Question(history, json=("data",)),
    "coupons": Question(coupons, limit_s=300),
    "states": Question(states),
    "user": Question(user),
    "order": Question(order),
    "campaigns": Question(campaigns, limit_s=120),
    "campaign": Question(campaign, limit_s=120),
    "violations": Question(violations, limit_s=300),
    "violation-counts": Question(violation_counts),
    "due": Question(due, limit_s=300),
    "expiries": Question(expiries),
    "expiring": Question(expiring, limit_s=300),
    "dead-letters": Question(dead_letters, limit_s=300),
    "dead-letter": Question(dead_letter),
    "summary": Question(summary),
    "digest": Question(digest, limit_s=600),
}


def _parameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A question's arguments as those of its query, which have the same names."""
    return {name: value for name, value in arguments.items() if name != "reading"}


def key_hash(key: str) -> int:
    return int(stable_hash(pl.Series([key]))[0])


def _query(name: str) -> str:
    return sql(__package__, name)


def _as_list(frame: pl.DataFrame) -> pl.Series:
    """All rows as one value: a list of structs."""
    return frame.select(pl.struct(pl.all()).implode()).to_series()
