"""Customers who use coupons: recency and value, segments, cohorts, funnels, projections."""
