-- Which ids were linked in the cut? Grain: one link. Reads the journal of the past.
SELECT DISTINCT user_id, alias_id FROM user_events WHERE type = 'linked' AND alias_id IS NOT NULL
