"""Faults of the systems that publish: events come late or not at all, or nobody can buy in a channel."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.arrival import ARRIVES_AT, Frames
from coupon_ledger.cli.sources.faults.labels import Label
from coupon_ledger.cli.sources.faults.mix import INSTANT, Mix
from coupon_ledger.cli.sources.faults.undone import undo
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.ledger.words import note

_BACKLOG: Final = timedelta(minutes=5)
_LARGE_SHARE: Final = 0.1
_NOTICEABLE: Final = 100


def stuck_consumer(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    hours: float = 6,
    source: str | None = None,
    lost: bool = False,
) -> tuple[Frames, Label]:
    """The events of one system do not arrive for hours, then all at once.

    If the stream has only one system, only its order events are held up. `source`: the system, by default a random
    one of those with many coupon or order events; `lost`: the events never arrive. The label's `from` and `until`
    are instants of arrival. The money at stake: the discounts of the uses among these events.
    """
    mix = Mix("stuck-consumer", frames, random)
    start = mix.begin(at, timedelta(hours=hours), busy=True)
    end = start + timedelta(hours=hours)
    sources = pl.concat([frames[topic].select("source", ARRIVES_AT) for topic in (COUPON, ORDER)])
    meanwhile = pl.col(ARRIVES_AT).is_between(start, end, closed="left")
    counts = sources.filter(meanwhile)["source"].value_counts()
    large = counts.filter(pl.col("count") > _LARGE_SHARE * pl.col("count").sum()).sort("source")["source"]
    name = source or str(large[int(random.integers(len(large)))] if len(large) else sources["source"][0])
    if name not in sources["source"]:
        raise LedgerError(
            note("fault {kind}: no coupon or order event comes from the source {name}", kind=mix.kind, name=name)
        )
    topics = (COUPON, ORDER) if sources["source"].n_unique() > 1 else (ORDER,)
    money = 0
    for topic in topics:
        held = frames[topic].filter(meanwhile, source=name)
        # An event that has arrived before, and now once more, keeps its arrivals.
        held = held.filter(pl.col("event_id").is_in(_arriving_once(frames[topic], held).implode()))
        if "discount_minor" in held.columns:
            money += int(held.filter(type="used")["discount_minor"].sum())
        if lost:
            mix.remove(topic, held["event_id"])
        else:
            mix.delay(topic, held.select("event_id", _once_it_runs_again(start, end).alias(ARRIVES_AT)))
    return mix.label(start, end, None, money, {"source": (name,)})


def _arriving_once(frame: pl.DataFrame, held: pl.DataFrame) -> pl.Series:
    copies = frame.join(held.select("event_id").unique(), on="event_id", how="semi").group_by("event_id").len()
    return copies.filter(len=1)["event_id"]


def _once_it_runs_again(start: datetime, end: datetime) -> pl.Expr:
    """When each of the held events arrives: after `end`, in their order, within some minutes."""
    share = _BACKLOG / (end - start)
    waited = (pl.col(ARRIVES_AT) - pl.lit(start, INSTANT)).dt.total_microseconds()
    return pl.lit(end, INSTANT) + (waited * share).cast(pl.Int64).cast(pl.Duration("us"))


def dead_channel(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    channel: str | None = None,
    hours: float | None = None,
) -> tuple[Frames, Label]:
    """Nothing is claimed and nothing is ordered in one channel any more.

    If the stream names no channels, its largest store is closed. `channel`: by default a random one of those with
    many orders; `hours`: how long, by default 6, or longer if so few orders come through the channel that nobody
    could notice. The money at stake: what was not sold.
    """
    mix = Mix("dead-channel", frames, random)
    orders = frames[ORDER]
    field = "channel" if "channel" in orders.columns and orders["channel"].count() else "store"
    counts = orders.filter(pl.col(field).is_not_null())[field].value_counts().sort("count", field, descending=True)
    if not counts.height:
        raise LedgerError(note("fault {kind}: the orders name neither a channel nor a store", kind=mix.kind))
    many = counts.filter(pl.col("count") > _LARGE_SHARE * pl.col("count").sum())[field]
    name = channel or str(many[int(random.integers(len(many)))] if len(many) else counts[field][0])
    if name not in counts[field]:
        raise LedgerError(
            note("fault {kind}: no order comes through the {field:label} {name}", kind=mix.kind, field=field, name=name)
        )
    per_hour = counts.filter(pl.col(field) == name)["count"][0] / ((mix.last - mix.first) / timedelta(hours=1))
    lasting = timedelta(hours=hours if hours is not None else max(6, _NOTICEABLE / per_hour))
    start = mix.begin(at, lasting, busy=True)
    end = min(start + lasting, mix.last)
    dead = pl.col("occurred_at").is_between(start, end, closed="left")
    through = orders.filter(pl.col(field) == name).group_by("order_id", maintain_order=True)
    placed = through.agg(pl.col("occurred_at").min()).filter(dead)["order_id"]
    coupons = frames[COUPON]
    claims = (
        coupons.filter(dead & (pl.col(field) == name), type="claimed") if field in coupons.columns else coupons.clear()
    )
    claimed = claims["coupon_id"].unique(maintain_order=True)
    money = undo(mix, placed, claimed)
    return mix.label(start, end, None, money, {field: (name,), "coupon_id": claimed, "order_id": placed})
