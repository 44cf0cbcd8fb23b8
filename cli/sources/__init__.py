"""Event generators inside this package: a real retail year, and simulations. For events in files see `ledger/formats`.

An event generator is a function that yields pairs (topic, frame). `frame` is a polars frame with one event per row; its
columns have the names and types of the topic's wire fields. A field without a column is null. Event generators append
nothing to the log.
"""
