"""Questions about coupons, orders, campaigns, users and the ledger itself. Their SQL is in files beside this one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.errors import NotThere, UnknownCoupon, WrongQuestion
from coupon_ledger.ledger.lifecycle import Delivery, Folded, Step, fold
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.progress import Progress
from coupon_ledger.ledger.rules import STATES
from coupon_ledger.ledger.topics import COUPON, USER
from coupon_ledger.ledger.words import note
from coupon_ledger.projections import digest as digests_of
from coupon_ledger.projections.attribution.persons import persons
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.dead_letters import Chosen, chosen_letters
from coupon_ledger.projections.due import due as due_at
from coupon_ledger.projections.identity import oddities as oddities_of
from coupon_ledger.projections.identity import read_log
from coupon_ledger.projections.live import journal
from coupon_ledger.projections.live.signature import key_hash, stable_hash
from coupon_ledger.projections.past import Cut
from coupon_ledger.projections.past.diff import differences
from coupon_ledger.projections.wide import as_integers
from coupon_ledger.questions import audits
from coupon_ledger.questions.asking import cut_of, positions_of
from coupon_ledger.questions.attribution import in_place
from coupon_ledger.questions.customers import customers
from coupon_ledger.questions.parameters import OfPast, Parameters
from coupon_ledger.questions.states.across import changed
from coupon_ledger.questions.states.parameters import (
    Across,
    Audit,
    CouponHistory,
    Coupons,
    CouponStates,
    DeadLetters,
    Diff,
    DigestBuckets,
    DigestRows,
    Due,
    Evidence,
    Expiries,
    Expiring,
    Histories,
    OneCampaign,
    OneCoupon,
    OneDeadLetter,
    OneOrder,
    OneUser,
    ViolationFilter,
    Violations,
)

_RULE_TYPES: Final = ("drafted", "published", "unpublished", "amended")
_NO_RULES: Final = {"event_id", "type", "occurred_at", "source", *journal.POSITION}


def state(reading: Reading, parameters: OneCoupon) -> pl.DataFrame:
    """The state of one coupon: one row, with the coupon's values, owner and order, and the time of each step.

    Raises `UnknownCoupon`.
    """
    coupon, cut = parameters.coupon, cut_of(reading, parameters)
    if cut:
        past = asdict(_folded(reading, coupon, cut)[0].coupon)
        columns = reading.frame(f"{_query('coupon')} LIMIT 0", {"coupon_id": coupon, "key_hash": 0}).schema
        return pl.DataFrame([{name: past[name] for name in columns}], schema=columns)
    row = reading.frame(_query("coupon"), {"coupon_id": coupon, "key_hash": key_hash(coupon)})
    if not row.height:
        raise UnknownCoupon(f"coupon {coupon}: no event of it has been consumed; check the id, or run `consume`")
    return row


_HISTORY: Final[dict[str, Any]] = {
    "occurred_at": pl.Datetime("us"),
    "type": pl.String,
    "event_id": pl.String,
    "source": pl.String,
    "before": pl.String,
    "after": pl.String,
    "violations": pl.List(pl.String),
    "superseded": pl.List(pl.String),
    "explained": pl.List(pl.String),
    "data": pl.String,
    "recorded_at": pl.Datetime("us"),
    "partition": pl.Int64,
    "offset": pl.Int64,
    "number": pl.Int64,
    "currency": pl.String,
}


def history(reading: Reading, parameters: CouponHistory) -> pl.DataFrame:
    """The history of one coupon: one row per event, in canonical order. The reference fold computes it from the
    journal.

    `before` and `after` are the states of the coupon before and after the event. `number` counts the coupon's events
    from 1. `violations` lists the rules that the event broke. `superseded` and `explained` list those of them that are
    not faults. In `superseded`, a later fact overtook a sweep; in `explained`, the two users of a `wrong_user` are
    linked ids of one person. `data` contains the event's other fields as JSON. `currency` is that of the coupon.
    `partition`, `offset` and `recorded_at` say where and when the log recorded the event.

    Raises `UnknownCoupon`.
    """
    cut, limit = cut_of(reading, parameters), parameters.limit
    folded, positions = _folded(reading, parameters.coupon, cut)
    people = _persons_in(reading, cut) if any(v.violation == "wrong_user" for v in folded.violations) else {}
    broken = {"events": [v.event_id for v in folded.violations], "codes": [v.violation for v in folded.violations]}
    overtaken = set(reading.frame(_query("superseded"), broken).iter_rows()) if folded.violations else set()
    conflicts = Counter(v.event_id for v in folded.violations if v.violation == "conflicting_duplicate")
    rows = []
    first = max(0, len(folded.steps) - limit) if limit is not None else 0
    for number, step in enumerate(folded.steps[first:], start=first + 1):
        event = {k: v for k, v in step.event.items() if v is not None and k != "coupon_id"}
        if "attributes" in event:
            event["attributes"] = json.loads(event["attributes"])
        position = positions[event["event_id"]]
        head = [event.pop(name) for name in ("occurred_at", "type", "event_id", "source")]
        violations = [*step.violations, *["conflicting_duplicate"] * conflicts[step.event["event_id"]]]
        superseded = [code for code in violations if (step.event["event_id"], code) in overtaken]
        explained = ["wrong_user"] if "wrong_user" in violations and _one_person(step, people) else []
        data = json.dumps(plain(event), ensure_ascii=False)
        whole = (number, folded.coupon.currency)
        rows.append(
            [*head, step.before, step.after, violations, superseded, explained, data, *position.values(), *whole]
        )
    return pl.DataFrame(rows, schema=_HISTORY, orient="row")


def _persons_in(reading: Reading, cut: Cut) -> dict[str, str]:
    """For each linked id, the id that names its person. Only links within the cut count."""
    links = f"SELECT DISTINCT user_id, alias_id FROM user_events WHERE type = 'linked' AND {cut.condition(USER)}"
    return dict(persons(reading.frame(links)).iter_rows())


def _one_person(step: Step, people: Mapping[str, str]) -> bool:
    user, owner = step.event["user_id"], step.owner
    return people.get(user, user) == people.get(owner or "", owner)


def _folded(reading: Reading, coupon: str, cut: Cut) -> tuple[Folded, dict[str, dict[str, Any]]]:
    """Returns the result of folding the coupon's events within the cut, and the first position of each event by event
    id. Raises `UnknownCoupon`."""
    parameters = {"coupon_id": coupon, "key_hash": key_hash(coupon)}
    rows = [
        row
        for table in (journal.JOURNAL[COUPON], journal.CONFLICTS[COUPON])
        for row in reading.frame(
            f"SELECT * EXCLUDE (key_hash) FROM {table} WHERE key_hash = $key_hash AND coupon_id = $coupon_id"
            f" AND {cut.condition(COUPON)}",
            parameters,
        ).iter_rows(named=True)
    ]
    if not rows:
        if cut:
            raise UnknownCoupon(f"coupon {coupon}: no event of it {cut}; check the id, or ask for a later instant")
        raise UnknownCoupon(f"coupon {coupon}: no event of it has been consumed; check the id, or run `consume`")
    rows.sort(key=lambda row: tuple(row[name] for name in journal.POSITION))
    positions: dict[str, dict[str, Any]] = {}
    deliveries = []
    for row in rows:
        position = {name: row.pop(name) for name in journal.POSITION}
        positions.setdefault(row["event_id"], position)
        recorded_at = micros(position["recorded_at"].replace(tzinfo=UTC))
        deliveries.append(Delivery(row, recorded_at, position["log_partition"], position["log_offset"]))
    return fold(deliveries), positions


def coupons(reading: Reading, parameters: Coupons) -> Iterator[pl.DataFrame]:
    """Coupons that match the filters: one row per coupon, sorted by id. If `ordered` is false, they are not sorted,
    which is faster if there are many."""
    bound = parameters.bound
    query = _of_code("coupons", bound)
    order = "ORDER BY coupon_id" if bound.pop("ordered") else ""
    return reading.batches(f"{query} {order} LIMIT coalesce($limit::BIGINT, 9223372036854775807)", bound)


def states(reading: Reading, parameters: CouponStates) -> pl.DataFrame:
    """Number of coupons in each state: one row per state. `long_ended` counts those that ended more than `ended_days`
    days ago. The filters are the same as in the question `coupons`."""
    bound = parameters.bound
    return reading.frame(_of_code("states", bound), bound)


def _of_code(name: str, parameters: dict[str, Any]) -> str:
    """The SQL query with this name. If the parameter `code` is set, the query is limited to coupons with this code."""
    if parameters["code"] is None:
        del parameters["code"]
        return _query(name)
    return _query("of_code") + _query(name)


def user(reading: Reading, parameters: OneUser) -> pl.DataFrame:
    """One person, with all linked ids: one row.

    `person` is the id that names the person, `linked` lists the person's other ids. `coupons` lists the coupons that
    any of the ids owns. Of these, `usable`, `used` and `expired` count those that are usable, used or expired at the
    data's clock.

    Raises `NotThere`.
    """
    return _user(reading, parameters.user)


def _user(reading: Reading, user: str) -> pl.DataFrame:
    row, ids = ids_of(reading, user)
    theirs = reading.frame(_query("user_coupons"), {"ids": ids})
    if not theirs.height and not row["known"][0] and len(ids) == 1:
        raise NotThere(f"user {user}: has no coupon and no event; check the id, or run `consume`")
    counts = {n: theirs.filter(pl.col("standing") == n).height for n in ("usable", "used", "expired")}
    return row.drop("known").with_columns(
        linked=pl.Series([ids[1:]], dtype=pl.List(pl.String)),
        **{name: pl.lit(count, dtype=pl.Int64) for name, count in counts.items()},
        coupons=_as_list(theirs),
    )


def person(reading: Reading, parameters: OneUser) -> pl.DataFrame:
    """One person in detail: the row of the question `user`, with two more lists.

    `ids` has one entry per id of the person, with counts of the id's coupons. `violations` lists the rules broken by
    the person's coupons, or by events in the person's name.

    Raises `NotThere`.
    """
    row = _user(reading, parameters.user)
    ids = {"ids": [parameters.user, *row["linked"][0]]}
    return row.with_columns(
        ids=_as_list(reading.frame(_query("person_ids"), ids)),
        violations=_as_list(reading.frame(_query("person_violations"), ids)),
    )


def ids_of(reading: Reading, user: str) -> tuple[pl.DataFrame, list[str]]:
    """Returns the row of user.sql, and all ids of the person with the id `user`. `user` is the first of them."""
    row = reading.frame(_query("user"), {"user": user, "key_hash": key_hash(user)})
    linked = row["linked"].list.drop_nulls()[0]
    return row, [user, *(linked.to_list() if linked is not None else [])]


def order(reading: Reading, parameters: OneOrder) -> pl.DataFrame:
    """One order: one row, with its amounts and status.

    `coupons` lists every coupon that the order names, every coupon with an event that names the order, and every coupon
    that is now on the order. `violations` lists the rules broken on the order. `coupon_discount_minor` is the coupon
    discount that the order states. `coupons_discount_minor` is the sum of the discounts of the coupons in use on it.

    Raises `NotThere`.
    """
    order = parameters.order
    bound = {"order": order, "key_hash": key_hash(order)}
    row = reading.frame(_query("order"), bound)
    theirs = reading.frame(_query("order_coupons"), bound)
    if not row.height and not theirs.height:
        raise NotThere(f"order {order}: no event and no coupon names it; check the id, or run `consume`")
    if not row.height:  # only coupons name it
        row = row.clear(1).with_columns(order_id=pl.lit(order))
    wrong = reading.frame(_query("order_violations"), {"order": order, "coupons": theirs["coupon_id"].to_list()})
    return as_integers(
        row.with_columns(
            coupons_discount_minor=theirs.filter(pl.col("state") == "used").select(
                pl.col("discount_minor").cast(pl.Int128).sum()
            )["discount_minor"],
            coupons=_as_list(theirs),
            violations=_as_list(wrong),
        )
    )


def campaigns(reading: Reading, _: OfPast) -> pl.DataFrame:
    """All campaigns: one row per campaign, and one with a null id for coupons without a campaign.

    `issued`, `claimed`, `used`, `returned` and `expired` count the coupons that have such an event, even if it broke a
    rule. `in_use` counts coupons whose state is used, `owned` those with an owner. `claim_rate` = claimed / (coupons
    issued without a user); `use_rate` = in_use / owned. `discounts` lists the discount of the coupons in use, by
    currency. `discount_minor` is the discount if there is only one currency, else null. `violations` counts the same as
    in the question `campaign`.
    """
    with reading.given(faults=_faults(reading)):
        return reading.frame(_query("campaigns"))


def _faults(reading: Reading, campaign: str | None = None, between: bool = False) -> pl.DataFrame:
    """The rows of campaign_faults.sql. `between`: whether to include violations between coupons and orders. For a
    question about the past, these require that every topic is folded."""
    return reading.frame(_query("campaign_faults"), {"campaign": campaign, "between": between})


def campaign(reading: Reading, parameters: OneCampaign) -> pl.DataFrame:
    """One campaign: one row, with its current rules and counts.

    `entered` counts the campaign's coupons that were claimed or granted. `stock_left` = quantity - entered; it is
    negative if more coupons were claimed or granted than the quantity. `violations` counts the broken rules of the
    coupons and of the campaign itself, without those between coupons and orders. `broken` lists their number by rule.
    `states` lists the number of coupons in each state. `versions` lists each rule version with the values that it
    changed. `conservation` lists checks whether the counts of the coupons balance.

    Raises `NotThere`.
    """
    campaign = parameters.campaign
    bound = {"campaign": campaign, "key_hash": key_hash(campaign)}
    row = reading.frame(_query("campaign"), bound)
    if not row["known"][0] and not row["coupons"][0]:
        said = note(
            "campaign {campaign}: no event and no coupon names it; see `coupon-ledger campaigns`", campaign=campaign
        )
        raise NotThere(said)
    counted = dict(states(reading, CouponStates(campaign=campaign)).select("state", "coupons").iter_rows())
    everywhere = pl.DataFrame({"state": list(STATES), "coupons": [counted.get(s, 0) for s in STATES]})
    balance = reading.frame(_query("campaign_conservation"), {"campaign": campaign})
    faults = _faults(reading, campaign).unique(["violation", "scope", "topic", "key", "event_id", "counterpart"])
    broken = faults.group_by("violation", "scope").agg(violations=pl.len()).sort("violation", "scope")
    return row.drop("known").with_columns(
        violations=pl.lit(faults.height, pl.Int64),
        states=_as_list(everywhere),
        broken=_as_list(broken),
        versions=_as_list(_versions(reading, bound)),
        conservation=_as_list(balance.with_columns(ok=pl.col("counted") == pl.col("stands"))),
    )


def _versions(reading: Reading, bound: Mapping[str, Any]) -> pl.DataFrame:
    """One row per rule version of the campaign: the event that made it, and the values that it changed, as JSON."""
    rows = []
    current: dict[str, Any] = {}
    events = reading.frame(_query("campaign_versions"), {**bound, "types": _RULE_TYPES})
    for event in events.iter_rows(named=True):
        changed = {k: v for k, v in event.items() if k not in _NO_RULES and v is not None and current.get(k) != v}
        current |= changed
        as_json = json.dumps(plain(changed), ensure_ascii=False)
        rows.append([event["occurred_at"], event["type"], event["event_id"], event["source"], as_json])
    names = ("type", "rule_version", "source", "changed")
    schema = {"occurred_at": pl.Datetime("us"), **dict.fromkeys(names, pl.String())}
    return pl.DataFrame(rows, schema=schema, orient="row")


def violations(reading: Reading, parameters: Violations) -> Iterator[pl.DataFrame]:
    """Broken rules: one row per violation, sorted by time.

    A violation is not a fault if one of three flags is true: `superseded` (a later fact overtook a sweep), `explained`
    (the two users are linked ids of one person), `provisional` (the other topic has not been read far enough).
    `counterpart` is the other coupon, order or user involved, or null.
    """
    return reading.batches(_query("violations"), parameters.bound)


def violation_counts(reading: Reading, parameters: ViolationFilter) -> pl.DataFrame:
    """Number of violations of each rule: one row per violation code.

    `violations` counts only faults. `keys` counts the coupons, orders or campaigns that have such a fault. `explained`,
    `provisional` and `superseded` count the violations that are not faults.
    """
    return reading.frame(_query("violation_counts"), parameters.bound)


def campaign_violations(reading: Reading, parameters: OneCampaign) -> pl.DataFrame:
    """Rules broken by a campaign's coupons, including the rules between coupons and orders: one row per rule and
    currency.

    `cases` counts the violations, `coupons` and `users` the coupons and users involved. `discount_minor` sums the
    discounts of those of these coupons that are in use now. Each coupon counts once.
    """
    with reading.given(faults=_faults(reading, parameters.campaign, between=True)):
        return reading.frame(_query("campaign_violations"))


def campaign_users(reading: Reading, parameters: OneCampaign) -> pl.DataFrame:
    """People who own coupons of a campaign: one row per person. `got` counts their coupons, `used` those in use."""
    return reading.frame(_query("campaign_users"), parameters.bound)


def linked(reading: Reading, _: OfPast) -> pl.DataFrame:
    """How many users have linked ids (`users`), and how many ids are linked to these users (`ids`): one row."""
    return reading.frame(_query("linked"))


def campaign_segments(reading: Reading, parameters: OneCampaign) -> pl.DataFrame:
    """How the customers in each RFM segment responded to a campaign: one row per segment and currency.

    `got` counts customers who own a coupon of the campaign, and `used` those with one in use. The next two columns are
    about the customers counted in `used`: `came_again` is the share of them with more than one order, and
    `net_sales_minor` sums all their orders. The row with a null segment counts people who own a coupon of the campaign
    but have no order that stands (paid, and neither cancelled nor refunded in full).
    """
    theirs = campaign_users(reading, parameters)
    everyone = customers.in_segments(reading)
    used = pl.col("used") > 0
    by = everyone.join(theirs, on="user_id", how="left").group_by("segment", "currency")
    segments = by.agg(
        customers=pl.len(),
        got=pl.col("got").count(),
        used=used.sum(),
        came_again=(pl.col("orders") > 1).filter(used).mean(),
        net_sales_minor=pl.col("net_sales_minor").filter(used).sum(),
    )
    others = theirs.join(everyone, on="user_id", how="anti")
    nothing = others.select(customers=pl.len(), got=pl.len(), used=used.sum())
    return pl.concat([segments, nothing.filter(pl.col("customers") > 0)], how="diagonal_relaxed").sort(
        "used", "customers", "segment", "currency", descending=[True, True, False, False]
    )


_DUE: Final = ("type", "reason", "campaign_id", "currency")


def due(reading: Reading, parameters: Due) -> pl.DataFrame:
    """What a sweep up to `until` would append: one row per event type, reason, campaign and currency.

    `face_value_minor` sums the face values of the coupons that have one (null if none has one). `without_value` counts
    the coupons without a face value.
    """
    until = parameters.until or reading.rows("SELECT data_clock FROM ledger")[0][0]
    pieces = due_at(reading, until) if until else iter(())
    counted = [
        _counted(
            piece.with_columns(
                coupons=pl.lit(1, dtype=pl.Int64),
                without_value=pl.col("face_value_minor").is_null().cast(pl.Int64),
                face_value_minor=pl.col("face_value_minor").cast(pl.Int128),
            )
        )
        for piece in pieces
    ]
    numbers = {"coupons": pl.Int64(), "face_value_minor": pl.Int128(), "without_value": pl.Int64()}
    nothing = pl.DataFrame(schema={**dict.fromkeys(_DUE, pl.String()), **numbers})
    return as_integers(_counted(pl.concat([nothing, *counted], how="diagonal")).sort(_DUE, nulls_last=True))


def _counted(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of the coupons that are due, summed by the columns of `_DUE`. An amount is null if all its parts are
    unknown."""
    known = pl.when(pl.col("coupons").sum() > pl.col("without_value").sum()).then(pl.col("face_value_minor").sum())
    return rows.group_by(_DUE).agg(
        pl.col("coupons").sum(), known.alias("face_value_minor"), pl.col("without_value").sum()
    )


