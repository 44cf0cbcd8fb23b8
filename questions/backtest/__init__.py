"""What alert rules would have found in the past."""
