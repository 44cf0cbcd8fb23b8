"""How fast it is (`run`, beside `baseline`), and that no kill loses or repeats anything (`chaos`)."""
