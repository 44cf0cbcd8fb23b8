"""The campaigns of a stream, and the choice of one in which a fault takes place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from coupon_ledger.cli.sources.faults.mix import INSTANT, Mix
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON

_TERMS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "visibility": pl.String,
    "mechanic": pl.String,
    "quantity": pl.Int64,
    "claim_from": INSTANT,
    "claim_until": INSTANT,
    "coupon_type": pl.String,
    "face_value_minor": pl.Int64,
    "min_spend_minor": pl.Int64,
}
_FACE_MINOR: Final = 1_000
_ROOM: Final = 1_000_000


@dataclass(frozen=True)
class Host:
    """A campaign in which a fault takes place. `face_minor`: what a coupon takes off; if the campaign does not say, the
    median of what its coupons took off. `first`, `last`: when its coupons may be claimed."""

    campaign_id: str
    coupon_type: str
    face_minor: int
    min_spend_minor: int
    first: datetime
    last: datetime
    code: str | None = None


def campaigns(mix: Mix) -> pl.DataFrame:
    """One row per published campaign, by id: its terms when it was published (null if it does not say), `first`,
    `last`, `code`, `acquired` (how many coupons were claimed or granted), `room` (how many more may be), `typical` (the
    median discount), and `assigned`: whether it has arms."""
    events, coupons = mix.frames[CAMPAIGN], mix.frames[COUPON]
    published = events.filter(type="published").unique("campaign_id", keep="first", maintain_order=True)
    terms = published.select(
        "campaign_id",
        "occurred_at",
        *((pl.col(n) if n in published.columns else pl.lit(None)).cast(dtype).alias(n) for n, dtype in _TERMS.items()),
    )
    ended = events.filter(type="ended").group_by("campaign_id").agg(ended=pl.col("occurred_at").min())
    code = pl.col("code").drop_nulls().first() if "code" in coupons.columns else pl.lit(None, pl.String)
    claimed = (pl.col("type") == "claimed") | ((pl.col("type") == "issued") & pl.col("user_id").is_not_null())
    used = pl.col("type") == "used"
    life = (
        coupons.with_columns(
            pl.col("campaign_id").fill_null(pl.col("campaign_id").drop_nulls().first().over("coupon_id"))
        )
        .unique("event_id", maintain_order=True)
        .group_by("campaign_id")
        .agg(
            acquired=claimed.sum(),
            typical=pl.col("discount_minor").filter(used & (pl.col("discount_minor") > 0)).median(),
            code=code,
        )
    )
    assigned = events.filter(type="assigned").select("campaign_id", assigned=pl.lit(True)).unique()
    return (
        terms.join(ended, on="campaign_id", how="left")
        .join(life, on="campaign_id", how="left")
        .join(assigned, on="campaign_id", how="left")
        .with_columns(
            pl.col("assigned").fill_null(False),
            pl.col("acquired").fill_null(0),
            first=pl.coalesce("claim_from", "occurred_at"),
            last=pl.coalesce("claim_until", "ended", pl.lit(mix.last).cast(INSTANT)),
        )
        .with_columns(room=pl.col("quantity").fill_null(_ROOM) - pl.col("acquired"))
        .sort("campaign_id")
    )


def host_for(
    mix: Mix, start: datetime, end: datetime, claims: int, private: bool = False, minimum: bool = False
) -> Host:
    """A campaign that runs from `start` to `end` and has room for so many more claims, chosen at random with
    probabilities proportional to its size. If there is none, a new campaign. `private`: only campaigns with a code (if
    the stream has no codes, private ones; the host gets a code). `minimum`: only campaigns with a minimum spend."""
    fits = (
        (pl.col("first") <= start)
        & (pl.col("last") >= end)
        & (pl.col("room") >= claims)
        & ~pl.col("assigned")
        & (pl.col("acquired") > 0)
        & (pl.col("mechanic").fill_null("coupon") == "coupon")
        & pl.col("coupon_type").is_in(["cash", "threshold", "other"])
    )
    known = campaigns(mix)
    running = known.filter(fits)
    if minimum:
        running = running.filter(pl.col("min_spend_minor") > 0)
    if private:
        coded = pl.col("code").is_not_null() if known["code"].count() else pl.col("visibility") == "private"
        candidates = running.filter(coded)
    else:
        public = running.filter(pl.col("visibility") != "private")
        candidates = public if public.height else running
    if not candidates.height:
        return new_campaign(
            mix, start - timedelta(hours=6), end + timedelta(days=2), quantity=10 * claims, private=private
        )
    size = candidates["acquired"].to_numpy()
    row = candidates.row(int(mix.random.choice(len(size), p=size / size.sum())), named=True)
    host = host_of(row)
    return replace(host, code=host.code or f"VIP-{mix.tag}") if private else host


def host_of(row: dict[str, object]) -> Host:
    """The host that a row of `campaigns` describes."""
    face = row["face_value_minor"] or row["typical"] or _FACE_MINOR
    kind = str(row["coupon_type"])
    return Host(
        campaign_id=str(row["campaign_id"]),
        coupon_type="cash" if kind == "other" else kind,
        face_minor=int(float(str(face))),
        min_spend_minor=int(str(row["min_spend_minor"] or 0)),
        first=_instant(row["first"]),
        last=_instant(row["last"]),
        code=None if row["code"] is None else str(row["code"]),
    )


def _instant(value: object) -> datetime:
    assert isinstance(value, datetime)
    return value


def new_campaign(
    mix: Mix,
    first: datetime,
    last: datetime,
    quantity: int,
    budget_minor: int | None = None,
    face_minor: int = _FACE_MINOR,
    min_spend_minor: int = 5 * _FACE_MINOR,
    private: bool = False,
) -> Host:
    """Publish a campaign, an hour before `first`. Its coupons may be claimed from `first` to `last`, once by each
    customer."""
    name = f"{mix.tag}-campaign"
    published = pl.DataFrame(
        {
            "campaign_id": [name],
            "occurred_at": [first - timedelta(hours=1)],
            "name": ["Weekend offer"],
            "mechanic": ["coupon"],
            "visibility": ["private" if private else "public"],
            "quantity": [quantity],
            "per_user_limit": [1],
            "claim_from": [first],
            "claim_until": [last],
            "coupon_type": ["threshold"],
            "face_value_minor": [face_minor],
            "min_spend_minor": [min_spend_minor],
            "currency": [mix.currency],
            "budget_minor": [budget_minor],
        },
        schema_overrides={
            "occurred_at": INSTANT,
            "claim_from": INSTANT,
            "claim_until": INSTANT,
            "budget_minor": pl.Int64,
        },
    )
    mix.add(CAMPAIGN, published, "published", context=True)
    code = f"VIP-{mix.tag}" if private else None
    return Host(name, "threshold", face_minor, min_spend_minor, first, last, code)
