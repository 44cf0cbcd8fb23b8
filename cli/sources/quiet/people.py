"""The customers of quiet days: how active they are, their devices and phone numbers, and where they go online."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.quiet.world import DAY, HOUR, Array, QuietWorld

REGIONS: Final = ("east", "south", "north", "west", "central", "northeast")
_FAMILY: Final = 3
_OPERATORS: Final = (134, 135, 138, 139, 150, 151, 158, 176, 182, 187, 189, 198)
_AREAS: Final = 700


@dataclass(frozen=True)
class People:
    """Arrays with one entry per customer. `activity`: the probability that an event is of this customer, with the sum
    1. `home`: the number of the household; `device`: the number of the device; `office`: the number of the office, or
    -1; `region`: an index in `REGIONS`; `phone_prefix`: the first seven digits of the mobile number. `carriers`: the
    probability of each address of the mobile carriers."""

    activity: Array
    home: Array
    device: Array
    office: Array
    region: Array
    phone_prefix: Array
    carriers: Array

    def draw(self, random: np.random.Generator, size: int, among: Array | None = None) -> Array:
        """Draw customers by their activity. `among`: the customers to draw from; by default all."""
        weights = self.activity if among is None else self.activity[among]
        ends = np.cumsum(weights)
        found = np.searchsorted(ends, random.random(size) * ends[-1], side="right").clip(0, len(ends) - 1)
        drawn: Array = found if among is None else among[found]
        return drawn


def people_of(world: QuietWorld) -> People:
    random, n = world.random("people"), world.customers
    activity = random.gamma(0.9, 1, n) + 0.02
    number = np.arange(n)
    in_family = (random.random(n // _FAMILY + 1) < world.family_share)[number // _FAMILY]
    first = np.where(in_family, number - number % _FAMILY, number)
    offices = max(2, n // 90)
    office_size = random.gamma(1.5, 1, offices)
    works = random.random(n) < world.office_share
    carriers = max(12, n // 400) * 1.0
    parts = np.arange(1, carriers + 1) ** -0.6
    return People(
        activity=activity / activity.sum(),
        home=first,
        device=first,
        office=np.where(works, random.choice(offices, n, p=office_size / office_size.sum()), -1),
        region=random.choice(len(REGIONS), n, p=(0.3, 0.24, 0.18, 0.1, 0.12, 0.06)),
        phone_prefix=random.choice(_OPERATORS, n) * 10_000 + random.integers(0, _AREAS, n) * 13 + 200,
        carriers=parts / parts.sum(),
    )


def addresses(world: QuietWorld, people: People, user: Array, at: Array, random: np.random.Generator) -> pl.Series:
    """The IP address of each event. `user`, `at`: the customer and the instant of each."""
    local = at - world.start_us
    weekday = (local // DAY + world.first_weekday) % 7
    hour = local % DAY // HOUR
    at_work = (weekday < 5) & (hour >= 9) & (hour < 18)
    office = at_work & (people.office[user] >= 0) & (random.random(len(user)) < 0.6)
    mobile = ~office & (random.random(len(user)) < world.mobile_share)
    carrier = random.choice(len(people.carriers), len(user), p=people.carriers)
    net = np.select([office, mobile], [221, 117], 36)
    host = np.select([office, mobile], [people.office[user], carrier], people.home[user])
    # Multiplying by an odd number is a bijection: neighbours do not get neighbouring addresses.
    mixed = (host * 7_654_321 + net * 1_234_567) % 2**24
    octets = [pl.lit(pl.Series(part)).cast(pl.String) for part in (net, mixed >> 16, mixed >> 8 & 255, mixed & 255)]
    return pl.select(pl.concat_str(octets, separator=".")).to_series()
