-- With which settings was the database computed? Grain: the database. `versions`: the version of each projection.
-- `alert_rules`: the alert rules that are or were in force; `alerts_until`: by topic, up to when its events were evaluated by
-- them. Instants in these two are microseconds since the epoch.
SELECT data_clock, grace_minutes, (SELECT list({name: name, version: version} ORDER BY name) FROM projections) AS versions,
       (SELECT list({rule: rule, since: epoch_us(since), until: epoch_us(until)} ORDER BY name, since) FROM alert_rules)
           AS alert_rules,
       (SELECT list({topic: topic, until: epoch_us(released_until)} ORDER BY topic) FROM alert_progress) AS alerts_until
FROM ledger
