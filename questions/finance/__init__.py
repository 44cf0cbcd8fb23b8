"""The cost of coupons and who bears it: splits of discounts, margins, budgets, cash, losses, statements that balance.

Invariants: every amount is in the minor units of one currency and is never added to another currency; the parts of a
split sum to the amount split, to the minor unit; every number comes only from the tables that the question reads, so it
can also be asked of the past.
"""
