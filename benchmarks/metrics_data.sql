-- What does a ledger of so many coupons and orders hold (variables `coupons`, `others`)? The tables as the fold leaves
-- them, drawn by hashing numbers with `seed`: the same every time. Half a year, lives as on a sale day; no late or illegal
-- events, which no metric reads faster or slower. `others`: orders without a coupon. Hashes stand for stable_hash.

CREATE OR REPLACE TEMP MACRO u(i, salt) AS (hash(i, salt, getvariable('seed')) % 1000003) / 1000003.0;
CREATE OR REPLACE TEMP MACRO h(key) AS (hash(key) >> 1)::BIGINT;
CREATE OR REPLACE TEMP MACRO days(x) AS to_microseconds((x * 86400000000)::BIGINT);

CREATE TEMP TABLE lives AS
WITH gifts AS (
    SELECT i, 'c-' || lpad(i::VARCHAR, 8, '0') AS coupon_id,
           (40 * u(i, 1) ** 2)::INTEGER AS campaign,
           'u-' || lpad((getvariable('coupons') / 3 * u(i, 2) ** 3)::BIGINT::VARCHAR, 7, '0') AS user_id,
           TIMESTAMP '2026-05-01' + days(180.0 * i / getvariable('coupons')) AS created_at,
           u(i, 3) < 0.99 AS issued, u(i, 4) < 0.35 AS direct, u(i, 5) < 0.70 AS taken, u(i, 6) < 0.42 AS buys,
           ['app', 'mini_program', 'sms', 'store'][1 + i % 4] AS channel
    FROM range(getvariable('coupons')) r(i)
),
owned AS (
    SELECT *, CASE WHEN issued THEN created_at + days(u(i, 7) / 24) END AS issued_at,
           CASE WHEN issued AND NOT direct AND taken THEN created_at + days(0.05 + 3 * u(i, 8) ** 3) END AS claimed_at
    FROM gifts
),
bought AS (
    SELECT *, CASE WHEN direct THEN issued_at ELSE claimed_at END AS acquired_at,
           CASE WHEN buys THEN coalesce(claimed_at, CASE WHEN direct THEN issued_at END) + days(0.01 + 5 * u(i, 9) ** 3)
           END AS used_at
    FROM owned
)
SELECT *, CASE WHEN u(i, 10) < 0.06 THEN used_at + days(0.1 + 2 * u(i, 11)) END AS returned_at,
       CASE WHEN used_at IS NULL AND u(i, 12) < 0.5 THEN created_at + days(10) END AS expired_at,
       CASE WHEN used_at IS NOT NULL THEN 'o-' || lpad(i::VARCHAR, 10, '0') END AS order_id,
       500 * (1 + campaign % 7) AS discount_minor
FROM bought;

INSERT INTO coupon_events BY NAME
WITH told AS (
    SELECT i, 'created' AS type, created_at AS happened_at FROM lives
    UNION ALL SELECT i, 'issued', issued_at FROM lives WHERE issued_at IS NOT NULL
    UNION ALL SELECT i, 'claimed', claimed_at FROM lives WHERE claimed_at IS NOT NULL
    UNION ALL SELECT i, 'reserved', used_at - INTERVAL 5 MINUTE FROM lives WHERE used_at IS NOT NULL AND i % 7 > 0
    UNION ALL SELECT i, 'used', used_at FROM lives WHERE used_at IS NOT NULL
    UNION ALL SELECT i, 'returned', returned_at FROM lives WHERE returned_at IS NOT NULL
    UNION ALL SELECT i, 'expired', expired_at FROM lives WHERE expired_at IS NOT NULL
)
SELECT h(coupon_id) AS key_hash, md5(i || type) AS event_id, type, happened_at AS occurred_at,
       CASE WHEN type IN ('created', 'issued', 'claimed', 'expired') THEN 'marketing' ELSE 'shop' END AS source,
       coupon_id, CASE WHEN type IN ('created', 'issued', 'claimed', 'expired') THEN 'camp-' || campaign END AS campaign_id,
       CASE WHEN type IN ('claimed', 'reserved', 'used') OR (type = 'issued' AND direct) THEN user_id END AS user_id,
       CASE WHEN type IN ('reserved', 'used', 'returned') THEN order_id END AS order_id,
       CASE WHEN type IN ('issued', 'claimed') THEN channel END AS channel,
       CASE WHEN type = 'expired' THEN CASE WHEN acquired_at IS NULL THEN 'not_claimed' ELSE 'not_used' END END AS reason,
       CASE WHEN type = 'used' THEN discount_minor END AS discount_minor,
       CASE WHEN type IN ('created', 'used') THEN 'CNY' END AS currency,
       happened_at AS recorded_at, i % 4 AS log_partition, i AS log_offset
FROM told JOIN lives USING (i)
ORDER BY happened_at;

