"""Checks in seconds, before a run costs anything, whether it can work: ``gmp-atl doctor``.

There is one module per subject. Each yields findings, and raises no error that a user can cause.
"""
