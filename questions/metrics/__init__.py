"""The operating metrics. Each metric is defined once, in metrics.toml, and can be computed for any slice and any time
grain."""
