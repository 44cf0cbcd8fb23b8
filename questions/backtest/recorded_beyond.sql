-- When was the first event recorded that happened after an instant, by the earlier of both clocks, and not after the next
-- one? Grain: one instant of `instants` (`moment`) with such events.
SELECT i.moment, min(e.recorded_at) AS recorded_at
FROM ({moments}) e ASOF JOIN instants i ON e.moment > i.moment
GROUP BY i.moment
