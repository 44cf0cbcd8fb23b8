"""Questions about the tables: each is a function, with its SQL in a file beside it."""
