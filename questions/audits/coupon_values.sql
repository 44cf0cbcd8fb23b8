-- Does every coupon have the values of the first event in canonical order that carries each, and the end of its last
-- extension?
-- Grain: one coupon. An offender: its row differs from its events. The last legal `extended` event moves the end
-- (`valid_until`); without one, the end is a value like the others.
WITH illegal AS (
    SELECT key_hash, key AS coupon_id, event_id FROM violations
    WHERE key_hash BETWEEN $first AND $last AND topic = 'coupon.events' AND scope = 'coupon'
      AND starts_with(violation, 'extended_when_')
),
history AS (
    SELECT key_hash, coupon_id, occurred_at, campaign_id, coupon_type, face_value_minor, percent_off_bp, min_spend_minor, currency,
           valid_from, valid_until,
           type = 'extended' AND NOT EXISTS (
               FROM illegal i
               WHERE i.key_hash = e.key_hash AND i.coupon_id = e.coupon_id AND i.event_id = e.event_id
           ) AS extends,
           row_number() OVER (PARTITION BY key_hash, coupon_id
                              ORDER BY occurred_at, list_position($coupon_types, type), event_id) AS place
    FROM coupon_events e WHERE key_hash BETWEEN $first AND $last
),
carried AS (
    SELECT key_hash, coupon_id,
           {campaign_id: arg_min(campaign_id, place) FILTER (campaign_id IS NOT NULL),
            coupon_type: arg_min(coupon_type, place) FILTER (coupon_type IS NOT NULL),
            face_value_minor: arg_min(face_value_minor, place) FILTER (face_value_minor IS NOT NULL),
            percent_off_bp: arg_min(percent_off_bp, place) FILTER (percent_off_bp IS NOT NULL),
            min_spend_minor: arg_min(min_spend_minor, place) FILTER (min_spend_minor IS NOT NULL),
            currency: arg_min(currency, place) FILTER (currency IS NOT NULL),
            valid_from: arg_min(valid_from, place) FILTER (valid_from IS NOT NULL),
            valid_until: coalesce(arg_max(valid_until, place) FILTER (extends),
                                  arg_min(valid_until, place) FILTER (valid_until IS NOT NULL)),
            extended_at: max(occurred_at) FILTER (extends)} AS journal
    FROM history GROUP BY ALL
),
kept AS (
    SELECT key_hash, coupon_id,
           {campaign_id: campaign_id, coupon_type: coupon_type, face_value_minor: face_value_minor,
            percent_off_bp: percent_off_bp, min_spend_minor: min_spend_minor, currency: currency,
            valid_from: valid_from, valid_until: valid_until, extended_at: extended_at} AS row_says
    FROM coupons WHERE key_hash BETWEEN $first AND $last
)
SELECT coupon_id, row_says, journal
FROM kept JOIN carried USING (key_hash, coupon_id)
WHERE row_says IS DISTINCT FROM journal
