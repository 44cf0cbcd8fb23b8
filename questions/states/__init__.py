"""Where coupons, orders, people and campaigns stand, now or at an instant of the past."""
