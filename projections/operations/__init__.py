"""The table `operation_events`: what operators and callers of the HTTP API did, to be asked.

It is a function of `coupon.operations` alone. No rebuild empties it; a new database reads the topic from its start. An
older database gets the table when its owner starts.
"""
