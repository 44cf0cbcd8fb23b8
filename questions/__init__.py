"""What can be asked of the database. Each question is a function, with its SQL in a file beside it."""
