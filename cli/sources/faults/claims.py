"""Faults that are in the claims: many coupons go where they should not."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.arrival import Frames
from coupon_ledger.cli.sources.faults.hosts import Host, host_for
from coupon_ledger.cli.sources.faults.labels import Label
from coupon_ledger.cli.sources.faults.lives import baskets, bots, buy, claim, customers
from coupon_ledger.cli.sources.faults.mix import Mix, bounds, instants


def device_farm(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    devices: int = 3,
    accounts: int = 40,
    minutes: float = 90,
    addresses: int = 12,
    use_share: float = 0.5,
) -> tuple[Frames, Label]:
    """A few devices claim for many new accounts, through changing addresses, and use some of the coupons at once.

    `accounts`: per device, one claim each; `minutes`: how long it takes; `addresses`: number of IP addresses;
    `use_share`: the share of the coupons that is used within an hour.
    """
    mix = Mix("device-farm", frames, random)
    start = mix.begin(at, timedelta(minutes=minutes + 60))
    size = devices * accounts
    people = bots(mix, size)
    device = mix.ids("farm", devices).gather(np.repeat(np.arange(devices), accounts))
    ip = people["ip"].head(addresses).gather(random.integers(0, min(addresses, size), size))
    people = people.with_columns(device_id=device, ip=ip)
    return _mass_claims(mix, start, people, random.uniform(0, minutes * 60, size), use_share, ("device_id", "ip"))


def one_ip(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    claims: int = 150,
    minutes: float = 20,
    use_share: float = 0.3,
) -> tuple[Frames, Label]:
    """One address claims for many new accounts, each with a device of its own, within minutes."""
    mix = Mix("one-ip", frames, random)
    start = mix.begin(at, timedelta(minutes=minutes + 60))
    people = bots(mix, claims)
    people = people.with_columns(ip=pl.lit(people["ip"][0]))
    return _mass_claims(mix, start, people, random.uniform(0, minutes * 60, claims), use_share, ("ip",))


def consecutive_phones(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    accounts: int = 90,
    prefixes: int = 3,
    minutes: float = 120,
    use_share: float = 0.4,
) -> tuple[Frames, Label]:
    """New accounts whose phone numbers were bought as one block claim within hours, each with a device and an address
    of its own.

    `prefixes`: how many consecutive prefixes the block covers.
    """
    mix = Mix("consecutive-phones", frames, random)
    start = mix.begin(at, timedelta(minutes=minutes + 60))
    first = int(random.integers(1_700_000, 1_709_999))
    block = [str(first + number * prefixes // accounts) for number in range(accounts)]
    people = bots(mix, accounts).with_columns(phone_prefix=pl.Series(block))
    seconds = np.sort(random.uniform(0, minutes * 60, accounts))
    return _mass_claims(mix, start, people, seconds, use_share, ("phone_prefix",))


def slow_drip(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    claims_per_hour: float = 2.0,
    days: float = 4,
    addresses: int = 5,
    use_share: float = 0.5,
) -> tuple[Frames, Label]:
    """One device claims for new accounts, a few an hour, day and night, for days.

    `days` is shortened if the stretch ends before.
    """
    mix = Mix("slow-drip", frames, random)
    start = mix.begin(at, timedelta(days=days, hours=1))
    seconds = min(days * 86_400, 0.9 * (mix.last - start).total_seconds())
    size = max(2, round(seconds / 3_600 * claims_per_hour))
    people = bots(mix, size)
    ip = people["ip"].head(addresses).gather(random.integers(0, min(addresses, size), size))
    people = people.with_columns(device_id=pl.lit(people["device_id"][0]), ip=ip)
    return _mass_claims(mix, start, people, random.uniform(0, seconds, size), use_share, ("device_id", "ip"))


def leaked_code(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    strangers: int = 250,
    hours: float = 8,
    use_share: float = 0.6,
) -> tuple[Frames, Label]:
    """The code of a private campaign is published, and customers without an invitation claim with it.

    More and more of them come until the news is old. They are ordinary customers with devices of their own.
    """
    mix = Mix("leaked-code", frames, random)
    start = mix.begin(at, timedelta(hours=hours + 1))
    host = host_for(mix, start, start + timedelta(hours=hours), strangers, private=True)
    people = customers(mix, strangers, outside=host.campaign_id)
    seconds = random.beta(2, 4, people.height) * hours * 3_600
    return _mass_claims(mix, start, people, seconds, use_share, ("code",), host)


def _mass_claims(
    mix: Mix,
    start: datetime,
    people: pl.DataFrame,
    seconds: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    use_share: float,
    traits: tuple[str, ...],
    host: Host | None = None,
) -> tuple[Frames, Label]:
    """One claim by each of the `people`, so many `seconds` after `start`; some use their coupon within the hour, on an
    order that is just large enough. `traits`: the fields that give the fault away."""
    claims = people.with_columns(at=instants(start, seconds))
    first, last = bounds(claims["at"])
    host = host or host_for(mix, first, last, claims.height)
    coupons = claim(mix, host, claims)
    chosen = coupons.filter(pl.Series(mix.random.random(coupons.height) < use_share))
    least = max(host.min_spend_minor, host.face_minor + 100)
    waits = instants(start, mix.random.uniform(120, 3_000, chosen.height)) - start
    uses = chosen.with_columns(
        pl.col("at") + waits, gross_minor=baskets(mix, chosen.height, least).clip(least, least + 1_000)
    ).with_columns(discount_minor=pl.lit(host.face_minor))
    orders = buy(mix, uses) if uses.height else uses
    keys = {name: coupons[name] for name in (*traits, "user_id", "coupon_id")}
    orders_of = orders["order_id"] if uses.height else pl.Series(dtype=pl.String)
    last = max(last, bounds(uses["at"])[1]) if uses.height else last
    money = coupons.height * host.face_minor
    return mix.label(first, last, host.campaign_id, money, {**keys, "order_id": orders_of})
