-- Of which state is an answer? Grain: the database.
SELECT commits, committed_at, data_clock FROM ledger
