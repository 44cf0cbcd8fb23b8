"""The lives of the coupons of quiet days: who gets which, what they buy with it, and how it ends.

A field `…_at` is an instant in microseconds since the epoch; 0 if it did not happen. Nothing happens after the end of
the stretch: what would come later is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from coupon_ledger.cli.sources.quiet.campaigns import (
    EXPERIMENT,
    FLASH,
    GRANTED,
    OPEN,
    PRIVATE,
    Campaign,
    shares,
)
from coupon_ledger.cli.sources.quiet.people import People
from coupon_ledger.cli.sources.quiet.world import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Array,
    QuietWorld,
    day_of,
    daytime,
    moments,
    rhythm,
    waits,
)

HOLD: Final = 15 * MINUTE
# How many claims, granted coupons and claims in a flash sale there are, as shares of a day's events.
_CLAIMS: Final = 0.13
_GRANTS: Final = 0.023
_FLASH_CLAIMS: Final = 0.06
_UNCLAIMED: Final = 0.12
_MEMBERS: Final = 0.03
"""Share of the customers who know the code of a private campaign."""
_IN_EXPERIMENT: Final = 0.2
"""Share of the customers who are in the experiment; half of them get its coupon."""


@dataclass(frozen=True)
class Gifts:
    """Arrays with one entry per coupon, sorted by the instant when it was handed out. `campaign`: an index;
    `user`: the owner's number, or -1. A coupon with an owner and without `claimed_at` was granted."""

    campaign: Array
    user: Array
    created_at: Array
    issued_at: Array
    claimed_at: Array
    valid_until: Array


@dataclass(frozen=True)
class Purchases:
    """Arrays with one entry per coupon. `placed_at`: of the order for which the coupon is meant; `held`: whether the
    coupon is reserved for it; then the order is paid and the coupon used (`used_at`), or the hold runs out and the
    order is cancelled (`lost_at`). `returned_at`: the order is refunded in full."""

    placed_at: Array
    held: Array
    used_at: Array
    lost_at: Array
    returned_at: Array


def arms_of(world: QuietWorld) -> tuple[Array, Array]:
    """The numbers of the customers in the experiment: (control, treatment)."""
    chosen = world.random("arms").permutation(world.customers)[: round(world.customers * _IN_EXPERIMENT)]
    return np.sort(chosen[::2]), np.sort(chosen[1::2])


def gifts_of(world: QuietWorld, campaigns: tuple[Campaign, ...], people: People) -> Gifts:
    parts = [
        _claimed(world, campaigns, people),
        *(_flash(world, number, c, people) for number, c in enumerate(campaigns) if c.mode == FLASH),
        _granted(world, campaigns, people),
        *(_for_treatment(world, number, c) for number, c in enumerate(campaigns) if c.mode == EXPERIMENT),
    ]
    whole = Gifts(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Gifts)))
    kept = _within_limits(whole, np.array([c.per_user_limit for c in campaigns]))
    return _take(whole, kept[np.argsort(np.maximum(whole.claimed_at, whole.issued_at)[kept], kind="stable")])


def _take(gifts: Gifts, numbers: Array) -> Gifts:
    return Gifts(*(getattr(gifts, f.name)[numbers] for f in fields(Gifts)))


def _within_limits(gifts: Gifts, limits: Array) -> Array:
    """The numbers of the coupons without those that would exceed the limit of a customer in a campaign."""
    at = np.maximum(gifts.claimed_at, gifts.issued_at)
    order = np.lexsort((at, gifts.user, gifts.campaign))
    pair = gifts.campaign[order] * (gifts.user.max(initial=0) + 2) + gifts.user[order]
    first = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]]) if len(pair) else np.array([], dtype=np.int64)
    rank = np.arange(len(pair)) - np.repeat(first, np.diff(np.r_[first, len(pair)]))
    kept: Array = np.sort(order[(rank < limits[gifts.campaign[order]]) | (gifts.user[order] < 0)])
    return kept


def _claimed(world: QuietWorld, campaigns: tuple[Campaign, ...], people: People) -> Gifts:
    """Coupons of open and private campaigns: a nightly job creates them, people claim most of them."""
    random = world.random("claims")
    expected = rhythm(world) * world.events_per_day * _CLAIMS
    parts = shares(world, campaigns, (OPEN, PRIVATE))
    at = [moments(random, world.start_us, expected * part) for part in parts]
    campaign = np.repeat(np.arange(len(campaigns)), [len(a) for a in at])
    claimed_at = np.concatenate(at) if at else np.array([], dtype=np.int64)
    user = people.draw(random, len(claimed_at))
    member = random.permutation(world.customers)[: max(20, round(world.customers * _MEMBERS))]
    private = np.array([c.mode == PRIVATE for c in campaigns])[campaign]
    user = np.where(private, people.draw(random, len(user), member), user)
    valid_days = np.array([c.valid_days for c in campaigns])[campaign]
    return _with_unclaimed(_made_at_night(world, campaign, valid_days, user, claimed_at, random), random)


def _flash(world: QuietWorld, number: int, campaign: Campaign, people: People) -> Gifts:
    """Coupons of a flash sale: most are claimed within its first minutes."""
    random = world.random(f"flash {campaign.campaign_id}")
    size = random.poisson(world.events_per_day * _FLASH_CLAIMS)
    after = waits(random, size, 9 * MINUTE, SECOND, 2 * HOUR - SECOND)
    user = people.draw(random, size)
    of_campaign, valid_days = np.full(size, number), np.full(size, campaign.valid_days)
    return _made_at_night(world, of_campaign, valid_days, user, campaign.claim_from + after, random)


