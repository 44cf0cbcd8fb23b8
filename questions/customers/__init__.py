"""Who uses coupons, and what becomes of them: recency and worth, segments, cohorts, paths, what may come."""
