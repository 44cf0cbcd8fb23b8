"""Anomalies of one metric as its values come: a score and an expected band per row, from the rows up to it alone."""

from coupon_ledger.analysis.detector.detector import THRESHOLD, WARM_UP, Detector, Reading
from coupon_ledger.analysis.detector.floors import Floor

__all__ = ["THRESHOLD", "WARM_UP", "Detector", "Floor", "Reading"]