def _made_at_night(
    world: QuietWorld, campaign: Array, valid_days: Array, user: Array, claimed_at: Array, random: np.random.Generator
) -> Gifts:
    """Coupons created in the last night before they are claimed, between 01:00 and 02:30."""
    size = len(claimed_at)
    at_night = HOUR + random.integers(0, 90 * MINUTE, size)
    night = day_of(world, claimed_at)
    night = np.where(claimed_at < night + 3 * HOUR, night - DAY, night)
    created_at = night + at_night
    return Gifts(
        campaign=campaign,
        user=user,
        created_at=created_at,
        issued_at=created_at + random.integers(5 * SECOND, 60 * SECOND, size),
        claimed_at=claimed_at,
        valid_until=day_of(world, claimed_at) + (valid_days + 1) * DAY - SECOND,
    )


def _with_unclaimed(gifts: Gifts, random: np.random.Generator) -> Gifts:
    """Add coupons like these that nobody claims."""
    rest = np.flatnonzero(random.random(len(gifts.user)) < _UNCLAIMED)
    unclaimed = replace(
        _take(gifts, rest),
        user=np.full(len(rest), -1),
        claimed_at=np.zeros(len(rest), dtype=np.int64),
        created_at=gifts.created_at[rest] + SECOND,
        issued_at=gifts.issued_at[rest] + SECOND,
    )
    return Gifts(*(np.concatenate([getattr(gifts, f.name), getattr(unclaimed, f.name)]) for f in fields(Gifts)))


def _granted(world: QuietWorld, campaigns: tuple[Campaign, ...], people: People) -> Gifts:
    """Coupons that a job grants every morning between 10:00 and 10:40."""
    random = world.random("grants")
    running = [
        (number, midnight)
        for number, c in enumerate(campaigns)
        if c.mode == GRANTED
        for midnight in range(world.start_us, world.end_us, DAY)
        if c.claim_from <= midnight + 10 * HOUR and midnight + 11 * HOUR <= c.claim_until
    ]
    per_day = max(1, round(world.events_per_day * _GRANTS / max(1, len(running) / world.days)))
    campaign = np.repeat(np.array([number for number, _ in running], dtype=np.int64), per_day)
    midnights = np.repeat(np.array([midnight for _, midnight in running], dtype=np.int64), per_day)
    at = midnights + 10 * HOUR + random.integers(0, 40 * MINUTE, len(midnights))
    valid_days = np.array([c.valid_days for c in campaigns])[campaign]
    return _handed_out(campaign, valid_days, people.draw(random, len(at)), at, random)


def _for_treatment(world: QuietWorld, number: int, campaign: Campaign) -> Gifts:
    random, (_, treated) = world.random("treatment"), arms_of(world)
    at = campaign.claim_from + HOUR + random.integers(0, HOUR, len(treated))
    size = len(treated)
    return _handed_out(np.full(size, number), np.full(size, campaign.valid_days), treated, at, random)


def _handed_out(
    campaign: Array, valid_days: Array, user: Array, issued_at: Array, random: np.random.Generator
) -> Gifts:
    return Gifts(
        campaign=campaign,
        user=user,
        created_at=issued_at - random.integers(5 * SECOND, 60 * SECOND, len(issued_at)),
        issued_at=issued_at,
        claimed_at=np.zeros(len(issued_at), dtype=np.int64),
        valid_until=issued_at + valid_days * DAY,
    )


def purchases_of(world: QuietWorld, campaigns: tuple[Campaign, ...], gifts: Gifts) -> Purchases:
    random, size = world.random("purchases"), len(gifts.user)
    ready = np.maximum(gifts.claimed_at, gifts.issued_at)
    wanted = (gifts.user >= 0) & (random.random(size) < np.array([c.use_share for c in campaigns])[gifts.campaign])
    placed = _when_placed(world, ready, random)
    wanted &= placed < np.minimum(gifts.valid_until, world.end_us) - HOUR
    held = wanted & (random.random(size) < 0.85)
    lost = held & (random.random(size) < 0.07)
    used_at = placed + waits(random, size, 2 * MINUTE, 20 * SECOND, 12 * MINUTE)
    used = wanted & ~lost
    returned_at = used_at + waits(random, size, 30 * HOUR, 6 * HOUR, 5 * DAY)
    returned = used & (random.random(size) < 0.03) & (returned_at < world.end_us - HOUR)
    return Purchases(
        placed_at=np.where(wanted, placed, 0),
        held=held,
        used_at=np.where(used, used_at, 0),
        lost_at=np.where(lost, placed + HOLD, 0),
        returned_at=np.where(returned, returned_at, 0),
    )


def _when_placed(world: QuietWorld, ready: Array, random: np.random.Generator) -> Array:
    """When the owner of each coupon orders: soon after getting it, or at the time of day when people shop."""
    size = len(ready)
    soon = ready + waits(random, size, 18 * MINUTE, 2 * MINUTE, 2 * HOUR)
    later = day_of(world, ready) + random.geometric(0.5, size) * DAY - DAY + daytime(random, size)
    return np.where((random.random(size) < 0.45) | (later < ready + 2 * MINUTE), soon, later)


def expiries_of(world: QuietWorld, gifts: Gifts, purchases: Purchases) -> Array:
    """When a nightly job lets each coupon expire: soon after its validity, or soon after it was given back later."""
    random, size = world.random("expiries"), len(gifts.user)
    in_use = (purchases.used_at > 0) & (purchases.returned_at == 0)
    over = np.maximum(gifts.valid_until, purchases.returned_at)
    at = over + waits(random, size, 12 * MINUTE, 2 * MINUTE, 40 * MINUTE)
    return np.where(~in_use & (at < world.end_us), at, 0)
