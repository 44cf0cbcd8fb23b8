"""Access rights of questions: which may be asked, which rows they see, and whether they see personal data."""
