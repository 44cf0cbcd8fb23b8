"""Faults of an experiment."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.arrival import Frames
from coupon_ledger.cli.sources.faults.hosts import new_campaign
from coupon_ledger.cli.sources.faults.labels import Label
from coupon_ledger.cli.sources.faults.mix import INSTANT, Mix
from coupon_ledger.cli.sources.faults.undone import undo
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER

_ARMS = ("control", "treatment")


def harmful_arm(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    people: int = 3_000,
    days: float | None = None,
    drop: float = 0.35,
) -> tuple[Frames, Label]:
    """A new experiment: half of the people in it get a coupon, and order less than the other half.

    `people`: number of customers who are assigned to an arm, at most all who ever order; `days`: how long the harm
    lasts, by default a third of the stretch, and no longer than the stretch; `drop`: the share of the treatment's
    orders that do not come. The money at stake: what was not sold.
    """
    mix = Mix("harmful-arm", frames, random)
    stretch = mix.last - mix.first
    lasting = timedelta(days=days) if days is not None else stretch / 3
    start = mix.begin(at, lasting)
    end = min(start + lasting, mix.last)
    users = frames[ORDER]["user_id"].drop_nulls().unique().sort()
    chosen = users.gather(random.permutation(len(users))[:people])
    arm = pl.Series(np.array(_ARMS)[np.arange(len(chosen)) % 2])
    host = new_campaign(mix, start, end, len(chosen), min_spend_minor=2_000)
    _assign(mix, host.campaign_id, chosen, arm, start)
    treated = chosen.filter(arm == "treatment")
    _grant(mix, host.campaign_id, host.face_minor, treated, start, end)
    orders = (
        frames[ORDER]
        .group_by("order_id", maintain_order=True)
        .agg(pl.col("user_id").drop_nulls().first(), pl.col("occurred_at").min())
    )
    theirs = orders.filter(
        pl.col("user_id").is_in(treated.implode()) & pl.col("occurred_at").is_between(start, end, closed="left")
    )
    lost = theirs.filter(pl.Series(random.random(theirs.height) < drop))["order_id"]
    money = undo(mix, lost)
    return mix.label(start, end, host.campaign_id, money, {"arm": ("treatment",), "user_id": treated, "order_id": lost})


def _assign(mix: Mix, campaign_id: str, users: pl.Series, arm: pl.Series, start: datetime) -> None:
    at = start - timedelta(minutes=30)
    targets = pl.DataFrame({"metric": [f"share:{name}" for name in _ARMS], "target": [5_000, 5_000]})
    arms = pl.DataFrame({"user_id": users, "arm": arm})
    for kind, frame in (("target_set", targets), ("assigned", arms)):
        events = frame.with_columns(campaign_id=pl.lit(campaign_id), occurred_at=pl.lit(at, INSTANT))
        mix.add(CAMPAIGN, events, kind, context=True)


def _grant(mix: Mix, campaign_id: str, face_minor: int, users: pl.Series, start: datetime, end: datetime) -> None:
    """A coupon for each of the users, within half an hour after `start`."""
    after = pl.Series(np.sort(mix.random.integers(60, 1_800, len(users)))) * 1_000_000
    base = pl.DataFrame({"coupon_id": mix.ids("c", len(users)), "user_id": users}).with_columns(
        campaign_id=pl.lit(campaign_id), occurred_at=pl.lit(start, INSTANT) + after.cast(pl.Duration("us"))
    )
    created = base.drop("user_id").with_columns(
        pl.col("occurred_at") - timedelta(seconds=20),
        coupon_type=pl.lit("threshold"),
        face_value_minor=pl.lit(face_minor),
        min_spend_minor=pl.lit(2 * face_minor),
        currency=pl.lit(mix.currency),
        valid_from=pl.lit(start - timedelta(hours=1), INSTANT),
        valid_until=pl.lit(max(end, mix.over) + timedelta(days=7), INSTANT),
    )
    mix.add(COUPON, created, "created", context=True)
    mix.add(COUPON, base.with_columns(channel=pl.lit("app")), "issued", context=True)
