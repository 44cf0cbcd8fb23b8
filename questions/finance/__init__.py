"""What coupons cost and who bears it: splits of discounts, margins, budgets, cash, losses, statements that balance.

What always holds: amounts are of one currency, in its minor units, and are never added to those of another; a split
sums to what was split, to the minor unit; every number is of the tables that it is asked of, so that it can be asked as
of the past.
"""
