-- When did the condition of a rule hold for a key? Grain: the episode with this id.
SELECT opened_at, fired_at, last_true_at, closed_at, opened_recorded_at, value, peak, threshold, times, details
FROM alert_episodes WHERE episode_hash = $episode_hash AND episode_id = $episode
