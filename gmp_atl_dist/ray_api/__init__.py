"""Asking a Ray cluster from outside: its job API, and what it consists of. Nothing here joins it."""
