"""Questions about money: who bears the discounts, margins, budgets, cash, losses, and the liability of outstanding
coupons.

Invariants: amounts are in minor units. Amounts in different currencies are never added up. If an amount is split, its
parts sum to it exactly. Every number comes from the tables that the question reads, so every question works for the
past, too.
"""