_EXPIRIES_BY: Final = {"reason": "reason", "campaign": "campaign_id", "channel": "channel"}


def expiries(reading: Reading, parameters: Expiries) -> pl.DataFrame:
    """Expired coupons: one row per currency and combination of values of the columns in `by`.

    `face_value_minor` sums the face values of the coupons that have one (null if none has one). `without_value` counts
    the coupons without a face value.

    Raises `NotThere`.
    """
    by = parameters.by
    if unknown := sorted(set(by) - set(_EXPIRIES_BY)) or ([] if by else ["nothing"]):
        raise NotThere(f"expiries by {', '.join(unknown)}: there is no such part; there are {', '.join(_EXPIRIES_BY)}")
    bound = parameters.bound
    del bound["by"]
    counts = reading.frame(_query("expiries"), bound | {f"by_{name}": name in by for name in _EXPIRIES_BY})
    return counts.drop(column for name, column in _EXPIRIES_BY.items() if name not in by)


def expiring(reading: Reading, parameters: Expiring) -> Iterator[pl.DataFrame]:
    """Usable coupons with an owner that expire in the `within_s` seconds after the data's clock: one row per coupon,
    the earliest expiry first."""
    return reading.batches(_query("expiring"), parameters.bound)


def diff(reading: Reading, parameters: Diff, progress: Progress) -> Iterator[pl.DataFrame]:
    """What happened to coupons between two points: one row per coupon with new events, sorted by id.

    `before` and `after` are the coupon's states at the two points (null: the coupon did not exist yet). `changed`
    contains the other values that changed, as JSON `[before, after]`. `types` and `event_ids` list the new events in
    canonical order.

    Both points are cuts. A cut is given by when events happened (`from_at`, `to_at`), by when they were recorded
    (`known_from`, `known_to`), by log positions (`from_positions`, `to_positions`), or by a combination of these. If
    the second point is not given, it is now.

    Raises `WrongQuestion`.
    """
    p = parameters
    earlier = Cut(p.from_at, p.known_from, positions_of(reading, p.from_positions))
    later = Cut(p.to_at, p.known_to, positions_of(reading, p.to_positions))
    if not earlier:
        raise WrongQuestion(
            "differences: from when is not said; give --from, --known-from or --from-position, or several of them"
        )
    for start, end, reversed_, names in (
        (p.from_at, p.to_at, p.from_at and p.to_at and p.from_at > p.to_at, ("--from", "--to")),
        (
            p.known_from,
            p.known_to,
            p.known_from and p.known_to and p.known_from > p.known_to,
            ("--known-from", "--known-to"),
        ),
        (p.from_positions, p.to_positions, _beyond(earlier, later), ("--from-position", "--to-position")),
    ):
        if start is None and end is not None:
            raise WrongQuestion(f"differences: {names[1]} without {names[0]}; give both")
        if reversed_:
            raise WrongQuestion(f"differences: {names[0]} is later than {names[1]}; exchange them")
    return differences(reading, earlier, later, p.campaign, progress)


