-- Is every operation stored once? One row: an operation that is stored several times. An offender is counted several
-- times in lists of what was done.
SELECT event_id, count(*) AS times
FROM operation_events
GROUP BY event_id
HAVING count(*) > 1
