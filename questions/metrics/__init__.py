"""The operating metrics: each is defined once, and can be asked over any slice and time grain."""
