"""The ledger itself: events, their bytes, the log."""
