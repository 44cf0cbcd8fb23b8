-- Does every alert episode have a possible life? Grain: one episode that has not. An offender: alerts are listed with
-- wrong times, or an alert that is over is listed as going on.
SELECT e.episode_id, e.rule, e.key, e.opened_at, e.fired_at, e.last_true_at, e.closed_at,
       CASE WHEN e.fired_at < e.opened_at OR e.last_true_at < e.opened_at OR e.closed_at < e.last_true_at THEN 'order'
            WHEN e.closed_at IS NOT NULL AND e.fired_at IS NULL THEN 'closed without firing'
            WHEN e.closed_at IS NULL AND count(*) FILTER (e.closed_at IS NULL) OVER (PARTITION BY e.rule, e.rule_version, e.key) > 1
                THEN 'open twice'
            WHEN e.opened_recorded_at > p.released_until OR p.released_until IS NULL THEN 'ahead of what is evaluated'
       END AS problem
FROM alert_episodes e LEFT JOIN alert_progress p ON p.topic = e.topic
QUALIFY problem IS NOT NULL
