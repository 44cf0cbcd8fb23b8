"""Alert rules that are evaluated on the tables, and what people ask about alerts."""
