"""Speed (`run`, against `baseline`), and proof that no kill loses or repeats anything (`chaos`)."""
