-- Advances the data's clock to $clock, unless it is already later or $clock is null. Returns clock and grace. Grain:
-- the database.
UPDATE ledger SET data_clock = greatest(data_clock, $clock) RETURNING data_clock, grace_minutes
