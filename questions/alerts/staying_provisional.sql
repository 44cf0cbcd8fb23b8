-- Which violations are provisional, and were triggered by events recorded at or before $before? Grain: one code.
SELECT violation AS code, count(*) AS violations, min(trigger_recorded_at) AS first_at
FROM judged_violations
WHERE provisional AND trigger_recorded_at <= $before AND NOT explained AND NOT superseded(event_id, violation)
GROUP BY ALL
ORDER BY code