def _beyond(earlier: Cut, later: Cut) -> bool:
    """Whether any position of the cut `earlier` is greater than that of the cut `later` in the same partition."""
    start, end = earlier.positions, later.positions
    return start is not None and end is not None and any(offset > end.get(at, 0) for at, offset in start.items())


def dead_letters(reading: Reading, parameters: DeadLetters) -> Iterator[pl.DataFrame]:
    """Dead letters, sorted by position: one row per record, with the reason why the record could not be folded, and
    details."""
    chosen = parameters.bound
    whole, limit = chosen.pop("whole"), chosen.pop("limit")
    bulk = "" if whole else ", key, value"
    return chosen_letters(reading, Chosen(**chosen), f"* EXCLUDE (row_id{bulk})", limit)


def histories(reading: Reading, parameters: Histories) -> pl.DataFrame:
    """All events of several coupons, including conflicts: one row per distinct content of an event, with the first
    position of this content in the log."""
    ids = list(parameters.coupons)
    hashes = stable_hash(pl.Series(ids, dtype=pl.String)).tolist()
    return reading.frame(_query("histories"), {"coupons": ids, "key_hashes": hashes})


def across(reading: Reading, parameters: Across) -> pl.DataFrame:
    """Which violations of the rules across coupons and between topics would appear (`change` = comes) or disappear
    (`change` = goes) if these coupons changed: one row per violation."""
    return changed(reading, parameters.coupons)