INSERT INTO coupons BY NAME
SELECT h(coupon_id) AS key_hash, coupon_id,
       CASE WHEN used_at IS NOT NULL AND returned_at IS NULL THEN 'used' WHEN expired_at IS NOT NULL THEN 'expired'
            WHEN claimed_at IS NOT NULL THEN 'claimed' WHEN issued THEN 'issued' ELSE 'created' END AS state,
       CASE WHEN claimed_at IS NOT NULL THEN 'claimed' WHEN issued THEN 'issued' ELSE 'created' END AS resting,
       'camp-' || campaign AS campaign_id,
       ['cash', 'threshold', 'percent', 'shipping'][1 + campaign % 4] AS coupon_type, discount_minor AS face_value_minor,
       'CNY' AS currency, created_at AS valid_from, created_at + INTERVAL 10 DAY AS valid_until,
       CASE WHEN acquired_at IS NOT NULL THEN user_id END AS owner,
       CASE WHEN returned_at IS NULL THEN order_id END AS order_id,
       CASE WHEN used_at IS NOT NULL AND returned_at IS NULL THEN discount_minor END AS discount_minor,
       acquired_at, CASE WHEN acquired_at IS NOT NULL THEN md5(i || 'claimed') END AS acquired_event_id,
       CASE WHEN acquired_at IS NOT NULL THEN user_id END AS acquired_by,
       CASE WHEN used_at IS NOT NULL THEN md5(i || 'used') END AS used_event_id,
       CASE WHEN issued THEN channel END AS issue_channel, CASE WHEN claimed_at IS NOT NULL THEN channel END AS claim_channel,
       created_at, issued_at, claimed_at, CASE WHEN i % 7 > 0 THEN used_at - INTERVAL 5 MINUTE END AS reserved_at, used_at, expired_at AS ended_at,
       greatest(created_at, issued_at, claimed_at, used_at, returned_at, expired_at) AS last_event_at,
       1 + (issued_at IS NOT NULL)::INTEGER + (claimed_at IS NOT NULL)::INTEGER
       + CASE WHEN used_at IS NULL THEN 0 WHEN i % 7 > 0 THEN 2 ELSE 1 END + (returned_at IS NOT NULL)::INTEGER
       + (expired_at IS NOT NULL)::INTEGER AS events,
       0 AS violations, 0 AS last_type, 0 AS ids_low, 0 AS ids_high, created_at AS first_recorded_at
FROM lives ORDER BY i;

INSERT INTO coupons_in_use BY NAME
SELECT h(order_id) AS order_hash, order_id, h(coupon_id) AS key_hash, coupon_id, used_at, md5(i || 'used') AS used_event_id,
       discount_minor
FROM lives WHERE used_at IS NOT NULL AND returned_at IS NULL ORDER BY used_at;

CREATE TEMP TABLE bought AS
SELECT order_id, user_id, used_at AS paid_at, i, discount_minor FROM lives WHERE used_at IS NOT NULL
UNION ALL
SELECT 'p-' || lpad(i::VARCHAR, 10, '0'), 'u-' || lpad((getvariable('coupons') / 3 * u(i, 21))::BIGINT::VARCHAR, 7, '0'),
       TIMESTAMP '2026-05-01' + days(180.0 * i / getvariable('others')), i, 0
FROM range(getvariable('others')) r(i);

INSERT INTO orders BY NAME
SELECT h(order_id) AS key_hash, order_id, user_id, ['app', 'mini_program', 'sms', 'store'][1 + i % 4] AS channel,
       's-' || (300 * u(i, 22))::INTEGER AS store, ['north', 'south', 'east', 'west', 'centre'][1 + i % 5] AS region,
       'CNY' AS currency, gross_minor, gross_minor - discount_minor AS net_minor, gross_minor * 6 // 10 AS cost_of_goods_minor,
       paid_at - INTERVAL 4 MINUTE AS placed_at, paid_at, CASE WHEN i % 97 = 0 THEN gross_minor - discount_minor ELSE 0 END
       AS refunded_minor, paid_at AS last_event_at, 2 AS events, 0 AS violations, 1 AS last_type, 0 AS ids_low,
       0 AS ids_high, paid_at AS first_recorded_at
FROM (SELECT *, 5000 + (20000 * u(i, 23))::BIGINT AS gross_minor FROM bought) ORDER BY paid_at;

INSERT INTO users BY NAME
SELECT h(user_id) AS key_hash, user_id,
       '{"age":' || 18 + i % 50 || ',"segment":"' || ['new', 'loyal', 'sleeping', 'bargain'][1 + i % 4] || '"}' AS attributes,
       TIMESTAMP '2026-05-01' AS last_event_at, 1 AS events, 0 AS violations, 0 AS last_type, 0 AS ids_low, 0 AS ids_high,
       TIMESTAMP '2026-05-01' AS first_recorded_at
FROM (SELECT i, 'u-' || lpad(i::VARCHAR, 7, '0') AS user_id FROM range(getvariable('coupons') // 3 + 1) r(i));

INSERT INTO campaigns BY NAME
SELECT h('camp-' || i) AS key_hash, 'camp-' || i AS campaign_id, 'Campaign ' || i AS name, 'published' AS status,
       getvariable('coupons') // 20 AS quantity, 'CNY' AS currency, TIMESTAMP '2026-05-01' AS last_event_at, 1 AS events,
       0 AS violations, 0 AS last_type, 0 AS ids_low, 0 AS ids_high, TIMESTAMP '2026-05-01' AS first_recorded_at
FROM range(41) r(i);

INSERT INTO campaign_events BY NAME
SELECT h('camp-' || i) AS key_hash, md5(i || kind) AS event_id, 'cost_booked' AS type, TIMESTAMP '2026-05-01' AS occurred_at,
       'finance' AS source, 'camp-' || i AS campaign_id, kind AS cost_kind, 100000 AS amount_minor, 'CNY' AS currency,
       TIMESTAMP '2026-05-01' AS recorded_at, 0 AS log_partition, i AS log_offset
FROM range(41) r(i), (SELECT unnest(['media', 'operation']) AS kind);

UPDATE ledger SET commits = 1, committed_at = TIMESTAMP '2026-10-28',
                  data_clock = (SELECT max(occurred_at) FROM coupon_events WHERE occurred_at < TIMESTAMP '2026-10-28');
