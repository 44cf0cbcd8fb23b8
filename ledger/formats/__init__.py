"""Events in files: NDJSON, JSON, CSV, XLSX and Parquet, read row by row."""