def dead_letter(reading: Reading, parameters: OneDeadLetter) -> pl.DataFrame:
    """One dead letter, with the record's key and value: one row.

    Raises `NotThere`.
    """
    topic, partition, offset = parameters.topic, parameters.partition, parameters.offset
    row = reading.frame(_query("dead_letter"), {"topic": topic, "log_partition": partition, "log_offset": offset})
    if not row.height:
        raise NotThere(f"dead letter {topic} {partition} {offset}: not there; see `coupon-ledger dead-letters list`")
    return row


def summary(reading: Reading, _: Parameters) -> pl.DataFrame:
    """Counts over the whole database, the data's clock and the last commit: one row.

    `read` counts the records that were read; `applied`, `repeats` and `conflicts` count what became of them.
    `partitions` lists the same counts for each partition, with its next offset. `violations` counts only faults.
    `dead_letters_open` counts the dead letters that nobody discarded. `outbox` counts the dead letters and events that
    the ledger still has to append to the log.
    """
    row = reading.frame(_query("summary"))
    # The join costs as much as all the rest, and hardly any database has discarded dead letters.
    [(discarded,)] = reading.rows("SELECT count(*) FROM discarded")
    settled = reading.rows(_query("dead_letters_settled"))[0][0] if discarded else 0
    return row.with_columns(dead_letters_open=pl.col("dead_letters") - settled)


