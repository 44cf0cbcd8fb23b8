"""Attribution of orders and sales to channels and campaigns: models, credits, ROI."""
