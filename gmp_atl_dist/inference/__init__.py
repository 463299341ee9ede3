"""Forward passes over parts of the corpus; each class is one Ray task worker."""
