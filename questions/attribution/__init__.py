"""Attribution: which part of orders, sales and margin is credited to which channel or campaign, and the return of
campaigns."""
