"""All kinds of faults, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final
from zlib import crc32

import numpy as np

from coupon_ledger.cli.sources.arrival import Frames
from coupon_ledger.cli.sources.faults.claims import consecutive_phones, device_farm, leaked_code, one_ip, slow_drip
from coupon_ledger.cli.sources.faults.experiments import harmful_arm
from coupon_ledger.cli.sources.faults.labels import Label
from coupon_ledger.cli.sources.faults.streams import dead_channel, stuck_consumer
from coupon_ledger.cli.sources.faults.terms import budget_runaway, over_issue, use_rate_collapse
from coupon_ledger.cli.sources.faults.uses import double_use_ring, price_error, refund_abuse

Fault = Callable[..., tuple[Frames, Label]]
"""`fault(frames, random, *, at=None, …)` returns the frames with the fault in them, and its label. `random` draws
everything about the fault. `at`: when it starts; by default, at a random instant in the later part of the stretch."""

KINDS: Final[Mapping[str, Fault]] = MappingProxyType(
    {
        "device-farm": device_farm,
        "one-ip": one_ip,
        "consecutive-phones": consecutive_phones,
        "slow-drip": slow_drip,
        "leaked-code": leaked_code,
        "double-use-ring": double_use_ring,
        "refund-abuse": refund_abuse,
        "price-error": price_error,
        "over-issue": over_issue,
        "budget-runaway": budget_runaway,
        "use-rate-collapse": use_rate_collapse,
        "stuck-consumer": stuck_consumer,
        "dead-channel": dead_channel,
        "harmful-arm": harmful_arm,
    }
)


def description(kind: str) -> str:
    """What a kind of fault is, in one sentence (the first paragraph of its function's docstring)."""
    text = inspect.getdoc(KINDS[kind]) or ""
    return " ".join(text.partition("\n\n")[0].split())


def inject(frames: Frames, kinds: Sequence[str], seed: int) -> tuple[Frames, list[Label]]:
    """Mix one fault of each of the `kinds` into the stream, one after the other; a kind that is named twice comes
    twice. Returns the stream, and one label per fault. The same seed gives the same faults."""
    labels: list[Label] = []
    for number, kind in enumerate(kinds):
        random = np.random.default_rng([seed, number, crc32(kind.encode())])
        frames, label = KINDS[kind](frames, random)
        gone = frozenset(label.removed_event_ids)
        labels = [*(earlier.without(gone) for earlier in labels), label]
    return frames, labels
