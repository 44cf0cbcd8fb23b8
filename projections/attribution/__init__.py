"""Which contacts led to an order: the projection of paths, and the models that credit them."""
