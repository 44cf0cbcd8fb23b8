-- Are the terms in force at each instant those of the campaign's events?
-- Grain: one campaign and instant, missing or superfluous. An offender: coupons are judged by terms that were not in
-- force.
WITH rule_events AS (
    SELECT campaign_id, occurred_at, quantity, per_user_limit, claim_from, claim_until,
           row_number() OVER (PARTITION BY campaign_id
                              ORDER BY occurred_at, list_position($campaign_types, type), event_id) AS place
    FROM campaign_events
    WHERE type IN ('drafted', 'published', 'unpublished', 'amended', 'ended')
      AND (coalesce(quantity, per_user_limit) IS NOT NULL OR coalesce(claim_from, claim_until) IS NOT NULL)
),
wanted AS (
    SELECT i.campaign_id, i.since, arg_max(t.quantity, t.place) FILTER (t.quantity IS NOT NULL) AS quantity,
           arg_max(t.per_user_limit, t.place) FILTER (t.per_user_limit IS NOT NULL) AS per_user_limit,
           arg_max(t.claim_from, t.place) FILTER (t.claim_from IS NOT NULL) AS claim_from,
           arg_max(t.claim_until, t.place) FILTER (t.claim_until IS NOT NULL) AS claim_until
    FROM (SELECT DISTINCT campaign_id, occurred_at AS since FROM rule_events) i
    JOIN rule_events t ON t.campaign_id = i.campaign_id AND t.occurred_at <= i.since
    GROUP BY ALL
),
kept AS (
    SELECT campaign_id, since, quantity, per_user_limit, claim_from, claim_until FROM campaign_terms
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
