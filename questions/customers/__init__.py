"""Customers: recency and value, segments, cohorts, funnels, projections, and their use of coupons."""
