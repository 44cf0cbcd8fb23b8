"""Reports: their parts, sections, charts and pages, and how values are written for people."""
