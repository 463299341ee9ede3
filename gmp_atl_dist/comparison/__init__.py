"""Compares runs of any roots: finds them, groups their seeds, and refuses what cannot be compared."""
