-- Moves the data's clock to $clock (null: no move), unless it is later already. Returns it with the grace. Grain: the
-- database.
UPDATE ledger SET data_clock = greatest(data_clock, $clock) RETURNING data_clock, grace_minutes
