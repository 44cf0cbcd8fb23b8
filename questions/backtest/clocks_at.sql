-- What do the events say of the time that had passed when they were recorded? Grain: one instant of `needed` (`until`).
-- `clock`: the latest instant, by the earlier of both clocks, of the events recorded after the `until` before it and not
-- after this one. The highest so far is the data's clock.
SELECT n.until, max(e.moment) AS clock
FROM ({moments}) e ASOF JOIN needed n ON e.recorded_at <= n.until
GROUP BY n.until
