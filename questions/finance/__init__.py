"""What coupons cost and who bears it: splits of discounts, margins, budgets, cash, losses, liability statements.

Invariants: amounts are in minor units, and currencies are never added up. The parts of a split sum to the whole, to the
minor unit. Every number comes from the tables that the question reads, so every question works for the past too.
"""
