-- Which of these violations are superseded (see violations.sql)? Grain: one violation; `events` and `codes` are
-- parallel lists.
SELECT event_id, violation
FROM (SELECT unnest($events::VARCHAR[]) AS event_id, unnest($codes::VARCHAR[]) AS violation)
WHERE superseded(event_id, violation)
