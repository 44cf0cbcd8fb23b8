"""The live projection: the current state of every coupon, order, campaign and user, and the journals behind it."""
