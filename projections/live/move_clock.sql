-- The data's clock comes to $clock (null: stays), unless it is later already. Returns it with the grace. Grain: the database.
UPDATE ledger SET data_clock = greatest(data_clock, $clock) RETURNING data_clock, grace_minutes
