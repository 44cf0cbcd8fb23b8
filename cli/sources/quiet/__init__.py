"""Quiet days: a shop's ordinary weeks, in which nothing is wrong.

    frames = quiet_days(QuietWorld(seed=7, days=14))  # by topic, with the time of arrival
    for topic, frame in in_arrival_order(frames):
        …  # `cli/imports.py` appends them

What always holds: the same world gives the same events; every event is valid and, in canonical order, breaks no rule,
except for `double_use_share` of the uses; coupons and orders agree on ids and amounts.

What a detector must take for ordinary: the rhythm of the day and of the week, noise from day to day, nightly jobs that
create and expire coupons, grants every morning, campaigns that start and end, an announced flash sale every Friday,
mobile carriers and offices with one IP address for many people, families with one device.

Made in stages, each with random generators of its own: people (`people.py`), campaigns (`campaigns.py`), the lives of
coupons (`lives.py`), orders (`orders.py`), and the events of all of them (`wire.py`).
"""

from coupon_ledger.cli.sources.quiet.wire import quiet_days
from coupon_ledger.cli.sources.quiet.world import QuietWorld

__all__ = ["QuietWorld", "quiet_days"]
