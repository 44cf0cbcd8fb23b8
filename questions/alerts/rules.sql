-- Which alert rules are or were in force? Grain: one version of a rule in one stretch of time.
SELECT name, version, rule, since, until FROM alert_rules
WHERE ($rule::VARCHAR IS NULL OR name = $rule)
ORDER BY name, since
