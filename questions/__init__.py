"""What people ask of the tables: each question a function, its SQL in a file beside it."""
