"""Where events come from besides other systems: a real retail year and seeded generators. Files: `ledger/formats`.

A source is a function that yields (topic, frame): a polars frame whose columns are wire fields of that topic,
by name and type; a field that a frame lacks is null.
Sources publish nothing themselves.
"""
