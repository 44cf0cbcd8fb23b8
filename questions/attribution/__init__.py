"""What channels and campaigns earned: models, credits, ROI."""