def totals(reading: Reading, _: OfPast) -> pl.DataFrame:
    """Numbers of coupons, orders, campaigns, users, events and violations, and the data's clock: one row. `states`
    lists the number of coupons by state, `broken` the number of violations by rule."""
    return reading.frame(_query("totals"))


def log_identity(reading: Reading, _: Parameters) -> pl.DataFrame:
    """From which log the database was read: one row per partition, with the id of the topic and the last record that
    was read."""
    return read_log(reading).rows()


def oddities(reading: Reading, _: Parameters) -> pl.DataFrame:
    """Signs that a producer is set up wrongly: one row per topic.

    `events` counts the valid events that were read. `other_keys` counts events whose record has the wrong key. `skewed`
    counts events whose `occurred_at` is far from `recorded_at`, and `in_1970` those of them whose `occurred_at` is in
    1970.
    """
    return oddities_of(reading)


def standing(reading: Reading, _: Parameters) -> pl.DataFrame:
    """The settings with which the database was built: one row, with the data's clock. `grace_minutes` is the grace.
    `versions` lists the name and version of each projection, `alert_rules` the alert rules, and `alerts_until` up to
    when they have been evaluated, by topic."""
    return reading.frame(_query("standing"))


def digest(reading: Reading, _: Parameters) -> pl.DataFrame:
    """Digests of all tables, for comparing two databases: one row per table. `facts` is the digest of the business
    columns, `full` that of all columns, including positions and book-keeping."""
    in_place.complete(reading)
    schema = {"table": pl.String, "rows": pl.Int64, "facts": pl.String, "full": pl.String}
    return pl.DataFrame([asdict(d) for d in digests_of.digests(reading)], schema=schema)


