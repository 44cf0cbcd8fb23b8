-- How often was each rule broken? Grain: one violation code.
SELECT violation, count(*) AS violations, count(DISTINCT (topic, key)) AS keys FROM violations GROUP BY ALL ORDER BY ALL
