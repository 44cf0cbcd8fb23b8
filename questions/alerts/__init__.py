"""What people ask about alerts: which are open, what is behind one, how good the rules are. Also what rules find that
are evaluated on the tables (`offenders.py`).

An alert's life is read from the table `alert_events`. What is behind it (coupons, orders, users) is read from the
journal by the alert's key and window.
"""
