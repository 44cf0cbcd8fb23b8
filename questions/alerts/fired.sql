-- When did the log record the event that opened an alert? Grain: one episode.
SELECT episode_id, opened_recorded_at FROM alert_episodes