def digest_buckets(reading: Reading, parameters: DigestBuckets) -> pl.DataFrame:
    """The full digest of each bucket of rows of one table, for finding where two databases differ: one row per
    bucket."""
    in_place.complete(reading)
    return digests_of.buckets(reading, parameters.table)


def digest_rows(reading: Reading, parameters: DigestRows) -> pl.DataFrame:
    """The rows of one bucket of a table. `digest-buckets` lists the buckets."""
    in_place.complete(reading)
    return digests_of.rows_of(reading, parameters.table, parameters.bucket)


def audit(reading: Reading, parameters: Audit) -> pl.DataFrame:
    """The result of one audit: one row.

    `asked` is the question that the audit answers. `offenders` is the number of rows that break the invariant, and
    `examples` contains the first `limit` of them as JSON.

    Raises `NotThere`.
    """
    name = parameters.name
    if name not in audits.AUDITS:
        raise NotThere(f"audit {name}: there is none of that name; there are {', '.join(audits.AUDITS)}")
    offenders, shown = audits.run(reading, name, parameters.limit or 0)
    row = {"audit": name, "asked": audits.question_of(name), "offenders": offenders, "examples": audits.as_json(shown)}
    return pl.DataFrame([row], schema_overrides={"offenders": pl.Int64})


