"""What coupons cost and who bears it: splits, statements that balance, losses."""
