"""Where events come from besides other systems: a real retail year, a seeded generator, and files.

The first two are functions that yield (topic, frame): a polars frame whose columns are wire fields of that topic,
by name and type; a field that a frame lacks is null. File formats yield records and refused rows, see `rows.py`.
Sources publish nothing themselves.
"""
