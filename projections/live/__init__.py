"""The live projection: where every coupon, order, campaign and user is now, and the journal behind it."""
