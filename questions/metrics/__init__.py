"""The operating metrics. Each is defined once, in metrics.toml, and can be computed for any slice and time grain."""
