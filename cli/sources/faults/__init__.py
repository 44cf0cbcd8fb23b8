"""Faults with labels: what an alert should find, mixed into a stream in which it is known not to be.

    frames = quiet_days(QuietWorld())                     # or `with_arrivals` of the retail year
    faulty, labels = inject(frames, ["device-farm"], 1)   # `KINDS` names all kinds
    frames, label = KINDS["one-ip"](frames, random, claims=400, minutes=60)

What always holds: the same stream, seed and parameters give the same fault; a label names all events that were added
and removed (`labels.py`); all other events are those of the clean stream, unchanged, and arrive when they did, except
for those that a stuck consumer holds up, which its label names too.

This package imports nothing of `projections/`, and shares no constant with the rules that look for such faults.
"""

from coupon_ledger.cli.sources.faults.labels import Label, write_labels
from coupon_ledger.cli.sources.faults.registry import KINDS, description, inject

__all__ = ["KINDS", "Label", "description", "inject", "write_labels"]
