"""Questions about what operators and callers of the HTTP API did."""
