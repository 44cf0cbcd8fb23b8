-- Which is the first and the last instant of the data's clock? Grain: the database. Null before the first event. `moments`:
-- the events of all topics.
SELECT min(moment) AS first_at, max(moment) AS last_at FROM ({moments})
