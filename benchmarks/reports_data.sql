-- What finance, customers and experiments read beside what metrics do (metrics_data.sql), drawn the same way: an
-- experiment (camp-trial) with two arms and a control, touches on the way to orders, budgets, what orders say of discounts.

INSERT INTO campaign_events BY NAME
SELECT getvariable('trial') AS key_hash, md5('assigned' || i) AS event_id, 'assigned' AS type, TIMESTAMP '2026-07-31' AS occurred_at,
       'marketing' AS source, 'camp-trial' AS campaign_id, 'u-' || lpad(i::VARCHAR, 7, '0') AS user_id,
       ['control', 'five', 'ten'][1 + (hash(i) % 3)::INTEGER] AS arm, TIMESTAMP '2026-07-31' AS recorded_at, 0 AS log_partition,
       1000000 + i AS log_offset
FROM range(getvariable('assigned')) r(i);

INSERT INTO user_events BY NAME
SELECT h(user_id) AS key_hash, user_id, md5('touch' || i) AS event_id, 'touched' AS type, happened_at AS occurred_at,
       'web' AS source, ['view', 'view', 'click', 'cart'][1 + i % 4] AS kind, ['app', 'mini_program', 'sms'][1 + i % 3] AS channel,
       'camp-' || i % 41 AS campaign_id, happened_at AS recorded_at, 0 AS log_partition, i AS log_offset
FROM (SELECT i, 'u-' || lpad((getvariable('coupons') / 3 * u(i, 31) ** 2)::BIGINT::VARCHAR, 7, '0') AS user_id,
             TIMESTAMP '2026-05-01' + days(180.0 * i / getvariable('touches')) AS happened_at
      FROM range(getvariable('touches')) r(i));

INSERT INTO campaigns BY NAME
SELECT getvariable('trial') AS key_hash, 'camp-trial' AS campaign_id, 'Trial' AS name, 'published' AS status, 'CNY' AS currency,
       TIMESTAMP '2026-07-31' AS last_event_at, 1 AS events, 0 AS violations, 0 AS last_type, 0 AS ids_low, 0 AS ids_high,
       TIMESTAMP '2026-07-31' AS first_recorded_at;

UPDATE campaigns SET budget_minor = 100000000, funded_by = '{"brand":4000,"platform":6000}';

UPDATE orders SET discounts = [{kind: 'coupon', amount_minor: gross_minor - net_minor, funder: NULL}]
WHERE gross_minor > net_minor;
