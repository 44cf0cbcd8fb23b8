"""The campaigns of quiet days. A campaign starts every day and a half and runs for one to three weeks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from coupon_ledger.cli.sources.quiet.world import BIN, DAY, HOUR, SECOND, Array, QuietWorld

OPEN, GRANTED, PRIVATE, FLASH, EXPERIMENT = range(5)
"""Modes of a campaign. `OPEN`: everybody may claim. `GRANTED`: coupons are granted to customers, every morning.
`PRIVATE`: members who know the code may claim. `FLASH`: open for two hours. `EXPERIMENT`: one grant to each customer of
the treatment."""

# Type, face value, share of the price in basis points, minimum spend; amounts in minor units.
_OFFERS: Final = (
    ("threshold", 2_000, 0, 10_000),
    ("cash", 500, 0, 0),
    ("threshold", 1_000, 0, 6_000),
    ("percent", 0, 1_000, 0),
    ("threshold", 3_000, 0, 20_000),
    ("shipping", 800, 0, 0),
    ("cash", 300, 0, 0),
)
_MEMBERS_OFFER: Final = ("threshold", 2_500, 0, 10_000)
# By the number of the campaign, in turn.
_MODES: Final = (OPEN, OPEN, GRANTED, OPEN, PRIVATE, OPEN)
_RUNS_DAYS: Final = (10, 14, 7, 21, 10, 14, 7)
_VALID_DAYS: Final = (5, 3, 7, 4, 10)
_EVERY_HOURS: Final = 36
_DAYS_BEFORE: Final = 20


@dataclass(frozen=True)
class Campaign:
    """One campaign. `claim_from`, `claim_until`: microseconds since the epoch. `valid_days`: for how many days a coupon
    is valid after the day on which it is handed out. `use_share`: the share of the owners who want to use it."""

    campaign_id: str
    name: str
    mode: int
    coupon_type: str
    face_value_minor: int
    percent_off_bp: int
    min_spend_minor: int
    per_user_limit: int
    claim_from: int
    claim_until: int
    valid_days: int
    use_share: float
    weight: float

    @property
    def code(self) -> str | None:
        return f"VIP-{self.campaign_id}" if self.mode == PRIVATE else None

    @property
    def published_at(self) -> int:
        """Three days before a flash sale, some hours before the others."""
        return self.claim_from - (3 * DAY if self.mode == FLASH else 3 * HOUR)


def campaigns_of(world: QuietWorld) -> tuple[Campaign, ...]:
    found = [*_regular(world)]
    if world.flash_sales:
        found += _flash_sales(world)
    if world.experiment and world.days > 1:
        found.append(_experiment(world))
    return tuple(sorted(found, key=lambda c: (c.claim_from, c.campaign_id)))


def _regular(world: QuietWorld) -> list[Campaign]:
    random, found = world.random("campaigns"), []
    count = 1 + (world.days + _DAYS_BEFORE) * 24 // _EVERY_HOURS
    weights, use = random.gamma(4, 0.25, count), random.uniform(0.35, 0.55, count)
    for number in range(count):
        day = number * _EVERY_HOURS // 24 - _DAYS_BEFORE
        runs = _RUNS_DAYS[number % len(_RUNS_DAYS)]
        mode = _MODES[number % len(_MODES)]
        if day >= world.days or day + runs <= 0:
            continue
        first = world.start_us + day * DAY + (9 * HOUR if mode == GRANTED else 10 * HOUR)
        last = world.start_us + (day + runs) * DAY - SECOND
        offer = _MEMBERS_OFFER if mode == PRIVATE else _OFFERS[number % len(_OFFERS)]
        name = f"{world.name}-{number:03}"
        limit, valid = 1 + number % 3, _VALID_DAYS[number % len(_VALID_DAYS)]
        factor = 0.25 if mode == PRIVATE else 1.0
        use_share = 0.25 if mode == GRANTED else float(use[number])
        terms = (name, f"Campaign {number}", mode, *offer, limit, first, last, valid, use_share)
        found.append(Campaign(*terms, factor * float(weights[number])))
    return found


def _flash_sales(world: QuietWorld) -> list[Campaign]:
    fridays = [day for day in range(world.days) if (world.first_weekday + day) % 7 == 4]
    return [
        Campaign(
            campaign_id=f"{world.name}-flash-{day:03}",
            name="Friday flash sale",
            mode=FLASH,
            coupon_type="threshold",
            face_value_minor=1_500,
            percent_off_bp=0,
            min_spend_minor=5_000,
            per_user_limit=1,
            claim_from=world.start_us + day * DAY + 20 * HOUR,
            claim_until=world.start_us + day * DAY + 22 * HOUR,
            valid_days=2,
            use_share=0.6,
            weight=0.0,
        )
        for day in fridays
    ]


def _experiment(world: QuietWorld) -> Campaign:
    first = world.start_us + DAY + 9 * HOUR
    return Campaign(
        campaign_id=f"{world.name}-experiment",
        name="Does a coupon win customers back?",
        mode=EXPERIMENT,
        coupon_type="cash",
        face_value_minor=600,
        percent_off_bp=0,
        min_spend_minor=0,
        per_user_limit=1,
        claim_from=first,
        claim_until=first + 7 * DAY,
        valid_days=10,
        use_share=0.3,
        weight=0.0,
    )


def shares(world: QuietWorld, campaigns: tuple[Campaign, ...], modes: tuple[int, ...]) -> Array:
    """Which share of the claims falls to each campaign: a row per campaign, a column per quarter of an hour of the
    stretch. Columns sum to 1, or to 0 while no campaign of these modes runs. A campaign attracts more on its first day.
    """
    at = world.start_us + np.arange(world.days * DAY // BIN) * BIN
    rows = [
        c.weight * (1 + 0.6 * np.exp(-(at - c.claim_from).clip(0) / (0.7 * DAY))) * _runs(c, at)
        if c.mode in modes
        else np.zeros(len(at))
        for c in campaigns
    ]
    attraction = np.stack(rows)
    total = attraction.sum(axis=0)
    parts: Array = np.divide(attraction, total, out=np.zeros_like(attraction), where=total > 0)
    return parts


def _runs(campaign: Campaign, at: Array) -> Array:
    runs: Array = (at >= campaign.claim_from) & (at + BIN <= campaign.claim_until + SECOND)
    return runs
