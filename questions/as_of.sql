-- Which committed state does an answer come from? Grain: the database.
SELECT commits, committed_at, data_clock FROM ledger
