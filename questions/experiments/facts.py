"""The facts from which an experiment is computed: who was assigned to which arm, and what these people bought before
and after the start.

Invariants: a person counts once, with all linked ids, in the arm of the first assignment. Amounts in different
currencies are never added up. For everything that is left out or assumed, a warning says how many cases there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from coupon_ledger.analysis import lift
from coupon_ledger.ledger.errors import NotThere, WrongQuestion
from coupon_ledger.ledger.words import Note
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.signature import key_hash
from coupon_ledger.questions.metrics.money import goods_rates as goods
from coupon_ledger.questions.metrics.periods import later

LEAST_BEFORE: Final = timedelta(days=14)
"""Minimum length of the comparison time before the window (see `Window`)."""

_ONE_APPEND: Final = timedelta(seconds=1)
"""Events recorded within this time may have been appended together."""
_MOMENT: Final = timedelta(microseconds=1)
_SILENT: Final = timedelta(days=1)
"""After this long without an order, orders are assumed to be no longer published."""
_AMOUNTS: Final = ("net_minor", "margin_minor", "discount_minor", "coupon_margin_minor")
_MARGINS: Final = ("margin_minor", "coupon_margin_minor")
_COUNTS: Final = ("orders", "coupon_orders")
_WRONG: Final = ("without_cost", "over_refunded", "of_nothing", "negative_cost")


@dataclass(frozen=True, slots=True)
class Caveat:
    """A warning. `code` is for machines; `note` says what the problem is and how it is treated."""

    code: str
    note: Note


def caveat(code: str, template: str, /, **values: Any) -> Caveat:
    return Caveat(code, Note(template, values))


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which orders count for the effect: those paid from `start` to `end`.

    `planned_end` is some days after `expiry`. `end` is the planned end, or the end of the known orders if that is
    earlier. `before` is the start of the comparison time, which ends at `start` and is as long as the window, but at
    least 14 days.
    """

    start: datetime
    expiry: datetime
    planned_end: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return max(self.end - self.start, LEAST_BEFORE)

    @property
    def before(self) -> datetime:
        return self.start - self.length

    @property
    def over(self) -> bool:
        return self.end == self.planned_end

    @property
    def elapsed(self) -> float:
        """The part of the planned window for which orders are known, from 0 to 1."""
        return (self.end - self.start) / (self.planned_end - self.start)


