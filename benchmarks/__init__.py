"""Benchmarks. Each is one command, ``python -m benchmarks.NAME``; the last line is one JSON object.

``python -m benchmarks`` lists them. Modules of this folder are commands. ``harness`` runs them and
prints their results, ``inputs`` makes the data, and ``subjects`` holds what is measured.
"""
