"""Statistics: pure functions of arrays and frames, each with the source of its formula. They know nothing of tables.

Libraries that only these need are imported where they are used, so that everything else starts without them.
"""
