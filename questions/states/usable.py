"""Whether coupons can be used: for order systems, which ask before they accept one as payment.

The answer is what the rules of the lifecycle would say of a `used` event at that instant: its violation codes are the
reasons. To these come reasons of the order, which is over, or has another currency. Nothing is reserved: two orders
that ask at once may both get the answer yes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import polars as pl

from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.fold import FIRST_CARRIED
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.questions.states.parameters import Usable

_OPEN: Final = frozenset({"issued", "claimed", "reserved"})
_ONE_BY_ONE: Final = 12
"""Up to so many keys are looked up one by one."""
_SCHEMA: Final[dict[str, Any]] = {
    "coupon_id": pl.String,
    "order_id": pl.String,
    "user_id": pl.String,
    "usable": pl.Boolean,
    "reasons": pl.List(pl.String),
    "detail": pl.String,
    "state": pl.String,
    "owner": pl.String,
    **FIRST_CARRIED,
}


class _Check(NamedTuple):
    """What one check is about, with what is known of the order."""

    coupon: str
    order: str | None
    user: str | None
    gross_minor: int | None
    currency: str | None
    order_over: bool


def usable(reading: Reading, parameters: Usable) -> pl.DataFrame:
    """Whether coupons can be used: one row per check, in the order of the checks.

    `usable`: whether a use at `when` would break no rule. `reasons`: the code of each rule that it would break;
    `not_there` if no event of the coupon was consumed, `order_over` if the order was cancelled or refunded in full,
    `other_currency` if the order has another currency than the coupon. `detail`: the first reason in a sentence.
    """
    coupons = _coupons(reading, [coupon for coupon, *_ in parameters.checks])
    orders = _orders(reading, [order for _, order, *_ in parameters.checks if order])
    checks = [_check(one, orders) for one in parameters.checks]
    owners = {check: coupons[check.coupon]["owner"] for check in checks if check.coupon in coupons}
    strange = {(owner, check.user) for check, owner in owners.items() if owner and check.user and owner != check.user}
    persons = _persons(reading, {one for pair in strange for one in pair})
    rows = []
    for check in checks:
        row = coupons.get(check.coupon)
        reasons = dict(_reasons(persons, row, check, parameters.when))
        first = next(iter(reasons.values()), None)
        rows.append(
            {
                **(row or {}),
                "coupon_id": check.coupon,
                "order_id": check.order,
                "user_id": check.user,
                "usable": not reasons,
                "reasons": list(reasons),
                "detail": None if first is None else str(first),
            }
        )
    return pl.DataFrame([{name: row.get(name) for name in _SCHEMA} for row in rows], schema=_SCHEMA)


def _check(asked: tuple[str, str | None, str | None, int | None], orders: Mapping[str, Mapping[str, Any]]) -> _Check:
    coupon, order, user, gross_minor = asked
    known = orders.get(order or "", {})
    return _Check(
        coupon,
        order,
        user or known.get("order_user"),
        known.get("gross_minor") if gross_minor is None else gross_minor,
        known.get("order_currency"),
        bool(known.get("order_over")),
    )


def _coupons(reading: Reading, coupons: list[str]) -> dict[str, dict[str, Any]]:
    return {row["coupon_id"]: row for row in _with_hashes(reading, "usable", coupons)}


def _orders(reading: Reading, orders: list[str]) -> dict[str, dict[str, Any]]:
    return {row["order"]: row for row in _with_hashes(reading, "usable_orders", orders)}


def _with_hashes(reading: Reading, query: str, keys: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of the query for these keys, and possibly for others with the same hashes."""
    hashes: list[int] = stable_hash(pl.Series(sorted(set(keys)), dtype=pl.String)).tolist()
    text = sql(__package__, query)
    if not hashes:
        return
    if len(hashes) > _ONE_BY_ONE:
        listed = text.replace("key_hash = $key_hash", "key_hash IN (SELECT unnest($hashes::BIGINT[]))")
        yield from reading.frame(listed, {"hashes": hashes}).iter_rows(named=True)
        return
    # For an equality, DuckDB looks only at the column of hashes; for a list, it reads all columns.
    union = "\nUNION ALL\n".join(text.replace("$key_hash", f"{int(one)}") for one in hashes)
    yield from reading.frame(union).iter_rows(named=True)


def _reasons(
    persons: Mapping[str, str], row: dict[str, Any] | None, check: _Check, when: datetime
) -> Iterator[tuple[str, Note]]:
    """Why the coupon cannot be used: codes with their sentences, the most telling first."""
    if row is None:
        yield "not_there", note("coupon {coupon} is not known", coupon=check.coupon)
        return
    state, other_order = row["state"], row["on_order"] not in (None, check.order)
    if state not in _OPEN:
        yield f"used_when_{state}", note("coupon {coupon} is {state:word}", coupon=check.coupon, state=state)
    elif state == "reserved" and other_order:
        yield "wrong_order", note("coupon {coupon} is reserved for another order", coupon=check.coupon)
    if row["owner"] is None and state == "issued":
        yield "no_owner", note("nobody has claimed coupon {coupon}", coupon=check.coupon)
    elif row["owner"] is not None and check.user is not None and not _same(persons, row["owner"], check.user):
        yield "wrong_user", note("coupon {coupon} belongs to another user", coupon=check.coupon)
    if row["valid_from"] is not None and when < row["valid_from"]:
        yield "outside_validity", note("coupon {coupon} is valid from {at:instant} on", coupon=check.coupon,
                                       at=row["valid_from"])  # fmt: skip
    elif row["valid_until"] is not None and when > row["valid_until"]:
        yield "outside_validity", note("coupon {coupon} was valid until {at:instant}", coupon=check.coupon,
                                       at=row["valid_until"])  # fmt: skip
    if check.order_over:
        yield "order_over", note("order {order} was cancelled or refunded", order=check.order)
    least, gross_minor = row["min_spend_minor"], check.gross_minor
    if least is not None and gross_minor is not None and gross_minor < least:
        yield "below_min_spend", note("the order is below the minimum spend of {least:money}",
                                      least=(least, row["currency"] or "XXX"))  # fmt: skip
    if check.currency is not None and row["currency"] not in (None, check.currency):
        yield "other_currency", note("the coupon is in {currency}, the order in {other}", currency=row["currency"],
                                     other=check.currency)  # fmt: skip


def _same(persons: Mapping[str, str], owner: str, user: str) -> bool:
    """Whether the two user ids are equal, or linked ids of one person."""
    return owner == user or persons.get(owner, owner) == persons.get(user, user)


def _persons(reading: Reading, users: set[str]) -> dict[str, str]:
    """The persons of those of these user ids that are linked with others."""
    if not users:
        return {}
    query = "SELECT user_id, person FROM persons WHERE user_id IN (SELECT unnest($users::VARCHAR[]))"
    return dict(reading.frame(query, {"users": sorted(users)}).iter_rows())
