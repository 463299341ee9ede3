"""Runs as objects: their names, records, progress and removal, and the models that they made."""
