"""What people ask about alerts, and the rules that are evaluated on the tables."""
