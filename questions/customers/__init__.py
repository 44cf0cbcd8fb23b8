"""Questions about customers: recency and value, segments, cohorts, funnels, expected purchases, and use of coupons."""
