"""Faults that are in the terms of a campaign: its stock, its budget, its rule."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.arrival import Frames
from coupon_ledger.cli.sources.faults.hosts import Host, campaigns, new_campaign
from coupon_ledger.cli.sources.faults.labels import Label
from coupon_ledger.cli.sources.faults.lives import baskets, buy, claim, customers
from coupon_ledger.cli.sources.faults.mix import INSTANT, Mix, bounds, instants, naive
from coupon_ledger.cli.sources.faults.undone import of_coupons, undo
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON
from coupon_ledger.ledger.words import note


def over_issue(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    quantity: int = 200,
    beyond: int = 100,
    hours: float = 4,
) -> tuple[Frames, Label]:
    """The stock of a new campaign does not hold: ordinary customers go on to claim after it is used up.

    `quantity`: the stock; `beyond`: claims after it; `hours`: how long all claims take. Both numbers are reduced alike
    if the stream has fewer customers. The fault starts with the first claim beyond the stock.
    """
    mix = Mix("over-issue", frames, random)
    begun = mix.begin(at, timedelta(hours=hours))
    people = customers(mix, quantity + beyond)
    stock = people.height * quantity // (quantity + beyond)
    host = new_campaign(mix, begun, begun + timedelta(days=3), stock)
    seconds = np.sort(random.uniform(0, hours * 3_600, people.height))
    claims = people.with_columns(at=instants(begun, seconds))
    claim(mix, host, claims.head(stock), context=True)
    extra = claim(mix, host, claims.slice(stock))
    first, last = bounds(extra["at"])
    keys = {"user_id": extra["user_id"], "coupon_id": extra["coupon_id"]}
    return mix.label(first, last, host.campaign_id, host.face_minor * extra.height, keys)


def budget_runaway(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    budget_uses: int = 80,
    planned_days: float = 10,
    times: float = 2.5,
    hours: float = 6,
) -> tuple[Frames, Label]:
    """A new campaign spends its budget as planned for a day, then within hours all of it and more.

    `budget_uses`: for how many uses the budget is enough; `planned_days`: for how long it should be; `times`: what is
    spent in the end, relative to the budget; `hours`: how long the fast spending takes. The money at stake: what is
    spent above the budget.
    """
    mix = Mix("budget-runaway", frames, random)
    start = mix.begin(at, timedelta(hours=hours + 1))
    calm, fast = round(budget_uses / planned_days), round(budget_uses * times)
    begun = start - timedelta(days=1)
    host = new_campaign(mix, begun, begun + timedelta(days=planned_days), 4 * fast, budget_uses * 1_000)
    people = customers(mix, calm + fast)
    calm = min(calm, people.height // 4)
    before = random.uniform(0, 20 * 3_600, calm)
    after = 86_400 + np.sort(random.beta(2, 2, people.height - calm)) * hours * 3_600
    claims = people.with_columns(at=instants(begun, np.concatenate([before, after])))
    _claim_and_use(mix, claims.head(calm), host, context=True)
    orders = _claim_and_use(mix, claims.slice(calm), host)
    first, last = bounds(orders["at"])
    keys = {name: orders[name] for name in ("user_id", "coupon_id", "order_id")}
    above = (orders.height + calm - budget_uses) * host.face_minor
    return mix.label(first, last, host.campaign_id, max(0, above), keys)


def _claim_and_use(mix: Mix, claims: pl.DataFrame, host: Host, context: bool = False) -> pl.DataFrame:
    coupons = claim(mix, host, claims, context)
    uses = coupons.with_columns(
        pl.col("at") + timedelta(minutes=10),
        gross_minor=baskets(mix, coupons.height, host.min_spend_minor),
        discount_minor=pl.lit(host.face_minor),
    )
    return buy(mix, uses, context)


def use_rate_collapse(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    times: int = 20,
    drop: float = 0.9,
    hours: float | None = None,
) -> tuple[Frames, Label]:
    """Somebody edits the rule of a campaign, and its coupons are hardly used any more, until the edit is taken back.

    The campaign is the one with the most uses before and meanwhile; its coupons keep the minimum spend that they were
    created with. `times`: by what its minimum spend is multiplied (from 5,000 minor units if it had none); `drop`: the
    share of the uses, and of their orders, that do not come; `hours`: until the rule is repaired, or the stretch
    ends; by default 36, or longer if coupons are used so seldom that nobody could notice. The money at stake: what
    was not sold. Raises `LedgerError` if no coupon is used meanwhile.
    """
    mix = Mix("use-rate-collapse", frames, random)
    known = campaigns(mix).filter(~pl.col("assigned"))
    uses = frames[COUPON].filter(type="used").unique("event_id", maintain_order=True).drop("campaign_id", strict=False)
    uses = uses.join(of_coupons(frames[COUPON]).select("coupon_id", "campaign_id"), on="coupon_id")
    uses = uses.join(known.select("campaign_id"), on="campaign_id", how="semi")
    lasting = timedelta(hours=hours if hours is not None else _long_enough(uses))
    starts = [mix.begin(at, lasting, busy=True) for _ in range(1 if at else _TRIES)]
    start, name = max(((s, _most_used(uses, s, lasting)) for s in starts), key=lambda found: found[1][1])
    if not name[1]:
        what = "fault {kind}: no coupon is used in the {hours:count} hours from {at:instant}; choose another start"
        raise LedgerError(note(what, kind=mix.kind, hours=round(lasting / timedelta(hours=1)), at=naive(start)))
    return _collapsed(mix, uses.filter(campaign_id=name[0]), start, min(start + lasting, mix.last), times, drop)


_TRIES: Final = 8
_NOTICEABLE: Final = 60


def _long_enough(uses: pl.DataFrame) -> float:
    """How many hours it takes until so many coupons of a large campaign are used that their lack is noticeable."""
    at = pl.col("occurred_at")
    rates = uses.group_by("campaign_id").agg(pl.len() / ((at.max() - at.min()).dt.total_hours() + 24)).to_series(1)
    return max(36.0, _NOTICEABLE / float(rates.sort()[-1])) if len(rates) else 36.0


def _most_used(uses: pl.DataFrame, start: datetime, lasting: timedelta) -> tuple[str, int]:
    """The campaign with the most uses in the time `lasting`, and in the same time before: of these two numbers, the
    smaller one counts. What was not used before cannot be used less. The number is that of the uses after `start`."""
    at = pl.col("occurred_at")
    before = at.is_between(start - lasting, start, closed="left").sum()
    after = at.is_between(start, start + lasting, closed="left").sum()
    counts = uses.group_by("campaign_id").agg(before=before, after=after)
    best = counts.sort(pl.min_horizontal("before", "after"), "after", "campaign_id", descending=True).head(1).rows()
    return (best[0][0], best[0][2]) if best else ("", 0)


def _collapsed(
    mix: Mix, uses: pl.DataFrame, start: datetime, end: datetime, times: int, drop: float
) -> tuple[Frames, Label]:
    """`uses`: all uses of the campaign."""
    name = str(uses["campaign_id"][0])
    usual = campaigns(mix).filter(campaign_id=name)["min_spend_minor"][0] or 0
    _amend(mix, name, start, (usual or 5_000) * times)
    if end < mix.last:
        _amend(mix, name, end, usual)
    affected = uses.filter(pl.col("occurred_at").is_between(start, end, closed="left"))
    lost = affected.filter(pl.Series(mix.random.random(affected.height) < drop))
    money = undo(mix, lost["order_id"])
    return mix.label(start, end, name, money, {field: lost[field] for field in ("coupon_id", "order_id")})


def _amend(mix: Mix, campaign_id: str, at: datetime, min_spend_minor: int) -> None:
    amended = {"campaign_id": [campaign_id], "occurred_at": [at], "min_spend_minor": [min_spend_minor]}
    mix.add(CAMPAIGN, pl.DataFrame(amended, schema_overrides={"occurred_at": INSTANT}), "amended")
