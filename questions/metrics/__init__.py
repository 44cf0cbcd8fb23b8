"""The operating metrics, each defined once, over any slice and grain of time."""
