"""Sources of events inside this package: a real retail year, and seeded generators. For files see `ledger/formats`.

A source is a function that yields (topic, frame): a polars frame with columns named and typed like the topic's wire
fields. A field without a column is null. Sources publish nothing themselves.
"""
