"""Alerts: rules that say what looks wrong, and their evaluation on the log."""
