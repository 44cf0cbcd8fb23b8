"""Reports for people: what they consist of (parts, sections, charts, pages), and how they show values."""
