"""The projection of persons and paths: which touches led to an order."""
