"""Reads events from files in the formats NDJSON, JSON, CSV, XLSX and Parquet."""
