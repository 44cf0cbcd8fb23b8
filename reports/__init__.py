"""Reports: their parts, sections, labels, charts and pages, shared by every place that shows one."""
