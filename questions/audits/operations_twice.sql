-- Is every operation stored once?
-- Grain: one operation. An offender: it is stored several times, and lists of what was done count it several times.
SELECT event_id, count(*) AS times
FROM operation_events
GROUP BY event_id
HAVING count(*) > 1
