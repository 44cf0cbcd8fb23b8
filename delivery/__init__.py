"""Messages about alerts: their texts, where they go, and the queue that delivers them."""