def _part(text: str, of: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise WrongQuestion(f"{of}: is no part of one; write it as 0.25")
    return value


def parts(text: str, of: str) -> dict[str, float]:
    """Parse comma-separated `NAME=PART`. Returns the parts (0 to 1) by name. `of`: what the text describes (such as
    `shares`), used in errors. Raises `WrongQuestion`."""
    shares = {}
    for one in text.split(","):
        name, _, value = one.rpartition("=")
        if not name:
            raise WrongQuestion(f"{of} {one}: is no NAME=PART; write it as control=0.1")
        shares[name] = _part(value, f"{of} {one}")
    return shares


@dataclass(frozen=True)
class Campaign:
    """A campaign. `row`: the row of campaign.sql for this campaign."""

    campaign_id: str
    row: Mapping[str, Any]

    def known_until(self, end: datetime) -> datetime:
        """`end`, if orders are known up to then; the last order may be a day earlier. Otherwise, the end of the known
        orders."""
        clock: datetime = self.row["data_clock"]
        last = orders_end(clock, self.row["last_order_at"])
        assert last is not None  # the campaign has an event or a coupon, so there is a clock
        return (
            end if min(clock, last + _SILENT) >= end else min(end, last + _MOMENT)
        )  # includes the orders of that instant


def orders_end(data_clock: datetime | None, last_order_at: datetime | None) -> datetime | None:
    """The instant up to which orders are known: the data's clock, or the last order if it is a day or more before the
    clock. Otherwise, missing data would look like a drop in sales. None if there are no data."""
    if data_clock is None or last_order_at is None or last_order_at > data_clock - _SILENT:
        return data_clock
    return last_order_at


def campaign_of(reading: Reading, campaign: str) -> Campaign:
    """The campaign with this id. Raises `NotThere` if there is no event and no coupon of this campaign."""
    row = reading.frame(_query("campaign"), {"campaign": campaign, "key_hash": key_hash(campaign)}).row(0, named=True)
    if not (row["known"] or row["first_given_at"]):
        raise NotThere(f"campaign {campaign}: has no event and no coupon; check the id, or run `consume`")
    return Campaign(campaign, row)


def window_of(
    of: Campaign, start: datetime | None, expiry: datetime | None, after_days: int, begins: datetime | None
) -> Window:
    """The window of a campaign. `start`, `expiry`: if set, they replace the instants that the campaign states.
    `after_days`: how many days after the expiry the window ends. `begins`: the start, if `start` is None and the
    campaign states no `claim_from`.

    Raises `NotThere`, `WrongQuestion`.
    """
    starts = start or of.row["claim_from"] or begins
    expires = expiry or of.row["valid_until"] or of.row["claim_until"] or of.row["ended_at"]
    if starts is None:
        raise WrongQuestion(
            Note("campaign {campaign}: nothing says when it begins; say it with --start", {"campaign": of.campaign_id})
        )
    if expires is None:
        raise WrongQuestion(
            Note(
                "campaign {campaign}: nothing says when its coupons expire; say it with --expiry",
                {"campaign": of.campaign_id},
            )
        )
    if expires <= starts:
        raise WrongQuestion(
            Note(
                "campaign {campaign}: its coupons expire ({expires:instant}) before it starts ({starts:instant});"
                " say the"
                " right instants with --start and --expiry",
                {"campaign": of.campaign_id, "expires": expires, "starts": starts},
            )
        )
    end = later(expires, timedelta(days=after_days))  # "for ever" is the last day of the year 9999
    known = of.known_until(end)
    if known <= starts:
        raise NotThere(
            Note(
                "campaign {campaign}: has not begun where the orders on record end; ask again later",
                {"campaign": of.campaign_id},
            )
        )
    return Window(starts, expires, end, known)


# --- sales


@dataclass(frozen=True)
class Sales:
    """Sales in one currency. `rows`: one row per person and span of time in which the person had orders. `cost_known`:
    whether all orders have a known cost of goods."""

    rows: pl.DataFrame
    currency: str | None
    warnings: tuple[Caveat, ...]
    cost_known: bool

    def of(self, people: pl.Series, span: str) -> pl.DataFrame:
        """The sales of `people` in the span with this name: one row per person, in the order of `people`. A person
        without orders has zeros. The margins are null if the cost of any order is unknown."""
        mine = self.rows.filter(pl.col("span") == span)
        joined = pl.DataFrame({"person": people}).join(mine, on="person", how="left", maintain_order="left")
        filled = joined.with_columns(pl.col(*_AMOUNTS, *_COUNTS).fill_null(0))
        return filled if self.cost_known else filled.with_columns(pl.lit(None, pl.Float64).alias(n) for n in _MARGINS)


def sales(
    reading: Reading,
    campaign: str,
    spans: Mapping[str, tuple[datetime, datetime]],
    goods_rates: Mapping[str, int] | None,
    currency: str | None,
    among: pl.Series | None = None,
    ids: bool = False,
) -> Sales:
    """The sales in each of `spans` (start and end by name). `among`: the people whose orders count (None: everyone).
    `ids`: whether to include the ids of the orders. Raises `WrongQuestion` if there are several currencies and
    `currency` is None."""
    bounds = pl.DataFrame([(name, *span) for name, span in spans.items()], schema=_SPANS, orient="row")
    chosen = pl.DataFrame({"person": pl.Series([], dtype=pl.String) if among is None else among})
    bound = {
        "campaign": campaign,
        "goods_rates": goods(goods_rates),
        "everyone": among is None,
        "ids": ids,
        "first": bounds["first"].min(),
        "last": bounds["last"].max(),
    }
    with reading.given(spans=bounds, chosen=chosen):
        rows = reading.frame(_query("sales"), bound)
    return _of_one_currency(campaign, rows, currency)


_SPANS: Final[dict[str, Any]] = {"span": pl.String, "first": pl.Datetime("us"), "last": pl.Datetime("us")}


def _of_one_currency(campaign: str, rows: pl.DataFrame, currency: str | None) -> Sales:
    currencies = rows["currency"].drop_nulls().unique().sort().to_list()
    warnings = []
    if currency is None and len(currencies) > 1:
        raise WrongQuestion(
            f"{f'campaign {campaign}' if campaign else 'plan'}: its people's orders are in {', '.join(currencies)},"
            " which are never added up; ask of one with --currency, then of the next"
        )
    chosen = currency or (currencies[0] if currencies else None)
    others = rows.filter(pl.col("currency").ne_missing(pl.lit(chosen)))
    if others.height:
        left = others["person"].n_unique()
        warnings.append(
            caveat(
                "other_currencies",
                "what {n:count} people bought in other currencies than {chosen} is left out",
                n=left,
                chosen=chosen,
            )
        )
    mine = rows.filter(pl.col("currency").eq_missing(pl.lit(chosen)))
    wrong = {name: int(mine[name].sum()) for name in _WRONG}
    warnings += [caveat(name, text, n=wrong[name]) for name, text in _RULES.items() if wrong[name]]
    return Sales(mine, chosen, tuple(warnings), not wrong["without_cost"])


_RULES: Final = {
    "without_cost": "{n:count} orders do not state a cost of goods: margin and ROI are unknown; give a"
    " rate with --goods-rate 70 (or CATEGORY=70)",
    "over_refunded": "{n:count} orders were refunded by more than was paid: they count as refunded in"
    " full, and so not as orders",
    "of_nothing": "{n:count} orders have a payment of zero: they count as orders without sales",
    "negative_cost": "{n:count} orders have a negative cost of goods: it is used as stated",
}


# --- arms


@dataclass(frozen=True)
class Arms:
    """The arms of an experiment. `people`: one row per person that counts, with the person's arm and coupons of the
    campaign. `counts`: the number of people assigned, by arm. `shares`: the planned shares by arm, empty if unknown.
    `holders`: one row per person who got a coupon of the campaign, assigned or not."""

    people: pl.DataFrame
    counts: Mapping[str, int]
    shares: Mapping[str, float]
    holders: pl.DataFrame
    warnings: tuple[Caveat, ...]


def arms_of(reading: Reading, of: Campaign, window: Window, shares: str | None, control: str) -> Arms:
    """The arms of a campaign. A person counts if the assignment was before the start, and before the person got a
    coupon. `shares`: the planned shares as text; None means those in the log. `control`: the name of the control arm.
    Raises `NotThere` if there is no control or no treatment."""
    bound = {"campaign": of.campaign_id, "key_hash": key_hash(of.campaign_id)}
    assigned = reading.frame(_query("assigned"), bound)
    holders = reading.frame(_query("holders"), {"campaign": of.campaign_id})
    _check_arms(of, assigned, control)
    joined = assigned.join(holders, on="person", how="left", maintain_order="left")
    late = (pl.col("assigned_at") > window.start) | (pl.col("first_coupon_at") < pl.col("assigned_at"))
    counting = joined.filter(~late.fill_null(False)).with_columns(pl.col("coupons", "claimed").fill_null(0))
    # Check again with the people that are left.
    _check_arms(of, counting, control)
    counts = dict(assigned.group_by("arm").len().sort("arm").iter_rows())
    planned = parts(shares, "shares") if shares else _planned(reading, bound)
    if not set(counts) <= set(planned):
        planned = {}
    outsiders = holders.join(assigned, on="person", how="anti").height
    warnings = _arm_warnings(joined, counting, control, outsiders, planned)
    return Arms(counting, counts, planned, holders, tuple(warnings))


def sample_ratio(arms: Arms) -> float:
    """The p of a sample ratio mismatch: the smaller of two, for all people assigned and for the people that count,
    since people may be missing from either. NaN if the planned shares are unknown."""
    counting = dict(arms.people.group_by("arm").len().iter_rows())
    ps = [lift.sample_ratio(counts, arms.shares) for counts in (arms.counts, counting)]
    return ps[1] if math.isnan(ps[0]) else min(ps)


def _check_arms(of: Campaign, people: pl.DataFrame, control: str) -> None:
    arms = set(people["arm"])
    if not arms:
        raise NotThere(
            Note(
                "campaign {campaign}: nobody was assigned to an arm before it began; draw arms with `experiment assign`"
                " next time, and see `experiment compare` for the weaker comparison without",
                {"campaign": of.campaign_id},
            )
        )
    if control not in arms:
        raise NotThere(
            f"campaign {of.campaign_id}: has no arm {control}; there are {', '.join(sorted(arms))}; say which one got"
            " nothing with --control-arm"
        )
    if len(arms) < 2:
        raise NotThere(f"campaign {of.campaign_id}: everybody is in {control}; there is no treatment to compare")


def _planned(reading: Reading, bound: Mapping[str, Any]) -> dict[str, float]:
    rows = reading.frame(_query("shares"), bound).iter_rows()
    return {arm: bp / 10_000 for arm, bp in rows if bp and bp > 0}


def _arm_warnings(
    joined: pl.DataFrame, counting: pl.DataFrame, control: str, outsiders: int, planned: Mapping[str, float]
) -> Iterator[Caveat]:
    twice = joined.filter(pl.col("arms") > 1).height
    if twice:
        yield caveat(
            "overlapping_arms", "{n:count} people were assigned to several arms: the first one stands", n=twice
        )
    late = joined.height - counting.height
    if late:
        yield caveat(
            "assigned_late",
            "{n:count} people were assigned after the start, or after they had a coupon: they are left out",
            n=late,
        )
    leaked = counting.filter((pl.col("arm") == control) & (pl.col("coupons") > 0)).height
    if leaked:
        whole = counting.filter(pl.col("arm") == control).height
        yield caveat(
            "contamination",
            "{n:count} of {whole:count} people in {control:word} got a coupon nevertheless: they"
            " stay in {control:word}, which makes the effect look smaller than it is",
            n=leaked,
            whole=whole,
            control=control,
        )
    if outsiders:
        yield caveat(
            "outsiders",
            "{n:count} people got a coupon and are in no arm: what they bought, and their discount, is left out, while"
            " the booked cost is borne by the arms alone",
            n=outsiders,
        )
    if not planned:
        yield caveat(
            "shares_unknown",
            "the shares with which the arms were drawn are not on record: give them with --shares"
            " to check the arms' sizes",
        )


def more_warnings(reading: Reading, of: Campaign, window: Window, arms: Arms, sold: Sales) -> Iterator[Caveat]:
    """Further caveats about an experiment, on the data of the campaign, its window, its arms and their sales."""
    campaign = {"campaign": of.campaign_id}
    if not window.over:
        yield caveat(
            "not_over",
            "the window lasts until {planned:instant} and the orders on record until"
            " {end:instant}: before the end, rely on the sequential interval only",
            planned=window.planned_end,
            end=window.end,
        )
    first = of.row["first_order_at"]
    if first is not None and first > window.before:
        yield caveat(
            "short_history",
            "orders are on record only from {first:instant}, but the comparison time begins at"
            " {before:instant}: CUPED reduces the variance less",
            first=first,
            before=window.before,
        )
    if of.row["first_given_at"] is not None and of.row["first_given_at"] < window.before:
        yield caveat("given_early", "coupons were issued before the comparison time began: check --start")
    first_sale: Any = sold.rows.filter(pl.col("span") == "window")["first_recorded_at"].min()
    learned = 0 if first_sale is None else arms.people.filter(pl.col("recorded_at") > first_sale + _ONE_APPEND).height
    if learned:
        yield caveat(
            "recorded_late",
            "the arm of {n:count} people was recorded after orders of the window were known: they"
            " count, but a late message looks the same as an arm chosen in hindsight",
            n=learned,
        )
    with reading.given(chosen=arms.people.select("person")):
        others = reading.frame(_query("elsewhere"), campaign | {"first": window.before, "last": window.end})
        unknown = reading.frame(_query("unknown_coupons"), {"first": window.start, "last": window.end})["orders"][0]
    if others["people"][0]:
        yield caveat(
            "other_experiments",
            "{n:count} people were in arms of {campaigns:count} other campaigns at the time: the effects add up",
            n=others["people"][0],
            campaigns=others["campaigns"][0],
        )
    lost = reading.frame(_query("unknown_uses"), campaign)
    if lost.height:
        amounts = [
            Note("{discount:money}", {"discount": amount})
            for amount in lost.select("discount_minor", "currency").iter_rows()
        ]
        yield caveat(
            "uses_without_order",
            "{n:count} coupons are used on orders that are not paid or do not stand (cancelled,"
            " refunded in full): their discount of {discounts} is left out",
            n=int(lost["coupons"].sum()),
            discounts=amounts,
        )
    if unknown:
        yield caveat(
            "unknown_coupons", "{n:count} orders name a coupon that no event created: they count as sales", n=unknown
        )


@dataclass(frozen=True)
class Booked:
    """Costs booked on a campaign, in one currency, without the discount. `kinds`: minor units by kind of cost."""

    kinds: Mapping[str, int]
    warnings: tuple[Caveat, ...]

    @property
    def total(self) -> int:
        return sum(self.kinds.values())


def booked(reading: Reading, campaign: str, currency: str | None) -> Booked:
    rows = reading.frame(_query("booked"), {"campaign": campaign, "key_hash": key_hash(campaign)})
    warnings = []
    if currency is None and rows["currency"].n_unique() == 1:
        currency = rows["currency"][0]
    others = rows.filter(pl.col("currency").ne_missing(pl.lit(currency)))
    if others.height:
        sums = others.group_by("currency").agg(pl.sum("amount_minor")).sort("currency")
        left = [Note("{cost:money}", {"cost": (amount, of)}) for of, amount in sums.iter_rows()]
        warnings.append(caveat("other_currencies", "cost booked in other currencies is left out: {costs}", costs=left))
    mine = rows.filter(pl.col("currency").eq_missing(pl.lit(currency)))
    if odd := int(mine["not_positive"].sum()):
        warnings.append(
            caveat("booked_not_positive", "{n:count} bookings of cost are zero or negative: they are added up", n=odd)
        )
    kinds = dict(mine.group_by("cost_kind").agg(pl.sum("amount_minor")).sort("cost_kind").iter_rows())
    if not kinds:
        warnings.append(caveat("no_cost", "no cost is booked on the campaign: ROI counts the discount alone"))
    elif sum(kinds.values()) < 0:
        warnings.append(caveat("negative_booked", "the sum of the booked cost is negative: ROI is unknown"))
    return Booked(kinds, tuple(warnings))


def attribute(reading: Reading, name: str) -> pl.DataFrame:
    """The values of the profile attribute `name`: one row per person, with `person` and `value`."""
    path = '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return reading.frame(_query("attribute"), {"path": path})


def _query(name: str) -> str:
    return sql(__package__, name)
