"""The state of coupons, orders, people and campaigns, now or at an instant of the past."""
