-- Does `over_person_limit` mark exactly the coupons that a person acquired above the limit in force, over all ids?
-- Grain: one violation, missing or superfluous. An offender: a breach of the limit hidden behind a second id, or a
-- report without a breach. Runs in parts of the persons. What a single id acquired above the limit is
-- `over_user_limit`.
WITH mine AS (
    SELECT user_id, person FROM persons
    WHERE (hash(person)::HUGEINT - 9223372036854775808)::BIGINT BETWEEN $first AND $last
),
ranked AS (
    SELECT a.*, p.person,
           row_number() OVER (PARTITION BY campaign_id, person
                              ORDER BY acquired_at, acquired_event_id, coupon_id) AS place_of_person,
           row_number() OVER (PARTITION BY campaign_id, acquired_by
                              ORDER BY acquired_at, acquired_event_id, coupon_id) AS place_of_user
    FROM acquisitions a JOIN mine p ON p.user_id = a.acquired_by
),
wanted AS (
    SELECT a.key_hash, a.coupon_id AS key, a.acquired_event_id AS event_id, a.acquired_at AS occurred_at
    FROM ranked a ASOF JOIN campaign_terms t ON t.campaign_id = a.campaign_id AND t.since <= a.acquired_at
    WHERE a.place_of_person > t.per_user_limit AND a.place_of_user <= t.per_user_limit
),
kept AS (
    SELECT v.key_hash, v.key, v.event_id, v.occurred_at
    FROM violations v
    LEFT JOIN acquisitions a ON a.key_hash = v.key_hash AND a.coupon_id = v.key
    LEFT JOIN persons p ON p.user_id = a.acquired_by
    WHERE v.violation = 'over_person_limit'
      AND (hash(coalesce(p.person, a.acquired_by, ''))::HUGEINT - 9223372036854775808)::BIGINT BETWEEN $first AND $last
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
