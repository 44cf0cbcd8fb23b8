-- Does every campaign have the values of the last event in canonical order that carries each, and the latest rule
-- version?
-- Grain: one campaign. An offender: its row differs from its events.
WITH history AS (
    SELECT key_hash, campaign_id, event_id, type, occurred_at, name, rule_id, mechanic, visibility, quantity,
           per_user_limit, claim_from, claim_until, coupon_type, face_value_minor, percent_off_bp, min_spend_minor,
           currency, applies_to, exclusion_group, priority, platform_or_store, budget_minor, channel, funded_by,
           type IN ('drafted', 'published', 'unpublished', 'amended', 'ended') AS terms,
           row_number() OVER (PARTITION BY key_hash, campaign_id
                              ORDER BY occurred_at, list_position($campaign_types, type), event_id) AS place
    FROM campaign_events WHERE key_hash BETWEEN $first AND $last
),
carried AS (
    SELECT key_hash, campaign_id,
           {name: arg_max(name, place) FILTER (terms AND name IS NOT NULL),
            rule_id: arg_max(rule_id, place) FILTER (terms AND rule_id IS NOT NULL),
            mechanic: arg_max(mechanic, place) FILTER (terms AND mechanic IS NOT NULL),
            visibility: arg_max(visibility, place) FILTER (terms AND visibility IS NOT NULL),
            quantity: arg_max(quantity, place) FILTER (terms AND quantity IS NOT NULL),
            per_user_limit: arg_max(per_user_limit, place) FILTER (terms AND per_user_limit IS NOT NULL),
            claim_from: arg_max(claim_from, place) FILTER (terms AND claim_from IS NOT NULL),
            claim_until: arg_max(claim_until, place) FILTER (terms AND claim_until IS NOT NULL),
            coupon_type: arg_max(coupon_type, place) FILTER (terms AND coupon_type IS NOT NULL),
            face_value_minor: arg_max(face_value_minor, place) FILTER (terms AND face_value_minor IS NOT NULL),
            percent_off_bp: arg_max(percent_off_bp, place) FILTER (terms AND percent_off_bp IS NOT NULL),
            min_spend_minor: arg_max(min_spend_minor, place) FILTER (terms AND min_spend_minor IS NOT NULL),
            currency: arg_max(currency, place) FILTER (terms AND currency IS NOT NULL),
            applies_to: arg_max(applies_to, place) FILTER (terms AND applies_to IS NOT NULL),
            exclusion_group: arg_max(exclusion_group, place) FILTER (terms AND exclusion_group IS NOT NULL),
            priority: arg_max(priority, place) FILTER (terms AND priority IS NOT NULL),
            platform_or_store: arg_max(platform_or_store, place) FILTER (terms AND platform_or_store IS NOT NULL),
            budget_minor: arg_max(budget_minor, place) FILTER (terms AND budget_minor IS NOT NULL),
            channel: arg_max(channel, place) FILTER (terms AND channel IS NOT NULL),
            funded_by: arg_max(funded_by, place) FILTER (terms AND funded_by IS NOT NULL),
            status: arg_max(type, place) FILTER (type IN ('drafted', 'published', 'unpublished', 'ended')),
            rule_version: arg_max(event_id, place) FILTER (type IN ('drafted', 'published', 'unpublished', 'amended'))} AS journal
    FROM history GROUP BY ALL
),
kept AS (
    SELECT key_hash, campaign_id,
           {name: name, rule_id: rule_id, mechanic: mechanic, visibility: visibility, quantity: quantity,
            per_user_limit: per_user_limit, claim_from: claim_from, claim_until: claim_until,
            coupon_type: coupon_type, face_value_minor: face_value_minor, percent_off_bp: percent_off_bp,
            min_spend_minor: min_spend_minor, currency: currency, applies_to: applies_to,
            exclusion_group: exclusion_group, priority: priority, platform_or_store: platform_or_store,
            budget_minor: budget_minor, channel: channel, funded_by: funded_by, status: status,
            rule_version: rule_version} AS row_says
    FROM campaigns WHERE key_hash BETWEEN $first AND $last
)
SELECT campaign_id, row_says, journal
FROM kept JOIN carried USING (key_hash, campaign_id)
WHERE row_says IS DISTINCT FROM journal
