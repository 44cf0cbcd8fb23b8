-- Which settings was the database computed with? Grain: the database. `versions`: the version of each projection.
SELECT data_clock, grace_minutes, (SELECT list({name: name, version: version} ORDER BY name) FROM projections) AS versions
FROM ledger
