"""What a report is and how it is drawn, for every place that shows one: parts, sections, labels, charts, pages."""