_EVIDENCE: Final = {
    "coupons": "SELECT * FROM coupons WHERE key_hash BETWEEN $first AND $last",
    "events": "SELECT * FROM coupon_events WHERE key_hash BETWEEN $first AND $last",
    "conflicts": "SELECT * FROM coupon_conflicts WHERE key_hash BETWEEN $first AND $last",
    "violations": (
        "SELECT * FROM violations WHERE topic = $coupons AND scope = 'coupon' AND key_hash BETWEEN $first AND $last"
    ),
}


def evidence(reading: Reading, parameters: Evidence) -> pl.DataFrame:
    """All data of the coupons whose key hash is between `first` and `last`, for an audit outside the database: one row.

    The row has lists of the coupons' rows, events, conflicts and violations. If `set_aside` is true, it also lists the
    positions of all valid coupon events among the dead letters: those whose folding failed, and those whose
    `occurred_at` is too far from `recorded_at`.
    """
    span = {"first": parameters.first, "last": parameters.last}
    lists = {
        name: reading.frame(query, span | ({"coupons": COUPON} if "$coupons" in query else {}))
        for name, query in _EVIDENCE.items()
    }
    lists["set_aside"] = reading.frame(_query("set_aside"), {"topic": COUPON, "wanted": parameters.set_aside})
    return pl.DataFrame({name: _as_list(_without_categories(rows)) for name, rows in lists.items()})


def campaign_targets(reading: Reading, parameters: OneCampaign) -> pl.DataFrame:
    """The targets set for a campaign: one row per metric and currency. If a target was set several times, the last one
    in canonical order counts. Targets of ratios are in basis points."""
    return reading.frame(_query("campaign_targets"), parameters.bound)


def _without_categories(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.cast({pl.Categorical: pl.String, pl.Enum: pl.String})


def _query(name: str) -> str:
    return sql(__package__, name)


def _as_list(frame: pl.DataFrame) -> pl.Series:
    """A column with a single value: the rows of `frame` as a list of structs."""
    return frame.select(pl.struct(pl.all()).implode()).to_series()
