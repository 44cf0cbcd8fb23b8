-- Which pairs of ids do the `linked` events in the cut join? Grain: one pair. Reads the past journal.
SELECT DISTINCT user_id, alias_id FROM user_events WHERE type = 'linked' AND alias_id IS NOT NULL
